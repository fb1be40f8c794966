/* Attributes, extended attributes, and what else is asked about an object. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "fast_call.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452 /* Linux 6.6; the number is the same on all architectures */
#endif

enum { GETATTR_FH = 1 << 0, SECOND = 1000000000 };
enum { SET_MODE = 1 << 0, SET_UID = 1 << 1, SET_GID = 1 << 2, SET_SIZE = 1 << 3, SET_ATIME = 1 << 4, SET_MTIME = 1 << 5,
       SET_FH = 1 << 6, SET_ATIME_NOW = 1 << 7, SET_MTIME_NOW = 1 << 8, SET_LOCKOWNER = 1 << 9, SET_CTIME = 1 << 10, SET_KILL = 1 << 11 };
enum { SET_OWNER = SET_UID | SET_GID, SET_TIMES = SET_ATIME | SET_MTIME,
       SET_ANY = SET_MODE | SET_OWNER | SET_SIZE | SET_TIMES,
       SET_KNOWN = SET_ANY | SET_FH | SET_ATIME_NOW | SET_MTIME_NOW | SET_LOCKOWNER | SET_CTIME | SET_KILL };

struct getattr_in {
	uint32_t flags, dummy;
	uint64_t fh;
};

struct setattr_in {
	uint32_t valid, padding;
	uint64_t fh, size, lock_owner;
	int64_t atime, mtime, ctime;
	uint32_t atime_nsec, mtime_nsec, ctime_nsec, mode, unused4, uid, gid, unused5;
};
_Static_assert(sizeof(struct setattr_in) == 88, "fuse_setattr_in");

struct statfs_out {
	uint64_t blocks, bfree, bavail, files, ffree;
	uint32_t bsize, namelen, frsize, padding, spare[6];
};
_Static_assert(sizeof(struct statfs_out) == 80, "fuse_statfs_out");

struct xattr_in {                /* and the reply about a size */
	uint32_t size, padding;
};

/* `changed`: by this request. The kernel takes them as they are then, even if they are outdated by now. */
static bool answer_attr(struct call *call, const struct stat *st, bool changed)
{
	struct attr_out *out = (struct attr_out *)call->payload;

	*out = (struct attr_out){ .valid = call->setup->attr_valid, .valid_nsec = call->setup->attr_valid_nsec };
	if (changed && call->setup->coherent)
		out->valid = out->valid_nsec = 0;
	show(call, &out->attr, st);
	return answer(call, sizeof *out);
}

bool rm_do_getattr(struct call *call)
{
	const struct getattr_in *in = call->in;
	int fd = in->flags & GETATTR_FH ? handle_fd(call, in->fh) :
		 call->node == ROOT ? call->setup->root : rm_fast_get(call->fast, call->node);
	struct stat st;

	if (fd < 0) {
		if (in->flags & GETATTR_FH)
			return false;
		fd = rm_open_node(call, call->node, O_PATH | O_NOFOLLOW);
		if (fd < 0)
			return false;
		rm_keep(call, call->node, fd);
		fd = rm_fast_get(call->fast, call->node);
	}
	if (fd < 0 || fstat(fd, &st) || st.st_rdev >> 32 || !is_watched(call, &st))
		return false;
	return answer_attr(call, &st, false);
}

/* --- setattr --------------------------------------------------------------------------------------------------- */

static int change_mode(struct borrowed node, mode_t mode)
{
	if (!node.path)
		return fchmod(node.fd, mode);
	int failed = (int)syscall(SYS_fchmodat2, node.fd, "", mode, AT_EMPTY_PATH);

	return failed && errno == ENOSYS ? chmod(proc_path(node.fd).text, mode) : failed;
}

static int change_size(struct call *call, const struct setattr_in *in, struct borrowed node)
{
	if (in->valid & SET_FH)
		return ftruncate(handle_fd(call, in->fh), (off_t)in->size);
	return truncate(proc_path(node.fd).text, (off_t)in->size);
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, int64_t seconds, uint32_t nanoseconds)
{
	return (struct timespec){ seconds, valid & now ? UTIME_NOW : valid & set ? nanoseconds : UTIME_OMIT };
}

static int change_times(const struct setattr_in *in, struct borrowed node)
{
	struct timespec times[2] = {
		time_of(in->valid, SET_ATIME, SET_ATIME_NOW, in->atime, in->atime_nsec),
		time_of(in->valid, SET_MTIME, SET_MTIME_NOW, in->mtime, in->mtime_nsec),
	};

	return utimensat(node.fd, "", times, AT_EMPTY_PATH);
}

/* In the order of Attributes.setattr. Returns 0, or the errno of the change that failed; *changed: some came before it. */
static int change(struct call *call, const struct setattr_in *in, struct borrowed node, bool owner, bool *changed)
{
	uint32_t valid = in->valid;
	uid_t uid = valid & SET_UID ? in->uid : (uid_t)-1;
	gid_t gid = valid & SET_GID ? in->gid : (gid_t)-1;

	*changed = false;
	if (owner && fchownat(node.fd, "", uid, gid, AT_EMPTY_PATH))
		return errno;
	*changed |= owner;
	if (valid & SET_MODE && change_mode(node, in->mode & 07777))
		return errno;
	*changed |= valid & SET_MODE;
	if (valid & SET_SIZE && change_size(call, in, node))
		return errno;
	*changed |= valid & SET_SIZE;
	return valid & SET_TIMES && change_times(in, node) ? errno : 0;
}

static bool set_attributes(struct call *call, const struct setattr_in *in, struct borrowed node)
{
	bool owner = in->valid & SET_OWNER || !(in->valid & SET_ANY), changed; /* see attributes.py: chown */
	bool kills = owner || (in->valid & SET_SIZE && in->valid & SET_KILL);
	struct stat st;

	if (kills && (fstat(node.fd, &st) || st.st_mode & (S_ISUID | S_ISGID)))
		return false;    /* credentials.py, privilege_free: which of them stay */
	int error = change(call, in, node, owner, &changed);

	if (!error && !fstat(node.fd, &st))
		return answer_attr(call, &st, true);
	return changed ? fail(call, error ? error : errno) : false;
}

bool rm_do_setattr(struct call *call)
{
	const struct setattr_in in = *(const struct setattr_in *)call->in;

	if (in.valid & ~SET_KNOWN || in.atime_nsec >= SECOND || in.mtime_nsec >= SECOND || in.size >> 63)
		return false;
	struct borrowed node = rm_borrow(call, call->node);
	bool answered = node.fd >= 0 && set_attributes(call, &in, node);

	rm_give_back(node);
	return answered;
}

/* --- what is asked ----------------------------------------------------------------------------------------------- */

bool rm_do_readlink(struct call *call)
{
	struct borrowed node = rm_borrow(call, call->node);
	ssize_t length = node.fd < 0 ? -1 : readlinkat(node.fd, "", (char *)call->payload, call->room);

	rm_give_back(node);
	return length >= 0 && (uint64_t)length < call->room && answer(call, (uint32_t)length);
}

bool rm_do_access(struct call *call)
{
	struct borrowed node = rm_borrow(call, call->node);
	int error = node.fd < 0 ? -ESTALE : rm_access(node.fd, *(const int *)call->in);

	rm_give_back(node);
	return error == -EACCES ? fail(call, EACCES) : !error && answer(call, 0);
}

bool rm_do_statfs(struct call *call)
{
	struct borrowed node = rm_borrow(call, call->node);
	struct statvfs found;
	bool failed = node.fd < 0 || fstatvfs(node.fd, &found);

	rm_give_back(node);
	if (failed)
		return false;
	*(struct statfs_out *)call->payload = (struct statfs_out){
		.blocks = found.f_blocks, .bfree = found.f_bfree, .bavail = found.f_bavail, .files = found.f_files,
		.ffree = found.f_ffree, .bsize = (uint32_t)found.f_bsize, .namelen = (uint32_t)found.f_namemax,
		.frsize = (uint32_t)found.f_frsize,
	};
	return answer(call, sizeof(struct statfs_out));
}

/* --- extended attributes ------------------------------------------------------------------------------------------- */

/* The size alone if the caller asked with 0 (getxattr(2)). */
static bool answer_sized(struct call *call, uint32_t asked, ssize_t size)
{
	if (asked)
		return size > asked ? fail(call, ERANGE) : answer(call, (uint32_t)size);
	*(struct xattr_in *)call->payload = (struct xattr_in){ .size = (uint32_t)size };
	return answer(call, sizeof(struct xattr_in));
}

/* The commonest: security.capability, asked before a file's owner changes, and the access control lists. Hardly a file has them. */
bool rm_do_getxattr(struct call *call)
{
	uint32_t asked = ((const struct xattr_in *)call->in)->size;
	const char *name = (const char *)call->payload;
	uint32_t length = call->journal->payload_size;

	if (length < 2 || strnlen(name, length) + 1 != length || asked > call->room)
		return false;
	struct borrowed node = rm_borrow(call, call->node);

	if (node.fd < 0)
		return false;
	/* The name lies where the value goes: the kernel takes it first, and writes nothing if it fails. */
	ssize_t size = node.path ? getxattr(proc_path(node.fd).text, name, call->payload, asked) :
				   fgetxattr(node.fd, name, call->payload, asked);
	int error = errno;

	rm_give_back(node);
	if (size < 0)
		return error == ENODATA && fail(call, ENODATA);
	return answer_sized(call, asked, size);
}

/* Takes out what only root may see: see Attributes.listxattr. */
static ssize_t without_trusted(char *names, ssize_t size)
{
	static const char trusted[] = "trusted.";
	ssize_t kept = 0;

	for (ssize_t at = 0, length; at < size; at += length) {
		length = (ssize_t)strlen(names + at) + 1;
		if (!strncmp(names + at, trusted, sizeof trusted - 1))
			continue;
		memmove(names + kept, names + at, (size_t)length);
		kept += length;
	}
	return kept;
}

bool rm_do_listxattr(struct call *call)
{
	uint32_t asked = ((const struct xattr_in *)call->in)->size;
	struct borrowed node = rm_borrow(call, call->node);
	char *names = (char *)call->payload;

	if (node.fd < 0)
		return false;
	ssize_t size = node.path ? listxattr(proc_path(node.fd).text, names, call->room) :
				   flistxattr(node.fd, names, call->room);

	rm_give_back(node);
	if (size < 0)
		return false;
	return answer_sized(call, asked, call->uid ? without_trusted(names, size) : size);
}
