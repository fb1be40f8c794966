/* Names: looked up, made, removed, renamed, linked. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "fast_call.h"
#include "given.h"
#include "nodes.h"

enum { LARGEFILE = 0x8000, UNUSUAL = 1 };

struct create_in {
	uint32_t flags, mode, umask, open_flags;
};

struct mknod_in {
	uint32_t mode, rdev, umask, padding;
};

struct mkdir_in {
	uint32_t mode, umask;
};

struct rename_in {               /* fuse_rename2_in begins with it */
	uint64_t folder;
	uint32_t flags, padding;
};

struct link_in {
	uint64_t node;
};

/* The name at *at of the payload, which is then moved behind it; NULL for one that needs a closer look. */
static const char *take_name(const struct call *call, size_t *at)
{
	const char *name = (const char *)call->payload + *at;
	size_t left = call->journal->payload_size - *at, length = strnlen(name, left);

	if (length == 0 || length > NAME_MOST || length == left || memchr(name, '/', length) || !strcmp(name, ".") ||
	    !strcmp(name, ".."))
		return NULL;
	*at += length + 1;
	return name;
}

/* The only name that the payload has. */
static const char *the_name(const struct call *call)
{
	size_t at = 0;
	const char *name = call->plain ? take_name(call, &at) : NULL;

	return at == call->journal->payload_size ? name : NULL;
}

/* `made`: by this request; see answer_attr. */
static void write_entry(struct call *call, uint64_t node, const struct stat *st, bool made)
{
	struct entry_out *out = (struct entry_out *)call->payload;

	*out = (struct entry_out){
		.node = node, .entry_valid = call->setup->entry_valid, .attr_valid = call->setup->attr_valid,
		.entry_valid_nsec = call->setup->entry_valid_nsec, .attr_valid_nsec = call->setup->attr_valid_nsec,
	};
	if (made && call->setup->coherent)
		out->attr_valid = out->attr_valid_nsec = 0;
	if (!is_watched(call, st))
		out->entry_valid = out->entry_valid_nsec = 0;
	show(call, &out->attr, st);
}

/* A node's key (identity.py): its length, or -1 for an object that is not opened by its handle. */
static int key_of(const struct call *call, const struct rm_file_handle *handle, const struct stat *st, char key[KEY_MOST])
{
	uint64_t device = st->st_dev;

	if (handle->size <= 0 || handle->mount != call->setup->mount)
		return -1;
	key[0] = 'h';
	memcpy(key + 1, &device, sizeof device);
	memcpy(key + HANDLE_AT, handle->bytes, (size_t)handle->size);
	return HANDLE_AT + handle->size;
}

/* The node of what `fd` is open on, with a reference under `intent`, and its attributes of a time at which the table had it.
   `st`: what they are before. < 0: an error, or -UNUSUAL. */
int64_t rm_take_node(const struct call *call, int fd, const struct rm_file_handle *handle, struct stat *st, uint64_t *intent)
{
	char key[KEY_MOST];
	int length = key_of(call, handle, st, key);
	int64_t node = length < 0 ? -UNUSUAL : rm_nodes_take(call->setup->nodes, key, length, "", 0, intent);

	if (node >= 0 && call->setup->coherent)
		fstat(fd, st);
	return node;
}

/* The same for the answer itself. What this request has `made` is not UNUSUAL without need. */
static int64_t take_node(struct call *call, int fd, const struct rm_file_handle *handle, struct stat *st, bool made)
{
	if (fstat(fd, st))
		return -errno;
	if (st->st_rdev >> 32 || (!made && !is_watched(call, st)))
		return -UNUSUAL;
	return rm_take_node(call, fd, handle, st, call->journal->intent);
}

/* Answers what `name` is. A folder's descriptor is kept, because names in it will be asked for next. */
static int enter(struct call *call, int folder, const char *name, bool made)
{
	struct rm_file_handle handle;
	struct stat st;
	int fd = rm_lookup(folder, name, &handle);

	if (fd < 0)
		return fd;
	int64_t node = take_node(call, fd, &handle, &st, made);

	if (node >= 0 && S_ISDIR(st.st_mode))
		rm_keep(call, (uint64_t)node, fd);
	else
		close(fd);
	if (node < 0)
		return (int)node;
	write_entry(call, (uint64_t)node, &st, made);
	return 0;
}

/* The answer about a name that was just made: whatever it is now, it is not made once more. */
static bool answer_made(struct call *call, int folder, const char *name)
{
	int error = enter(call, folder, name, true);

	if (error)
		return fail(call, error == -UNUSUAL ? ESTALE : -error);
	return answer(call, sizeof(struct entry_out));
}

/* Whether the caller may search the folder, as far as that can be told without acting as the caller: the owner's bits count
   for the owner, and what all classes may, everybody may, unless there is a list (acl(5)). */
static bool may_search(const struct call *call, int folder)
{
	struct stat st;

	if (!call->setup->checks || (call->uid == 0 && call->gid == 0))
		return true;
	if (fstat(folder, &st))
		return false;
	if (call->uid == st.st_uid)
		return st.st_mode & S_IXUSR;
	if ((st.st_mode & 0111) != 0111)
		return false;
	return getxattr(proc_path(folder).text, "system.posix_acl_access", NULL, 0) < 0 && (errno == ENODATA || errno == EOPNOTSUPP);
}

bool rm_do_lookup(struct call *call)
{
	const char *name = the_name(call);
	int folder = name ? rm_folder(call, call->node) : -1;
	struct stat st;

	if (folder < 0 || !may_search(call, folder))
		return false;
	int error = enter(call, folder, name, false);

	if (error == -ENOENT && call->setup->coherent && (fstat(folder, &st) || !is_watched(call, &st)))
		return false;
	if (error == -ENOENT && (call->setup->missing_valid || call->setup->missing_valid_nsec)) {
		*(struct entry_out *)call->payload = (struct entry_out){
			.entry_valid = call->setup->missing_valid,
			.entry_valid_nsec = call->setup->missing_valid_nsec,
		};
		return answer(call, sizeof(struct entry_out));
	}
	if (error == -ENOENT)
		return fail(call, ENOENT);
	if (error)
		return false;
	rm_given_lookup(call->setup->given, call->node);
	return answer(call, sizeof(struct entry_out));
}

/* --- making ------------------------------------------------------------------------------------------------------

   What is noted for a second run, after a death in the middle, is what again.py would note. */

static void will_make(struct call *call)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	rm_begin(call->journal, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec, 0);
}

/* Whether the system call of a change succeeded; if it did, it must be answered. */
static bool was_made(struct call *call, bool made)
{
	if (made)
		rm_made(call->journal, 0);
	else
		rm_not_made(call->journal);
	return made;
}

/* Plain opens, as in fast_data.c. A name that is taken is Python's: see there. */
bool rm_do_create(struct call *call)
{
	const struct create_in in = *(const struct create_in *)call->in;
	uint32_t plain = O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | LARGEFILE;
	const char *name = the_name(call);
	int folder = name && !(in.flags & ~plain) ? rm_folder(call, call->node) : -1;
	struct rm_file_handle handle;
	struct open_out opened;
	struct stat st;
	uint64_t watchers;

	if (folder < 0 || !rm_become_owner(call, in.umask))
		return false;
	will_make(call);
	int fd = openat(folder, name, beneath(call, in.flags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, in.mode);

	rm_become_self(call);
	if (!was_made(call, fd >= 0))
		return false;
	int error = -rm_file_handle(fd, &handle);
	int64_t node = error ? -error : take_node(call, fd, &handle, &st, true);

	if (node < 0) {
		close(fd);
		return fail(call, node == -UNUSUAL ? ESTALE : (int)-node);
	}
	error = rm_opened(call, (uint64_t)node, in.flags, fd, st.st_ino, &opened);
	if (error) {
		close(fd);
		rm_nodes_settle(call->setup->nodes, call->journal->intent, &watchers);
		return fail(call, error);
	}
	write_entry(call, (uint64_t)node, &st, true);
	memcpy(call->payload + sizeof(struct entry_out), &opened, sizeof opened);
	return answer(call, sizeof(struct entry_out) + sizeof opened);
}

bool rm_do_mkdir(struct call *call)
{
	const struct mkdir_in *in = call->in;
	const char *name = the_name(call);
	int folder = name ? rm_folder(call, call->node) : -1;

	if (folder < 0 || !rm_become_owner(call, in->umask))
		return false;
	will_make(call);
	int failed = mkdirat(folder, name, in->mode);

	rm_become_self(call);
	return was_made(call, !failed) && answer_made(call, folder, name);
}

bool rm_do_mknod(struct call *call)
{
	const struct mknod_in *in = call->in;
	const char *name = the_name(call);
	int folder = name ? rm_folder(call, call->node) : -1;

	if (folder < 0 || !rm_become_owner(call, in->umask))
		return false;
	will_make(call);
	int failed = mknodat(folder, name, in->mode, in->rdev);

	rm_become_self(call);
	return was_made(call, !failed) && answer_made(call, folder, name);
}

bool rm_do_symlink(struct call *call)
{
	size_t at = 0;
	const char *name = call->plain ? take_name(call, &at) : NULL;
	const char *target = (const char *)call->payload + at;
	size_t left = call->journal->payload_size - at;
	int folder = name && strnlen(target, left) + 1 == left ? rm_folder(call, call->node) : -1;

	if (folder < 0 || !rm_become_owner(call, 0))
		return false;
	will_make(call);
	int failed = symlinkat(target, folder, name);

	rm_become_self(call);
	return was_made(call, !failed) && answer_made(call, folder, name);
}

bool rm_do_link(struct call *call)
{
	uint64_t node = ((const struct link_in *)call->in)->node;
	const char *name = the_name(call);
	int folder = name ? rm_folder(call, call->node) : -1;
	struct borrowed target = { .fd = -1 };

	if (folder < 0 || (target = rm_borrow(call, node)).fd < 0)
		return false;
	rm_begin(call->journal, 0, 0);
	int failed = linkat(target.fd, "", folder, name, AT_EMPTY_PATH);

	rm_give_back(target);
	return was_made(call, !failed) && answer_made(call, folder, name);
}

/* --- removing and renaming ----------------------------------------------------------------------------------------- */

/* What was removed stays reachable as objects.py says: nothing is to be done for a link, or for a file unless it is open and
   this is its last name (Handles.losing_name). *number: its inode's, 0 if the name is free. */
static bool leaves_nothing(const struct call *call, int folder, const char *name, uint64_t *number)
{
	void *handles = call->setup->handles;
	struct stat st;

	*number = 0;
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT;
	*number = st.st_ino;
	if (S_ISREG(st.st_mode) && st.st_nlink == 1 && rm_handles_is_lasting(handles))
		return !rm_handles_may_be_open(handles, st.st_ino);
	return S_ISREG(st.st_mode) || S_ISLNK(st.st_mode);
}

bool rm_do_unlink(struct call *call)
{
	const char *name = the_name(call);
	int folder = name ? rm_folder(call, call->node) : -1;
	uint64_t number;

	if (folder < 0 || !leaves_nothing(call, folder, name, &number))
		return false;
	rm_begin(call->journal, number, 0);
	return was_made(call, !unlinkat(folder, name, 0)) && answer(call, 0);
}

/* The node that `name` is, if the kernel refers to it, and a descriptor of it. */
static uint64_t live(struct call *call, int folder, const char *name, int *fd, struct stat *st)
{
	struct rm_file_handle handle;
	char key[KEY_MOST];

	*fd = rm_lookup(folder, name, &handle);
	if (*fd < 0)
		return 0;
	int length = fstat(*fd, st) ? -1 : key_of(call, &handle, st, key);
	int64_t node = length < 0 ? 0 : rm_nodes_find(call->setup->nodes, key, length);

	if (node <= 0) {
		close(*fd);
		return 0;
	}
	return (uint64_t)node;
}

bool rm_do_rmdir(struct call *call)
{
	const char *name = the_name(call);
	int fd = -1, folder = name ? rm_folder(call, call->node) : -1;
	struct stat st;

	if (folder < 0 || call->fast->held >= call->fast->limit / 2)
		return false;
	uint64_t node = live(call, folder, name, &fd, &st);

	if (!node)
		return false;
	rm_begin(call->journal, st.st_ino, 0);
	if (!was_made(call, !unlinkat(folder, name, AT_REMOVEDIR))) {
		close(fd);
		return false;
	}
	rm_hold(call, node, fd);
	return answer(call, 0);
}

static bool rename_plainly(struct call *call, uint64_t new_parent, uint32_t flags)
{
	size_t at = 0;
	const char *name = take_name(call, &at), *new_name = name ? take_name(call, &at) : NULL;
	bool plain = new_name && at == call->journal->payload_size && !(flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE));
	int folder = plain ? rm_folder(call, call->node) : -1;
	int new_folder = folder < 0 ? -1 : rm_folder(call, new_parent);

	uint64_t old, new;

	if (new_folder < 0 || (!leaves_nothing(call, new_folder, new_name, &new) && !flags))
		return false;
	leaves_nothing(call, folder, name, &old);
	rm_begin(call->journal, old, new);
	return was_made(call, !renameat2(folder, name, new_folder, new_name, flags)) && answer(call, 0);
}

bool rm_do_rename(struct call *call)
{
	return rename_plainly(call, ((const struct rename_in *)call->in)->folder, 0);
}

bool rm_do_rename2(struct call *call)
{
	const struct rename_in *in = call->in;

	return rename_plainly(call, in->folder, in->flags);
}
