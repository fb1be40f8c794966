/* The FUSE-over-io_uring queue of one worker, and its stand-in over a cloned /dev/fuse. See ring.cdef. */
#ifndef RINGMOUNT_RING_H
#define RINGMOUNT_RING_H
#include <stdint.h>
#include "arena.h"

struct rm_event {
	uint64_t data;
	int32_t res;
	uint32_t flags;
};

struct rm_ring;

struct rm_ring *rm_ring_new(uint32_t entries, uint32_t flags, int fuse_fd, int eventfd, const struct rm_arena *arena,
			    struct rm_worker *worker, int *error);
void rm_ring_free(struct rm_ring *ring);
int rm_register(struct rm_ring *ring, uint32_t index);
int rm_register_nowhere(struct rm_ring *ring, uint64_t data);
int rm_io(struct rm_ring *ring, int opcode, int fd, uint64_t address, uint32_t length, uint64_t offset,
	  uint32_t flags, uint64_t data);
int rm_turn(struct rm_ring *ring, const uint32_t *commits, int ncommits, int wait, struct rm_event *events, int max);

struct rm_device;
struct rm_device *rm_device_new(int fuse_fd, int mail_fd, const struct rm_arena *arena, struct rm_worker *worker,
				const uint16_t *argument_sizes, const uint32_t *indices, int count, int capacity);
void rm_device_free(struct rm_device *device);
int rm_device_turn(struct rm_device *device, const uint32_t *commits, int ncommits, int timeout_ms, int wake_fd,
		   struct rm_event *events, int max);
void rm_device_accelerate(struct rm_device *device, struct rm_fast *fast);
int rm_device_reply(struct rm_device *device, uint32_t index);
int rm_device_unread(struct rm_device *device, uint32_t *found);
void rm_device_release(struct rm_device *device, uint32_t index);
int rm_device_room(const struct rm_device *device);
void rm_journal_delivery(const struct rm_arena *arena, uint32_t index);

struct rm_fast;
void rm_ring_accelerate(struct rm_ring *ring, struct rm_fast *fast);
int rm_recommit(struct rm_ring *ring, uint32_t index);
int64_t rm_find_unique(const struct rm_arena *arena, uint64_t unique);
int64_t rm_oldest(const struct rm_arena *arena, uint32_t worker, uint32_t waits, uint64_t *since);
int rm_bucket(uint64_t ns);
uint64_t rm_bucket_floor(int bucket);
uint64_t rm_now(void);
#endif
