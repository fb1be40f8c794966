#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fast.h"
#include "handles.h"

enum { OP_GETATTR = 3, OP_READ = 15, OP_WRITE = 16 };
enum { WRITE_KILL_SUIDGID = 1 << 2 };
#define NONE UINT32_MAX

/* The kernel's structs (include/uapi/linux/fuse.h). */
struct attr_out {
	uint64_t valid;
	uint32_t valid_nsec, dummy;
	uint64_t ino, size, blocks, atime, mtime, ctime;
	uint32_t atime_nsec, mtime_nsec, ctime_nsec, mode, nlink, uid, gid, rdev, blksize, flags;
};
_Static_assert(sizeof(struct attr_out) == 104, "fuse_attr_out");

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

/* --- requests ------------------------------------------------------------------------------------------------ */

static bool getattr(struct rm_fast *fast, uint64_t node, struct rm_journal *journal, uint8_t *payload)
{
	struct attr_out *out = (struct attr_out *)payload;
	int fd = rm_fast_get(fast, node);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || st.st_dev != fast->setup.device || st.st_rdev >> 32)
		return false;
	*out = (struct attr_out){
		.valid = fast->setup.attr_valid, .valid_nsec = fast->setup.attr_valid_nsec,
		.ino = st.st_ino, .size = (uint64_t)st.st_size, .blocks = (uint64_t)st.st_blocks,
		.atime = (uint64_t)st.st_atim.tv_sec, .atime_nsec = (uint32_t)st.st_atim.tv_nsec,
		.mtime = (uint64_t)st.st_mtim.tv_sec, .mtime_nsec = (uint32_t)st.st_mtim.tv_nsec,
		.ctime = (uint64_t)st.st_ctim.tv_sec, .ctime_nsec = (uint32_t)st.st_ctim.tv_nsec,
		.mode = st.st_mode, .nlink = (uint32_t)st.st_nlink, .uid = st.st_uid, .gid = st.st_gid,
		.rdev = (uint32_t)st.st_rdev, .blksize = (uint32_t)st.st_blksize,
	};
	journal->size = sizeof *out;
	return true;
}

/* What is in the page cache is read at once; the rest, and every error, is Python's. */
static bool read_cached(struct rm_fast *fast, const struct io_in *in, const struct rm_arena *arena,
			struct rm_journal *journal, uint8_t *payload)
{
	struct rm_handle handle;
	struct iovec iov = { payload, in->size };

	if (in->size > arena->payload || in->offset >> 63 || rm_handles_get(fast->setup.handles, in->fh, &handle) || handle.fd < 0)
		return false;
	ssize_t got = preadv2(handle.fd, &iov, 1, (off_t)in->offset, RWF_NOWAIT);

	/* A short read may be the end of the file or the end of what is cached: only an empty one is surely the end. */
	if (got < 0 || (got > 0 && (size_t)got < in->size))
		return false;
	journal->size = (uint32_t)got;
	return true;
}

static bool write_data(struct rm_fast *fast, const struct io_in *in, struct rm_journal *journal, uint8_t *payload)
{
	struct rm_handle handle;

	if (in->io_flags & WRITE_KILL_SUIDGID || in->size > journal->payload_size || in->offset >> 63 ||
	    rm_handles_get(fast->setup.handles, in->fh, &handle) || handle.fd < 0)
		return false;
	ssize_t put = pwrite(handle.fd, payload, in->size, (off_t)in->offset);

	if (put < 0)
		return false;
	*(struct write_out *)payload = (struct write_out){ (uint32_t)put, 0 };
	journal->size = sizeof(struct write_out);
	return true;
}

bool rm_fast_serve(struct rm_fast *fast, const struct rm_arena *arena, uint32_t index)
{
	struct rm_journal *journal = &arena->journal[index];
	uint8_t *page = rm_entry_page(arena, index), *payload = page + RM_ENTRY_PAGE;
	const struct io_in *in = (const struct io_in *)(page + 128);
	uint32_t opcode;
	uint64_t node;
	bool answered = false;

	memcpy(&opcode, journal->header + 4, sizeof opcode);
	memcpy(&node, journal->header + 16, sizeof node);
	if (opcode >= 64 || !(fast->setup.opcodes[opcode / 32] >> (opcode % 32) & 1))
		return false;
	__atomic_store_n(&journal->state, RM_STARTED, __ATOMIC_RELEASE);
	if (opcode == OP_GETATTR)
		answered = getattr(fast, node, journal, payload);
	else if (opcode == OP_READ)
		answered = read_cached(fast, in, arena, journal, payload);
	else if (opcode == OP_WRITE)
		answered = write_data(fast, in, journal, payload);
	journal->error = 0;
	__atomic_store_n(&journal->state, answered ? RM_ANSWERED : RM_DELIVERED, __ATOMIC_RELEASE);
	return answered;
}
