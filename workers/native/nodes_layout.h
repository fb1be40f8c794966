/*
 * The node table's layout in memory, version 1. All offsets are from the region's start; a region of zeroes plus
 * what rm_nodes_create() writes is an empty table, and only pages that are used cost memory.
 *
 *   offset    what
 *   0         struct nodes
 *   4096      struct shard[shards], 64 bytes each
 *   buckets   uint32_t[capacity / 4]: the first slot of each chain, those of one shard together
 *   slots     struct slot[capacity], 128 bytes each, those of one shard together
 *
 * Slot numbers are global. Slot 0 is never used, so that 0 ends every list; slot 1 is the root's.
 * A slot is *at home* in the shard whose array it is part of: that shard's free list is where it comes from and
 * returns to. A node with a key is *linked* in the chain that its key's hash names, which rekey may make another
 * shard's. A node is its slot, and further slots of the same home for bytes that do not fit.
 */
#ifndef RINGMOUNT_NODES_LAYOUT_H
#define RINGMOUNT_NODES_LAYOUT_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define NODES_MAGIC UINT64_C(0x7365646f6e6d72) /* "rmnodes" */
#define NODES_VERSION 1
#define ROOT 1
#define KEYLESS UINT32_MAX
#define MOST_SHARDS 256
#define MOST_BYTES 1024
#define LAST_GENERATION INT32_MAX /* keeps node numbers positive as int64_t */

enum slot_state { FREE, LIVE, EXTENT, RETIRED };

struct nodes {
	_Atomic uint64_t magic; /* written last */
	uint32_t version;
	uint32_t capacity;   /* slots, a power of two */
	uint32_t shards;     /* a power of two, at most MOST_SHARDS */
	uint32_t home_shift; /* slot >> home_shift: its home */
	uint64_t size;       /* bytes of the region */
	uint64_t buckets;    /* offset */
	uint64_t slots;      /* offset */
	uint64_t seed[2];    /* of the hash */
	_Atomic uint32_t repairing;  /* pidlock of the one process that repairs */
	_Atomic uint64_t anomalies;  /* references given back that were not there */
	_Atomic uint64_t repairs;    /* shards taken over from dead processes */
};

struct shard {
	_Atomic uint32_t lock; /* pidlock */
	uint32_t free;         /* first free slot */
	_Atomic uint32_t used; /* slots of this home that were ever used; those behind are untouched */
	_Atomic uint32_t live; /* nodes at home here */
	int64_t intent;        /* the intent that is being changed, as an offset from the table; 0: none */
	char reserved[40];
};

/* What a node's bytes are, in one word so that one store replaces all of them: key, then value. */
struct blob {
	uint32_t extent; /* first extent; 0: the bytes are in the slot itself */
	uint16_t keyed;  /* the key's length + 1; 0: no key */
	uint16_t value;  /* the value's length */
};

struct slot {
	_Atomic uint64_t life; /* enum slot_state | generation << 32; the generation grows when a node goes */
	uint32_t next;         /* in its chain, free list or row of extents */
	uint32_t reached;      /* of an extent, during repair: a node refers to it */
	union {
		struct {
			_Atomic uint64_t blob; /* struct blob */
			_Atomic uint64_t count; /* the kernel's references */
			uint64_t watchers; /* bit worker % 64 */
			uint32_t hash;     /* of the key: shard in the upper 8 bits, bucket in the lower */
			_Atomic uint32_t version; /* grows after each change of blob, before old bytes are reused */
			char bytes[80];
		};
		char extent[112];
	};
};

_Static_assert(sizeof(struct nodes) <= 4096, "one page");
_Static_assert(sizeof(struct shard) == 64, "one cache line");
_Static_assert(sizeof(struct slot) == 128, "two cache lines");
_Static_assert(sizeof(struct blob) == 8, "one store");

static inline struct shard *shard_at(struct nodes *nodes, uint32_t number)
{
	return (struct shard *)((char *)nodes + 4096) + number;
}

static inline struct slot *slot_at(struct nodes *nodes, uint32_t number)
{
	return (struct slot *)((char *)nodes + nodes->slots) + number;
}

static inline uint32_t *bucket_at(struct nodes *nodes, uint32_t hash)
{
	uint32_t mask = (1u << nodes->home_shift) / 4 - 1, shard = hash >> 24 & (nodes->shards - 1);
	return (uint32_t *)((char *)nodes + nodes->buckets) + shard * (mask + 1) + (hash & mask);
}

static inline uint32_t home_of(struct nodes *nodes, uint32_t slot)
{
	return slot >> nodes->home_shift;
}

static inline uint32_t first_at_home(struct nodes *nodes, uint32_t shard)
{
	return shard << nodes->home_shift;
}

static inline uint32_t first_unused(struct nodes *nodes, uint32_t shard)
{
	return first_at_home(nodes, shard) + atomic_load_explicit(&shard_at(nodes, shard)->used, memory_order_acquire);
}

static inline enum slot_state state_of(struct slot *slot)
{
	return (uint32_t)atomic_load_explicit(&slot->life, memory_order_acquire);
}

static inline uint64_t generation_of(struct slot *slot)
{
	return atomic_load_explicit(&slot->life, memory_order_acquire) >> 32;
}

static inline void set_life(struct slot *slot, enum slot_state state, uint64_t generation)
{
	atomic_store_explicit(&slot->life, generation << 32 | state, memory_order_release);
}

static inline uint64_t nodeid_of(struct nodes *nodes, uint32_t slot)
{
	return generation_of(slot_at(nodes, slot)) << 32 | slot;
}

static inline bool is_node(struct slot *slot, uint64_t nodeid)
{
	return atomic_load_explicit(&slot->life, memory_order_acquire) == ((nodeid >> 32) << 32 | LIVE);
}

static inline struct blob blob_of(struct slot *slot)
{
	union { uint64_t word; struct blob blob; } u = {atomic_load_explicit(&slot->blob, memory_order_acquire)};
	return u.blob;
}

static inline void set_blob(struct slot *slot, struct blob blob)
{
	union { struct blob blob; uint64_t word; } u = {blob};
	atomic_store_explicit(&slot->blob, u.word, memory_order_release);
}

static inline uint32_t key_length(struct blob blob)
{
	return blob.keyed ? blob.keyed - 1u : 0;
}

static inline uint32_t blob_length(struct blob blob)
{
	return key_length(blob) + blob.value;
}

static inline uint64_t count_of(struct slot *slot)
{
	return atomic_load_explicit(&slot->count, memory_order_relaxed);
}

static inline void set_count(struct slot *slot, uint64_t count)
{
	atomic_store_explicit(&slot->count, count, memory_order_relaxed);
}

/* Where the node can be found by its key; where its home is when it has none. */
static inline uint32_t index_of(struct nodes *nodes, uint32_t number)
{
	struct slot *slot = slot_at(nodes, number);
	return blob_of(slot).keyed ? slot->hash >> 24 & (nodes->shards - 1) : home_of(nodes, number);
}

#endif
