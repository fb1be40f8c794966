/* What C and Python share of the arena: one struct per record, declared a second time in ring.cdef, where cffi
   compares the two when the module is built. A change here is a new RM_ARENA_VERSION. */
#ifndef RINGMOUNT_ARENA_H
#define RINGMOUNT_ARENA_H
#include <stdint.h>

#define RM_ARENA_VERSION 1
#define RM_ENTRY_PAGE 4096   /* an entry: this page, then its payload */
#define RM_SAVED_AT 512      /* offset of the saved start of a request's payload in the entry's page */
#define RM_SAVED_MAX 512
#define RM_LEGACY_HEAD 80    /* header and largest first argument of a request with data (WRITE) */
#define RM_OPCODES 64
#define RM_BUCKETS 256

enum rm_state { RM_FREE, RM_DELIVERED, RM_STARTED, RM_ANSWERED };

/* One request in flight. `header` is the request's fuse_in_header: the kernel's own copy in the entry is where
   the reply's header goes. */
struct rm_journal {
	uint8_t header[40];
	uint32_t state;
	uint32_t qid;
	uint64_t commit_id;
	uint64_t delivered_ns;   /* CLOCK_MONOTONIC */
	uint64_t interrupted;    /* unique of the request that its caller gave up */
	int32_t error;           /* the reply: 0 or -errno */
	uint32_t size;           /* the reply: bytes of payload */
	uint32_t payload_size;   /* the request: bytes of payload */
	uint32_t worker;
	uint32_t deaths;         /* workers that died of this request */
	uint32_t saved;          /* bytes of payload kept at RM_SAVED_AT */
	uint64_t intent[2];      /* a node reference being taken, for nodes.c */
	uint8_t reserved[80];
};

struct rm_opstats {
	uint64_t count;
	uint64_t errors;
	uint64_t total_ns;
	uint64_t max_ns;
	uint64_t buckets[RM_BUCKETS];
};

struct rm_worker {
	uint32_t pid;
	uint32_t state;
	uint32_t cpu;
	uint32_t generation;     /* incarnations of this worker so far */
	uint64_t heartbeat_ns;   /* CLOCK_MONOTONIC of the last loop turn */
	uint64_t waiting;        /* 1 while blocked for events: a quiet worker is then idle, not hung */
	uint64_t turns;
	uint64_t requests;
	uint64_t errors;
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint64_t deaths;
	uint64_t rescued;
	uint64_t retried;
	uint64_t lost;
	uint64_t started_ns;
	uint32_t died_of;        /* the signal that ended the last incarnation, if death.c saw it */
	uint32_t padding;
	uint64_t reserved[15];
	struct rm_opstats ops[RM_OPCODES];
};

/* Where everything is: the same in every process of the mount, because the arena is mapped at one address. */
struct rm_arena {
	uint8_t *entries;        /* entry i at entries + i * (RM_ENTRY_PAGE + payload) */
	uint64_t payload;        /* bytes of one payload buffer */
	struct rm_journal *journal;
	uint32_t count;          /* of entries */
};

static inline uint8_t *rm_entry_page(const struct rm_arena *arena, uint32_t index)
{
	return arena->entries + (uint64_t)index * (RM_ENTRY_PAGE + arena->payload);
}
#endif
