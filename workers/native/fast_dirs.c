/* Open folders: opened, listed, closed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fast_call.h"
#include "given.h"
#include "listing.h"
#include "ring.h"

enum { DIRENT_MOST = 280, WORTH_A_CALL = 1024 };
#define SECOND UINT64_C(1000000000)
#define YEAR UINT64_C(31536000)

struct list_in {                 /* fuse_read_in */
	uint64_t fh, offset;
	uint32_t size;
};

struct dirent {                  /* fuse_dirent */
	uint64_t ino, offset;
	uint32_t name_length, type;
	char name[];
};
_Static_assert(offsetof(struct dirent, name) == 24, "fuse_dirent");

struct direntplus {              /* fuse_direntplus */
	struct entry_out entry;
	struct dirent dirent;
};

struct found {                   /* linux_dirent64 (getdents64(2)) */
	uint64_t ino;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* A listing in the making. `at`: bytes of the reply so far, of at most `limit`. `number`: the folder's inode number.
   `end`: the offset after the last name. `names`: those with a node. */
struct listing {
	struct call *call;
	int fd;
	uint32_t at, limit, names;
	uint64_t number, end;
};

/* For how long after they were given names are listed without attributes (given.h); 0: the kernel keeps none. */
static uint64_t lifetime(const struct call *call)
{
	const struct rm_fast_setup *setup = call->setup;
	uint64_t seconds = setup->entry_valid < setup->attr_valid ? setup->entry_valid : setup->attr_valid;

	if (seconds)
		return (seconds < YEAR ? seconds : YEAR) * SECOND / 2;
	return (setup->entry_valid_nsec < setup->attr_valid_nsec ? setup->entry_valid_nsec : setup->attr_valid_nsec) / 2;
}

enum outcome { ADDED, SKIPPED, FULL, REFUSED };

bool rm_do_opendir(struct call *call)
{
	const struct open_in *in = call->in;
	struct open_out *out = (struct open_out *)call->payload;
	struct stat st;
	int fd = rm_open_node(call, call->node, O_RDONLY | O_DIRECTORY | call->setup->no_trace);

	if (fd < 0)
		return false;
	int64_t fh = fd < call->setup->fd_limit ?
		rm_handles_add(call->setup->handles, call->setup->worker, call->node, in->flags, fd, 0,
			       call->journal->intent) : -ENFILE;

	if (fh < 0) {
		close(fd);
		return false;
	}
	*out = (struct open_out){ .fh = (uint64_t)fh, .flags = call->setup->folder_reply };
	if (!out->flags && lifetime(call) && !fstat(fd, &st))
		out->flags = rm_given_open(call->setup->given, call->node, lifetime(call), &st);
	return answer(call, sizeof *out);
}

bool rm_do_releasedir(struct call *call)
{
	return answer_release(call, ((const struct release_in *)call->in)->fh);
}

static uint32_t padded(uint32_t size)
{
	return (size + 7) & ~7u;
}

/* The fuse_dirent of a name. What is above the source is not part of the mount: the root is its own `..`. */
static void put_dirent(struct listing *listing, struct dirent *dirent, const struct found *found, uint32_t length,
		       uint64_t ino, uint32_t type)
{
	if (listing->call->node == ROOT && !strcmp(found->name, ".."))
		ino = listing->number;
	*dirent = (struct dirent){ .ino = ino, .offset = (uint64_t)found->offset, .name_length = length, .type = type };
	memcpy(dirent->name, found->name, length);
	memset(dirent->name + length, 0, padded(length) - length);
	listing->end = (uint64_t)found->offset;
}

static enum outcome add(struct listing *listing, const struct found *found)
{
	uint32_t length = (uint32_t)strlen(found->name), size = padded(sizeof(struct dirent) + length);

	if (listing->at + size > listing->limit)
		return FULL;
	put_dirent(listing, (struct dirent *)(listing->call->payload + listing->at), found, length, found->ino, found->type);
	listing->at += size;
	return ADDED;
}

/* Looks a name up and takes a reference on its node under the intent that begins the entry. */
static enum outcome look_up(struct listing *listing, const char *name, struct entry_out *entry, struct stat *st)
{
	const struct rm_fast_setup *setup = listing->call->setup;
	struct rm_file_handle handle;
	int fd = rm_lookup(listing->fd, name, &handle);

	if (fd < 0)
		return fd == -ENOENT ? SKIPPED : REFUSED;
	bool plain = !fstat(fd, st) && is_plain(listing->call, st);
	int64_t node = plain ? rm_take_node(listing->call, fd, &handle, st, &entry->node) : -1;

	close(fd);
	if (node < 0)
		return REFUSED;
	entry->entry_valid = setup->entry_valid;
	entry->attr_valid = setup->attr_valid;
	entry->entry_valid_nsec = setup->entry_valid_nsec;
	entry->attr_valid_nsec = setup->attr_valid_nsec;
	fill_attr(&entry->attr, st);
	return ADDED;
}

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static enum outcome add_plus(struct listing *listing, const struct found *found)
{
	struct call *call = listing->call;
	struct direntplus *plus = (struct direntplus *)(call->payload + listing->at);
	uint32_t length = (uint32_t)strlen(found->name), size = padded(sizeof *plus + length);
	struct stat st;

	if (listing->at + size > listing->limit)
		return FULL;
	if (listing->at == 0)
		rm_listing_begin(call->journal, call->payload);
	if (is_dots(found->name)) {
		memset(&plus->entry.entry_valid, 0, sizeof plus->entry - offsetof(struct entry_out, entry_valid));
		put_dirent(listing, &plus->dirent, found, length, found->ino, found->type);
	} else {
		enum outcome outcome = look_up(listing, found->name, &plus->entry, &st);

		if (outcome != ADDED)
			return outcome;
		put_dirent(listing, &plus->dirent, found, length, st.st_ino, st.st_mode >> 12);
	}
	rm_listing_add(call->journal, call->payload, call->room, size);
	plus->entry.generation = 0;
	listing->names += plus->entry.node != 0;
	listing->at += size;
	return ADDED;
}

/* The name alone, as READDIRPLUS gives it. */
static enum outcome add_bare(struct listing *listing, const struct found *found)
{
	struct direntplus *plus = (struct direntplus *)(listing->call->payload + listing->at);
	uint32_t length = (uint32_t)strlen(found->name), size = padded(sizeof *plus + length);

	if (listing->at + size > listing->limit)
		return FULL;
	plus->entry = (struct entry_out){ 0 };
	put_dirent(listing, &plus->dirent, found, length, found->ino, found->type);
	listing->at += size;
	return ADDED;
}

/* The names from the request's offset on. `share`: how many bytes of a reply a name takes at most, for each byte that
   getdents64(2) needs for it, so that what was read fits, and the next request need not read it again. */
static bool list(struct listing *listing, enum outcome (*add_name)(struct listing *, const struct found *), double share)
{
	struct call *call = listing->call;
	const struct list_in *in = call->in;
	struct stat st;

	listing->fd = handle_fd(call, in->fh);
	listing->end = in->offset;
	listing->limit = in->size < call->room ? in->size : (uint32_t)call->room;
	if (listing->fd < 0 || fstat(listing->fd, &st) || !is_plain(call, &st) ||
	    lseek(listing->fd, (off_t)in->offset, SEEK_SET) < 0)
		return false;
	listing->number = st.st_ino;
	for (;;) {
		uint32_t want = (uint32_t)((listing->limit - listing->at) / share);

		if (want < DIRENT_MOST && listing->at == 0)
			want = DIRENT_MOST;
		if (want > sizeof call->fast->dents)
			want = sizeof call->fast->dents;
		long got = syscall(SYS_getdents64, listing->fd, call->fast->dents, want);

		if (got < 0 && listing->at == 0)
			return false;
		if (got <= 0)
			return answer(call, listing->at);
		for (long at = 0; at < got;) {
			const struct found *found = (const struct found *)(call->fast->dents + at);
			enum outcome outcome = add_name(listing, found);

			if (outcome == REFUSED || outcome == FULL)
				return listing->at && answer(call, listing->at);
			at += found->length;
		}
		/* The end, most likely; the kernel asks once more to be sure. */
		if (listing->at && ((uint32_t)got + DIRENT_MOST < want || listing->limit - listing->at < WORTH_A_CALL))
			return answer(call, listing->at);
	}
}

bool rm_do_readdir(struct call *call)
{
	const struct list_in *in = call->in;
	struct listing listing = { .call = call };

	if (!list(&listing, add, 32. / 24))
		return false;
	if (!listing.at)
		rm_given_end(call->setup->given, call->node, in->offset);
	return true;
}

bool rm_do_readdirplus(struct call *call)
{
	const struct list_in *in = call->in;
	struct listing listing = { .call = call };
	bool bare = rm_given_whole(call->setup->given, call->node, lifetime(call));
	uint64_t now = rm_now();

	if (!list(&listing, bare ? add_bare : add_plus, 160. / 24))
		return false;
	if (!listing.at)
		rm_given_end(call->setup->given, call->node, in->offset);
	else if (!bare)
		rm_given_names(call->setup->given, call->node, in->offset, listing.end, listing.names, now);
	return true;
}
