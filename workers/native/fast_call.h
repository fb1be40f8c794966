/* What the files of fast*.c share: one request, the kernel's structs, the descriptors of nodes. Nobody else includes this.

   Each rm_do_* returns true if it has answered: journal->error and journal->size are set. Otherwise nothing has been
   changed, and the method of the same name in Python runs. */
#ifndef RINGMOUNT_FAST_CALL_H
#define RINGMOUNT_FAST_CALL_H
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fast.h"
#include "handles.h"

enum { NAME_MOST = 255, KEY_MOST = 1024, HANDLE_AT = 9 };
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

struct open_out {
	uint64_t fh;
	uint32_t flags;
	int32_t backing_id;
};

struct slot {
	uint64_t node;
	int fd;
	uint32_t chain;          /* next slot of the same bucket, or of the free ones */
	uint32_t newer, older;
};

/* The setup, and descriptors by node: a hash with chains, and a list in the order of use. */
struct rm_fast {
	struct rm_fast_setup setup;
	uint32_t limit, count, mask;
	uint32_t newest, oldest, free;
	uint32_t *buckets;
	struct slot *slots;
	_Alignas(8) char dents[32 << 10]; /* names as getdents64(2) gives them */
};

struct call {
	struct rm_fast *fast;
	const struct rm_fast_setup *setup;
	struct rm_journal *journal;
	uint64_t node;
	const void *in;
	uint8_t *payload;
	uint64_t room;
};

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

static inline int handle_fd(const struct call *call, uint64_t fh)
{
	struct rm_handle handle;

	return rm_handles_get(call->setup->handles, fh, &handle) ? -1 : handle.fd;
}

#pragma GCC visibility push(hidden)
void rm_keep(struct call *call, uint64_t node, int fd);
int rm_open_node(const struct call *call, int flags);

bool rm_do_lookup(struct call *call);
bool rm_do_getattr(struct call *call);
bool rm_do_getxattr(struct call *call);
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
