/* The table of open files that all processes of a mount share. See handles.cdef for what each function does. */
#ifndef RINGMOUNT_HANDLES_H
#define RINGMOUNT_HANDLES_H
#include <stddef.h>
#include <stdint.h>

#define RM_HANDLES_WORDS_AT 20480

struct rm_handle {
	uint64_t fh, node, inode, is_kept;
	uint32_t flags, worker;
	int32_t fd;
};

size_t rm_handles_size(uint32_t capacity);
int rm_handles_create(void *base, size_t size);
int rm_handles_open(void *base, size_t size);
uint32_t rm_handles_capacity(void *base);
int64_t rm_handles_add(void *base, int worker, uint64_t node, uint32_t flags, int fd, uint64_t inode,
		       uint64_t *intent);
void rm_handles_set_lasting(void *base, int lasting);
int rm_handles_is_lasting(void *base);
int rm_handles_get(void *base, uint64_t fh, struct rm_handle *handle);
int rm_handles_set_kept(void *base, uint64_t fh);
int rm_handles_may_be_open(void *base, uint64_t inode);
int rm_handles_remove(void *base, int worker, uint64_t fh);
int rm_handles_sweep(void *base, int worker);
int rm_handles_lose_fds(void *base);
int rm_handles_supply(void *base, uint64_t fh, int fd);
int rm_handles_iterate(void *base, uint64_t inode, uint32_t *cursor, struct rm_handle *handles, int n);
#endif
