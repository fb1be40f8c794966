/* What the files of fast*.c share: one request, the kernel's structs, the descriptors of nodes. Nobody else includes this.

   Each rm_do_* returns true if it has answered: journal->error and journal->size are set. Otherwise nothing has been
   changed, and the method of the same name in Python runs. */
#ifndef RINGMOUNT_FAST_CALL_H
#define RINGMOUNT_FAST_CALL_H
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fast.h"
#include "handles.h"
#include "system.h"

enum { NAME_MOST = 255, KEY_MOST = 1024, HANDLE_AT = 9, RECENT = 64 };
#define ROOT 1

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

struct open_in {
	uint32_t flags, open_flags;
};

struct release_in {              /* fuse_flush_in begins with fh as well */
	uint64_t fh;
	uint32_t flags, release_flags;
	uint64_t lock_owner;
};

struct open_out {
	uint64_t fh;
	uint32_t flags;
	int32_t backing_id;
};

struct slot {
	uint64_t node;
	int fd;
	bool held;               /* until the kernel forgets the node */
	uint32_t chain;          /* next slot of the same bucket, or of the free ones */
	uint32_t newer, older;
};

struct recent {
	uint64_t node, fh;
};

/* The setup; descriptors by node: a hash with chains, and a list in the order of use, without those that are held; and open
   files by node, the last ones. */
struct rm_fast {
	struct rm_fast_setup setup;
	uint32_t limit, count, held, mask;
	uint32_t newest, oldest, free;
	uint32_t *buckets;
	struct slot *slots;
	_Alignas(8) char dents[32 << 10]; /* names as getdents64(2) gives them */
	struct recent recent[RECENT];
};

struct call {
	struct rm_fast *fast;
	const struct rm_fast_setup *setup;
	struct rm_journal *journal;
	uint64_t node;
	uint32_t uid, gid;
	bool plain;              /* nothing is appended to the names */
	const void *in;
	uint8_t *payload;
	uint64_t room;
};

/* A descriptor of a node for the time of one request. */
struct borrowed {
	int fd;                  /* < 0: there is none */
	bool opened;             /* for this request: to be closed */
	bool path;               /* O_PATH */
};

struct proc_path {
	char text[32];
};

/* A path to the object at an O_PATH descriptor, for what such descriptors do not allow (proc(5)). */
static inline struct proc_path proc_path(int fd)
{
	struct proc_path path;

	snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
	return path;
}

static inline bool answer(struct call *call, uint32_t size)
{
	call->journal->error = 0;
	call->journal->size = size;
	return true;
}

static inline bool fail(struct call *call, int error)
{
	call->journal->error = -error;
	call->journal->size = 0;
	return true;
}

static inline void disown(const struct call *call, int fd)
{
	if ((uint32_t)fd < call->setup->fd_owners_size)
		call->setup->fd_owners[fd] = 0;
}

static inline void fill_attr(struct attr *attr, const struct stat *st)
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
static inline bool is_plain(const struct call *call, const struct stat *st)
{
	return st->st_dev == call->setup->device && !(st->st_rdev >> 32);
}

/* The attributes as the mount shows them: see inodenumbers.py for those of other devices. */
static inline void show(const struct call *call, struct attr *attr, const struct stat *st)
{
	fill_attr(attr, st);
	if (st->st_dev != call->setup->device)
		attr->ino ^= (st->st_dev + 1) * UINT64_C(0x9e3779b97f4a7c15) & UINT64_C(0xffffffff00000000);
}

/* Whether a change of the object would be heard of. With cache: coherent the others are Python's: see freshness.py. */
static inline bool is_watched(const struct call *call, const struct stat *st)
{
	return !call->setup->coherent || st->st_dev == call->setup->device;
}

/* As openflags.backing_flags: of the caller's flags of open(2), how the file beneath is opened. */
static inline int beneath(const struct call *call, uint32_t flags)
{
	uint32_t access = flags & O_ACCMODE;

	if (call->setup->writeback && access == O_WRONLY)
		access = O_RDWR;
	return (int)(access | (flags & O_NONBLOCK));
}

static inline int handle_fd(const struct call *call, uint64_t fh)
{
	struct rm_handle handle;

	return rm_handles_get(call->setup->handles, fh, &handle) ? -1 : handle.fd;
}

/* Ends a handle, of a file or a folder. */
static inline bool answer_release(struct call *call, uint64_t fh)
{
	int fd = rm_handles_remove(call->setup->handles, call->setup->worker, fh);

	if (fd < -1)
		return false;
	if (fd >= 0)
		close(fd);
	return answer(call, 0);
}

#pragma GCC visibility push(hidden)
void rm_keep(struct call *call, uint64_t node, int fd);
void rm_hold(struct call *call, uint64_t node, int fd);
int rm_open_node(const struct call *call, uint64_t node, int flags);
int rm_folder(struct call *call, uint64_t node);
struct borrowed rm_borrow(struct call *call, uint64_t node);
void rm_give_back(struct borrowed borrowed);

bool rm_become_owner(struct call *call, uint32_t mask);
void rm_become_self(struct call *call);

int64_t rm_take_node(const struct call *call, int fd, const struct rm_file_handle *handle, struct stat *st, uint64_t *intent);

int rm_opened(struct call *call, uint64_t node, uint32_t flags, int fd, uint64_t inode, struct open_out *out);

bool rm_do_lookup(struct call *call);
bool rm_do_create(struct call *call);
bool rm_do_mkdir(struct call *call);
bool rm_do_mknod(struct call *call);
bool rm_do_symlink(struct call *call);
bool rm_do_link(struct call *call);
bool rm_do_unlink(struct call *call);
bool rm_do_rmdir(struct call *call);
bool rm_do_rename(struct call *call);
bool rm_do_rename2(struct call *call);

bool rm_do_getattr(struct call *call);
bool rm_do_setattr(struct call *call);
bool rm_do_readlink(struct call *call);
bool rm_do_access(struct call *call);
bool rm_do_statfs(struct call *call);
bool rm_do_getxattr(struct call *call);
bool rm_do_listxattr(struct call *call);

bool rm_do_open(struct call *call);
bool rm_do_read(struct call *call);
bool rm_do_write(struct call *call);
bool rm_do_flush(struct call *call);
bool rm_do_release(struct call *call);
bool rm_do_opendir(struct call *call);
bool rm_do_readdir(struct call *call);
bool rm_do_readdirplus(struct call *call);
bool rm_do_releasedir(struct call *call);
#pragma GCC visibility pop
#endif
