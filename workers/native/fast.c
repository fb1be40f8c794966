#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fast.h"
#include "handles.h"
#include "nodes.h"
#include "system.h"

enum { OP_LOOKUP = 1, OP_GETATTR = 3, OP_OPEN = 14, OP_READ = 15, OP_WRITE = 16, OP_RELEASE = 18,
       OP_GETXATTR = 22, OP_FLUSH = 25 };
enum { GETATTR_FH = 1 << 0, WRITE_KILL_SUIDGID = 1 << 2, RELEASE_FLOCK_UNLOCK = 1 << 1 };
enum { NAME_MOST = 255, KEY_MOST = 1024, HANDLE_AT = 9, FMODE_EXEC = 0x20, LARGEFILE = 0x8000 };
#define NONE UINT32_MAX
#define ROOT 1
#define RWF_NOAPPEND_FLAG 0x20 /* Linux 6.9 */

/* The kernel's structs (include/uapi/linux/fuse.h). */
struct attr {
	uint64_t ino, size, blocks, atime, mtime, ctime;
	uint32_t atime_nsec, mtime_nsec, ctime_nsec, mode, nlink, uid, gid, rdev, blksize, flags;
};
_Static_assert(sizeof(struct attr) == 88, "fuse_attr");

struct attr_out {
	uint64_t valid;
	uint32_t valid_nsec, dummy;
	struct attr attr;
};
_Static_assert(sizeof(struct attr_out) == 104, "fuse_attr_out");

struct entry_out {
	uint64_t node, generation, entry_valid, attr_valid;
	uint32_t entry_valid_nsec, attr_valid_nsec;
	struct attr attr;
};
_Static_assert(sizeof(struct entry_out) == 128, "fuse_entry_out");

struct getattr_in {
	uint32_t flags, dummy;
	uint64_t fh;
};

struct open_in {
	uint32_t flags, open_flags;
};

struct open_out {
	uint64_t fh;
	uint32_t flags;
	int32_t backing_id;
};

struct release_in {              /* fuse_flush_in begins with fh as well */
	uint64_t fh;
	uint32_t flags, release_flags;
	uint64_t lock_owner;
};

struct io_in {                   /* fuse_read_in and fuse_write_in */
	uint64_t fh, offset;
	uint32_t size, io_flags;
	uint64_t lock_owner;
	uint32_t flags, padding;
};
_Static_assert(sizeof(struct io_in) == 40, "fuse_read_in, fuse_write_in");

struct write_out {
	uint32_t size, padding;
};

/* --- descriptors by node: a hash with chains, and a list in the order of use --------------------------------- */

struct slot {
	uint64_t node;
	int fd;
	uint32_t chain;          /* next slot of the same bucket, or of the free ones */
	uint32_t newer, older;
};

struct rm_fast {
	struct rm_fast_setup setup;
	uint32_t limit, count, mask;
	uint32_t newest, oldest, free;
	uint32_t *buckets;
	struct slot *slots;
};

static uint32_t bucket_of(const struct rm_fast *fast, uint64_t node)
{
	return (uint32_t)((node * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & fast->mask;
}

struct rm_fast *rm_fast_new(uint32_t limit)
{
	struct rm_fast *fast = calloc(1, sizeof *fast);
	uint32_t buckets = 16;

	if (!fast)
		return NULL;
	while (buckets < limit)
		buckets *= 2;
	fast->limit = limit;
	fast->mask = buckets - 1;
	fast->newest = fast->oldest = NONE;
	fast->buckets = malloc(buckets * sizeof *fast->buckets);
	fast->slots = calloc(limit, sizeof *fast->slots);
	if (!fast->buckets || !fast->slots) {
		rm_fast_free(fast);
		return NULL;
	}
	memset(fast->buckets, 0xff, buckets * sizeof *fast->buckets);
	for (uint32_t i = 0; i < limit; i++)
		fast->slots[i].chain = i + 1 < limit ? i + 1 : NONE;
	return fast;
}

void rm_fast_free(struct rm_fast *fast)
{
	free(fast->buckets);
	free(fast->slots);
	free(fast);
}

void rm_fast_set_up(struct rm_fast *fast, const struct rm_fast_setup *setup)
{
	fast->setup = *setup;
}

uint32_t rm_fast_count(const struct rm_fast *fast)
{
	return fast->count;
}

static void unlist(struct rm_fast *fast, uint32_t i)
{
	struct slot *slot = &fast->slots[i];

	if (slot->newer == NONE)
		fast->newest = slot->older;
	else
		fast->slots[slot->newer].older = slot->older;
	if (slot->older == NONE)
		fast->oldest = slot->newer;
	else
		fast->slots[slot->older].newer = slot->newer;
}

static void list_first(struct rm_fast *fast, uint32_t i)
{
	struct slot *slot = &fast->slots[i];

	slot->newer = NONE;
	slot->older = fast->newest;
	if (fast->newest == NONE)
		fast->oldest = i;
	else
		fast->slots[fast->newest].newer = i;
	fast->newest = i;
}

static uint32_t find(const struct rm_fast *fast, uint64_t node)
{
	uint32_t i = fast->buckets[bucket_of(fast, node)];

	while (i != NONE && fast->slots[i].node != node)
		i = fast->slots[i].chain;
	return i;
}

int rm_fast_get(struct rm_fast *fast, uint64_t node)
{
	uint32_t i = find(fast, node);

	if (i == NONE)
		return -1;
	if (i != fast->newest) {
		unlist(fast, i);
		list_first(fast, i);
	}
	return fast->slots[i].fd;
}

int rm_fast_drop(struct rm_fast *fast, uint64_t node)
{
	uint32_t *at = &fast->buckets[bucket_of(fast, node)];

	while (*at != NONE && fast->slots[*at].node != node)
		at = &fast->slots[*at].chain;
	if (*at == NONE)
		return -1;
	uint32_t i = *at;

	*at = fast->slots[i].chain;
	unlist(fast, i);
	fast->slots[i].chain = fast->free;
	fast->free = i;
	fast->count--;
	return fast->slots[i].fd;
}

int rm_fast_oldest(struct rm_fast *fast)
{
	return fast->oldest == NONE ? -1 : rm_fast_drop(fast, fast->slots[fast->oldest].node);
}

int rm_fast_put(struct rm_fast *fast, uint64_t node, int fd)
{
	int evicted = fast->free == NONE ? rm_fast_oldest(fast) : -1;
	uint32_t i = fast->free, *bucket = &fast->buckets[bucket_of(fast, node)];

	fast->free = fast->slots[i].chain;
	fast->slots[i].node = node;
	fast->slots[i].fd = fd;
	fast->slots[i].chain = *bucket;
	*bucket = i;
	list_first(fast, i);
	fast->count++;
	return evicted;
}

/* --- requests ------------------------------------------------------------------------------------------------

   Each returns true if it has answered: journal->error and journal->size are set. Otherwise nothing has been changed, and the
   method of the same name in Python runs. */

struct call {
	struct rm_fast *fast;
	const struct rm_fast_setup *setup;
	struct rm_journal *journal;
	uint64_t node;
	const void *in;
	uint8_t *payload;
	uint64_t room;
};

static bool answer(struct call *call, uint32_t size)
{
	call->journal->error = 0;
	call->journal->size = size;
	return true;
}

static bool fail(struct call *call, int error)
{
	call->journal->error = -error;
	call->journal->size = 0;
	return true;
}

static void disown(const struct call *call, int fd)
{
	if ((uint32_t)fd < call->setup->fd_owners_size)
		call->setup->fd_owners[fd] = 0;
}

/* Keeps a node's descriptor as Descriptors.keep does. */
static void keep(struct call *call, uint64_t node, int fd)
{
	if (rm_fast_get(call->fast, node) >= 0 || rm_nodes_watch(call->setup->nodes, node, call->setup->worker)) {
		close(fd);
		return;
	}
	if ((uint32_t)fd < call->setup->fd_owners_size)
		call->setup->fd_owners[fd] = (uint16_t)(call->setup->worker + 1);
	int evicted = rm_fast_put(call->fast, node, fd);

	if (evicted >= 0) {
		disown(call, evicted);
		close(evicted);
	}
}

/* The node's object, opened by its file handle. */
static int open_node(const struct call *call, int flags)
{
	char key[KEY_MOST];
	int length = rm_nodes_key(call->setup->nodes, call->node, key, sizeof key);

	if (length <= HANDLE_AT || key[0] != 'h')
		return -ESTALE;
	return rm_open_by_handle(call->setup->top, key + HANDLE_AT, length - HANDLE_AT, flags | O_CLOEXEC);
}

static void fill(struct attr *attr, const struct stat *st)
{
	*attr = (struct attr){
		.ino = st->st_ino, .size = (uint64_t)st->st_size, .blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec, .atime_nsec = (uint32_t)st->st_atim.tv_nsec,
		.mtime = (uint64_t)st->st_mtim.tv_sec, .mtime_nsec = (uint32_t)st->st_mtim.tv_nsec,
		.ctime = (uint64_t)st->st_ctim.tv_sec, .ctime_nsec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode, .nlink = (uint32_t)st->st_nlink, .uid = st->st_uid, .gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev, .blksize = (uint32_t)st->st_blksize,
	};
}

/* Other devices have other inode numbers on the mount, which Python makes. */
static bool is_plain(const struct call *call, const struct stat *st)
{
	return st->st_dev == call->setup->device && !(st->st_rdev >> 32);
}

static int handle_fd(const struct call *call, uint64_t fh)
{
	struct rm_handle handle;

	return rm_handles_get(call->setup->handles, fh, &handle) ? -1 : handle.fd;
}

static bool do_getattr(struct call *call)
{
	const struct getattr_in *in = call->in;
	struct attr_out *out = (struct attr_out *)call->payload;
	int fd = in->flags & GETATTR_FH ? handle_fd(call, in->fh) : rm_fast_get(call->fast, call->node);
	struct stat st;

	if (fd < 0) {
		if (in->flags & GETATTR_FH || call->node == ROOT)
			return false;
		fd = open_node(call, O_PATH | O_NOFOLLOW);
		if (fd < 0)
			return false;
		keep(call, call->node, fd);
		fd = rm_fast_get(call->fast, call->node);
	}
	if (fd < 0 || fstat(fd, &st) || !is_plain(call, &st))
		return false;
	*out = (struct attr_out){ .valid = call->setup->attr_valid, .valid_nsec = call->setup->attr_valid_nsec };
	fill(&out->attr, &st);
	return answer(call, sizeof *out);
}

static bool do_lookup(struct call *call)
{
	const char *name = (const char *)call->payload;
	size_t length = strnlen(name, call->journal->payload_size);
	int folder = call->node == ROOT ? call->setup->root : rm_fast_get(call->fast, call->node);
	struct rm_file_handle handle;
	struct stat st;
	char key[HANDLE_AT + sizeof handle.bytes];

	if (folder < 0 || length == 0 || length > NAME_MOST || length + 1 != call->journal->payload_size ||
	    memchr(name, '/', length) || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	int fd = rm_lookup(folder, name, &handle);

	if (fd == -ENOENT && !call->setup->remembers_missing)
		return fail(call, ENOENT);
	if (fd < 0)
		return false;
	if (handle.size <= 0 || handle.mount != call->setup->mount || fstat(fd, &st) || !is_plain(call, &st)) {
		close(fd);
		return false;
	}
	key[0] = 'h';
	memcpy(key + 1, &call->setup->device, sizeof call->setup->device);
	memcpy(key + HANDLE_AT, handle.bytes, (size_t)handle.size);
	int64_t node = rm_nodes_take(call->setup->nodes, key, HANDLE_AT + handle.size, "", 0, call->journal->intent);

	if (node < 0) {
		close(fd);
		return false;
	}
	if (S_ISDIR(st.st_mode))
		keep(call, (uint64_t)node, fd);
	else
		close(fd);
	struct entry_out *out = (struct entry_out *)call->payload;

	*out = (struct entry_out){
		.node = (uint64_t)node, .entry_valid = call->setup->entry_valid, .attr_valid = call->setup->attr_valid,
		.entry_valid_nsec = call->setup->entry_valid_nsec, .attr_valid_nsec = call->setup->attr_valid_nsec,
	};
	fill(&out->attr, &st);
	return answer(call, sizeof *out);
}

/* Plain opens; what truncates, appends, syncs or goes past the page cache is Python's. */
static bool do_open(struct call *call)
{
	const struct open_in *in = call->in;
	struct open_out *out = (struct open_out *)call->payload;
	uint32_t plain = O_ACCMODE | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | LARGEFILE | FMODE_EXEC;

	if (in->flags & ~plain)
		return false;
	int fd = open_node(call, (int)(in->flags & (O_ACCMODE | O_NONBLOCK)) | call->setup->no_trace);

	if (fd < 0)
		return false;
	if (fd >= call->setup->fd_limit) {
		close(fd);
		return false;
	}
	int64_t fh = rm_handles_add(call->setup->handles, call->setup->worker, call->node, in->flags, fd);

	if (fh < 0) {
		close(fd);
		return false;
	}
	uint32_t flags = call->setup->open_reply;

	if ((in->flags & O_ACCMODE) == O_RDONLY)
		flags |= call->setup->read_only_reply;
	*out = (struct open_out){ .fh = (uint64_t)fh, .flags = flags };
	return answer(call, sizeof *out);
}

static bool do_release(struct call *call)
{
	const struct release_in *in = call->in;

	if (in->release_flags & RELEASE_FLOCK_UNLOCK)
		return false;
	int fd = rm_handles_remove(call->setup->handles, call->setup->worker, in->fh);

	if (fd < 0)
		return false;
	close(fd);
	return answer(call, 0);
}

/* Closing any descriptor of the file makes the filesystem beneath report what it has kept back. */
static bool do_flush(struct call *call)
{
	const struct release_in *in = call->in;
	int fd = handle_fd(call, in->fh), copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		return false;
	return close(copy) ? fail(call, errno) : answer(call, 0);
}

/* Asked before the first write after each refresh of a file's attributes (cap_inode_need_killpriv); hardly a file has it. */
static bool do_getxattr(struct call *call)
{
	static const char capability[] = "security.capability";
	char path[32], value[64];
	int fd = rm_fast_get(call->fast, call->node);

	if (call->journal->payload_size != sizeof capability || memcmp(call->payload, capability, sizeof capability))
		return false;
	bool opened = fd < 0;

	if (opened && (call->node == ROOT || (fd = open_node(call, O_PATH | O_NOFOLLOW)) < 0))
		return false;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	bool missing = getxattr(path, capability, value, sizeof value) < 0 && errno == ENODATA;

	if (opened)
		close(fd);
	return missing && fail(call, ENODATA);
}

/* What is in the page cache is read at once; the rest, and every error, is Python's. */
static bool do_read(struct call *call)
{
	const struct io_in *in = call->in;
	uint32_t done = 0;
	ssize_t got;
	int fd = handle_fd(call, in->fh);

	if (fd < 0 || in->size > call->room || in->offset >> 63)
		return false;
	do {
		struct iovec iov = { call->payload + done, in->size - done };

		got = preadv2(fd, &iov, 1, (off_t)(in->offset + done), call->setup->read_flags);
		if (got < 0)
			return false;
		done += (uint32_t)got;
	} while (got && done < in->size);
	return answer(call, done);
}

static bool do_write(struct call *call)
{
	const struct io_in *in = call->in;
	int fd = handle_fd(call, in->fh);
	int how = in->flags & O_APPEND ? RWF_APPEND : call->setup->knows_noappend ? RWF_NOAPPEND_FLAG : 0;
	struct iovec iov = { call->payload, in->size };
	struct stat st;

	if (fd < 0 || in->size > call->journal->payload_size || in->offset >> 63)
		return false;
	if (in->io_flags & WRITE_KILL_SUIDGID && (fstat(fd, &st) || st.st_mode & (S_ISUID | S_ISGID)))
		return false;
	ssize_t put = pwritev2(fd, &iov, 1, (off_t)in->offset, how);

	if (put < 0)
		return false;
	*(struct write_out *)call->payload = (struct write_out){ (uint32_t)put, 0 };
	return answer(call, sizeof(struct write_out));
}

bool rm_fast_serve(struct rm_fast *fast, const struct rm_arena *arena, uint32_t index)
{
	uint8_t *page = rm_entry_page(arena, index);
	struct rm_journal *journal = &arena->journal[index];
	struct call call = { .fast = fast, .setup = &fast->setup, .journal = journal, .in = page + 128,
			     .payload = page + RM_ENTRY_PAGE, .room = arena->payload };
	uint32_t opcode, ids[2];         /* uid, gid */
	bool answered = false;

	memcpy(&opcode, journal->header + 4, sizeof opcode);
	memcpy(&call.node, journal->header + 16, sizeof call.node);
	memcpy(ids, journal->header + 24, sizeof ids);
	if (opcode >= 64 || !(fast->setup.opcodes >> opcode & 1) || (fast->setup.root_only && (ids[0] || ids[1])))
		return false;
	__atomic_store_n(&journal->state, RM_STARTED, __ATOMIC_RELEASE);
	switch (opcode) {
	case OP_LOOKUP:
		answered = do_lookup(&call);
		break;
	case OP_GETATTR:
		answered = do_getattr(&call);
		break;
	case OP_OPEN:
		answered = do_open(&call);
		break;
	case OP_READ:
		answered = do_read(&call);
		break;
	case OP_WRITE:
		answered = do_write(&call);
		break;
	case OP_RELEASE:
		answered = do_release(&call);
		break;
	case OP_GETXATTR:
		answered = do_getxattr(&call);
		break;
	case OP_FLUSH:
		answered = do_flush(&call);
		break;
	}
	__atomic_store_n(&journal->state, answered ? RM_ANSWERED : RM_DELIVERED, __ATOMIC_RELEASE);
	return answered;
}
