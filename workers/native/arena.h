/* What C and Python share of the arena: one struct per record, declared a second time in ring.cdef, where cffi
   compares the two when the module is built. A change here is a new RM_ARENA_VERSION. */
#ifndef RINGMOUNT_ARENA_H
#define RINGMOUNT_ARENA_H
#include <stdint.h>

#include "step.h"

#define RM_ARENA_VERSION 4
#define RM_ENTRY_PAGE 4096   /* an entry: this page, then its payload */
#define RM_SAVED_AT 512      /* offset of the saved start of a request's payload in the entry's page */
#define RM_SAVED_MAX 512
#define RM_LEGACY_HEAD 80    /* header and largest first argument of a request with data (WRITE) */
#define RM_OPCODES 64
#define RM_BUCKETS 256
#define RM_NOT_LISTING UINT32_MAX
#define RM_TRACE_RECORDS 8192
#define RM_TRACE_NAME 104

enum rm_state { RM_FREE, RM_DELIVERED, RM_STARTED, RM_ANSWERED };

/* Of a change that cannot be made twice: not begun, perhaps made, made. */
enum rm_effect { RM_UNDONE, RM_BEGUN, RM_DONE };

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
	uint64_t intent[3];      /* taken for an answer that is not out: a node reference (nodes.c), an open file (handles.c) */
	uint32_t effect;         /* enum rm_effect */
	uint32_t listed;         /* READDIRPLUS: bytes of the reply whose references are counted (listing.c) */
	int64_t result;          /* what the change answered, once it is RM_DONE */
	uint64_t before[4];      /* what there was before it, as the filesystem noted it */
	uint64_t open_intent[2]; /* an open file being counted, for opens.c */
	uint64_t open_node;
	int32_t backing;         /* the backing id that this request has made, or is about to close */
	uint32_t thread;         /* the thread of the pool that runs it; 0: none does */
	uint8_t reserved[56];
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
	uint64_t quarantined;
	uint64_t started_ns;
	uint32_t died_of;        /* the signal that ended the last incarnation, until the next one serves */
	uint32_t died_from_outside; /* 1: another process sent it */
	uint64_t traced;         /* opcodes that are traced, a bit each: 0 when nobody looks */
	uint64_t traced_from_ns; /* those that took less are not */
	uint64_t traced_errors;  /* 1: only those that failed */
	uint64_t reserved[11];
	struct rm_opstats ops[RM_OPCODES];
};

/* An answered request, for who looks on: see trace.cdef. */
struct rm_trace_record {
	uint64_t delivered_ns;
	uint64_t took_ns;
	uint64_t unique;
	uint64_t nodeid;
	uint64_t offset;
	uint32_t opcode;
	uint32_t pid;
	uint32_t uid;
	int32_t error;
	uint32_t size;
	uint32_t named;
	uint8_t command[16];
	uint8_t name[RM_TRACE_NAME];
};

struct rm_trace {
	uint64_t next;
	uint64_t known_at;
	uint32_t known_pid;
	uint8_t known[16];
	uint8_t reserved[28];
	struct rm_trace_record records[RM_TRACE_RECORDS];
};

/* Where everything is: the same in every process of the mount, because the arena is mapped at one address. */
struct rm_arena {
	uint8_t *entries;        /* entry i at entries + i * (RM_ENTRY_PAGE + payload) */
	uint64_t payload;        /* bytes of one payload buffer */
	struct rm_journal *journal;
	uint32_t count;          /* of entries */
	struct rm_trace *traces; /* one a worker */
};

/* For the C twins of methods that make a change (recovery.py says what for): right before its system call and right after.
   `before`: what the method in Python would note. */
static inline void rm_begin(struct rm_journal *journal, uint64_t first, uint64_t second)
{
	journal->before[0] = first;
	journal->before[1] = second;
	__atomic_store_n(&journal->effect, RM_BEGUN, __ATOMIC_RELEASE);
	STEP();
}

static inline void rm_made(struct rm_journal *journal, int64_t result)
{
	STEP();
	journal->result = result;
	__atomic_store_n(&journal->effect, RM_DONE, __ATOMIC_RELEASE);
	STEP();
}

/* The system call failed: nothing was changed. */
static inline void rm_not_made(struct rm_journal *journal)
{
	STEP();
	__atomic_store_n(&journal->effect, RM_UNDONE, __ATOMIC_RELEASE);
}

static inline uint8_t *rm_entry_page(const struct rm_arena *arena, uint32_t index)
{
	return arena->entries + (uint64_t)index * (RM_ENTRY_PAGE + arena->payload);
}
#endif
