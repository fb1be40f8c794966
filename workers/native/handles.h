/* The table of open files that all processes of a mount share. See handles.cdef for what each function does. */
#ifndef RINGMOUNT_HANDLES_H
#define RINGMOUNT_HANDLES_H
#include <stddef.h>
#include <stdint.h>

struct rm_handle {
	uint64_t fh, node, lock_owner, extra;
	uint32_t flags, worker;
	int32_t fd;
};

size_t rm_handles_size(uint32_t capacity);
int rm_handles_create(void *base, size_t size);
int rm_handles_open(void *base, size_t size);
uint32_t rm_handles_capacity(void *base);
int64_t rm_handles_add(void *base, int worker, uint64_t node, uint32_t flags, int fd, uint64_t *intent);
int rm_handles_get(void *base, uint64_t fh, struct rm_handle *handle);
int rm_handles_note(void *base, uint64_t fh, uint64_t lock_owner, uint64_t extra);
int rm_handles_remove(void *base, int worker, uint64_t fh);
int rm_handles_sweep(void *base, int worker);
int rm_handles_lose_fds(void *base);
int rm_handles_supply(void *base, uint64_t fh, int fd);
int rm_handles_iterate(void *base, uint32_t *cursor, struct rm_handle *handles, int n);
#endif
