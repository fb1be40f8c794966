#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "handles.h"
#include "step.h"

/*
 * The handle table's layout in memory, version 2. Offsets are from the region's start; zeroes are free slots, and only
 * pages that are used cost memory.
 *
 *   offset               what
 *   0                    struct handles
 *   4096                 uint32_t open[OPEN_COUNTS]
 *   WORDS_AT             uint64_t word[capacity]
 *   then                 struct record[capacity]
 *
 * A slot's word is all there is to decide: its lower half says free, in the hands of a worker, or live with or without
 * a descriptor; its upper half is the generation, which grows when a handle ends. Every change of state is one
 * compare-and-swap of this word, so a death leaves a slot free, live, or in the hands of a worker that the sweep after its
 * death names. A handle is (generation, slot): removing it twice, or using it after that, fails the comparison.
 *
 *   lower half         meaning
 *   0                  free
 *   1                  live, without a descriptor
 *   fd + 2             live
 *   2**31 + worker     being filled by this worker; nobody else knows of it yet
 *
 * open[] counts live handles by a hash of their inode numbers. A slot is counted before it is live and no more after it
 * has ended, so that a death in between leaves a count too high, which costs whoever asks a closer look, and never too low.
 *
 * Python reads the words as they are (ringmount.workers.handles).
 */
#define HANDLES_MAGIC UINT64_C(0x73656c646e616872) /* "rhandles" */
#define HANDLES_VERSION 2
#define FREE 0u
#define NO_DESCRIPTOR 1u
#define FILLING (UINT32_C(1) << 31)
#define LAST_GENERATION INT32_MAX /* keeps handles positive as int64_t */
#define HINTS 64
#define OPEN_COUNTS 4096
#define WORDS_AT RM_HANDLES_WORDS_AT
_Static_assert(WORDS_AT == 4096 + OPEN_COUNTS * sizeof(uint32_t), "behind the counts");

enum { INTENT_HANDLE = 2 }; /* the first two words are nodes.c's */

struct handles {
	_Atomic uint64_t magic; /* written last */
	uint32_t version;
	uint32_t capacity;
	uint64_t size;             /* bytes of the region */
	_Atomic uint32_t top;      /* slots from here on were never used */
	_Atomic uint32_t hint[HINTS]; /* where the worker looks first */
	_Atomic uint32_t lasting;
};

struct record {
	_Atomic uint64_t node;
	_Atomic uint32_t flags, worker;
	_Atomic uint64_t inode, kept;
};

_Static_assert(sizeof(struct handles) <= 4096, "one page");
_Static_assert(sizeof(struct record) == 32, "two a cache line");

static _Atomic uint64_t *word_at(struct handles *handles, uint32_t slot)
{
	return (_Atomic uint64_t *)((char *)handles + WORDS_AT) + slot;
}

static _Atomic uint32_t *open_count(struct handles *handles, uint64_t inode)
{
	uint64_t hash = inode * UINT64_C(0x9e3779b97f4a7c15);

	return (_Atomic uint32_t *)((char *)handles + 4096) + hash % OPEN_COUNTS;
}

static struct record *record_at(struct handles *handles, uint32_t slot)
{
	return (struct record *)word_at(handles, handles->capacity) + slot;
}

static uint64_t word_of(uint64_t generation, uint32_t state)
{
	return generation << 32 | state;
}

static bool is_live(uint64_t word)
{
	uint32_t state = (uint32_t)word;
	return state != FREE && state < FILLING;
}

static int fd_of(uint64_t word)
{
	return (int)(uint32_t)word - 2;
}

/* The handle's word, or 0 (free) if it is not known. */
static uint64_t find(struct handles *handles, uint64_t fh)
{
	uint32_t slot = (uint32_t)fh;
	if (slot >= handles->capacity)
		return FREE;
	uint64_t word = atomic_load_explicit(word_at(handles, slot), memory_order_acquire);
	return is_live(word) && word >> 32 == fh >> 32 ? word : FREE;
}

size_t rm_handles_size(uint32_t capacity)
{
	return WORDS_AT + (size_t)capacity * (sizeof(uint64_t) + sizeof(struct record));
}

int rm_handles_create(void *base, size_t size)
{
	struct handles *handles = base;
	uint64_t capacity = size < WORDS_AT ? 0 : (size - WORDS_AT) / (sizeof(uint64_t) + sizeof(struct record));
	if (capacity < 2)
		return -EINVAL;
	handles->version = HANDLES_VERSION;
	handles->capacity = capacity < INT32_MAX ? capacity : INT32_MAX;
	handles->size = size;
	handles->top = 1;
	for (uint32_t i = 0; i < HINTS; i++)
		handles->hint[i] = 1 + i * (uint64_t)(handles->capacity - 1) / HINTS;
	atomic_store_explicit(&handles->magic, HANDLES_MAGIC, memory_order_release);
	return 0;
}

int rm_handles_open(void *base, size_t size)
{
	struct handles *handles = base;
	if (atomic_load_explicit(&handles->magic, memory_order_acquire) != HANDLES_MAGIC)
		return -EINVAL;
	if (handles->version != HANDLES_VERSION)
		return -EPROTONOSUPPORT;
	return handles->size == size ? 0 : -EINVAL;
}

uint32_t rm_handles_capacity(void *base)
{
	return ((struct handles *)base)->capacity;
}

/* Before a slot is touched, so that whoever walks the table sees what a dead worker held. */
static void raise_top(struct handles *handles, uint32_t slot)
{
	uint32_t top = atomic_load_explicit(&handles->top, memory_order_relaxed);
	while (top <= slot && !atomic_compare_exchange_weak(&handles->top, &top, slot + 1))
		;
	STEP();
}

static bool claim(struct handles *handles, uint32_t slot, uint32_t worker)
{
	uint64_t word = atomic_load_explicit(word_at(handles, slot), memory_order_relaxed);
	if ((uint32_t)word != FREE)
		return false;
	raise_top(handles, slot);
	return atomic_compare_exchange_strong(word_at(handles, slot), &word, word_of(word >> 32, FILLING | worker));
}

/* A slot that is in the hands of this worker; 0 if all are taken. Each worker begins in a stretch of its own and then
   where it last found or freed one: the search is short unless the table is nearly full. */
static uint32_t claim_any(struct handles *handles, uint32_t worker)
{
	_Atomic uint32_t *hint = &handles->hint[worker % HINTS];
	uint32_t slot = atomic_load_explicit(hint, memory_order_relaxed);
	for (uint32_t tries = 0; tries < handles->capacity; tries++, slot++) {
		if (slot >= handles->capacity)
			slot = 0;
		if (slot && claim(handles, slot, worker)) {
			atomic_store_explicit(hint, slot + 1, memory_order_relaxed);
			STEP();
			return slot;
		}
	}
	return 0;
}

void rm_handles_set_lasting(void *base, int lasting)
{
	((struct handles *)base)->lasting = (uint32_t)lasting;
}

int rm_handles_is_lasting(void *base)
{
	return (int)((struct handles *)base)->lasting;
}

int64_t rm_handles_add(void *base, int worker, uint64_t node, uint32_t flags, int fd, uint64_t inode,
		       uint64_t *intent)
{
	struct handles *handles = base;
	uint32_t slot = claim_any(handles, worker);
	if (!slot)
		return -ENFILE;
	uint64_t generation = atomic_load_explicit(word_at(handles, slot), memory_order_relaxed) >> 32;
	struct record *record = record_at(handles, slot);
	atomic_store_explicit(&record->node, node, memory_order_relaxed);
	atomic_store_explicit(&record->flags, flags, memory_order_relaxed);
	atomic_store_explicit(&record->worker, worker, memory_order_relaxed);
	atomic_store_explicit(&record->inode, inode, memory_order_relaxed);
	atomic_store_explicit(&record->kept, 0, memory_order_relaxed);
	STEP();
	if (inode)
		atomic_fetch_add(open_count(handles, inode), 1);
	STEP();
	if (intent)
		intent[INTENT_HANDLE] = generation << 32 | slot;
	STEP();
	uint32_t state = fd < 0 ? NO_DESCRIPTOR : (uint32_t)fd + 2;
	atomic_store_explicit(word_at(handles, slot), word_of(generation, state), memory_order_release);
	STEP();
	return generation << 32 | slot;
}

/* False if the handle ended while it was copied. */
static bool copy(struct handles *handles, uint32_t slot, uint64_t word, struct rm_handle *handle)
{
	struct record *record = record_at(handles, slot);
	*handle = (struct rm_handle){
		.fh = (word >> 32) << 32 | slot,
		.node = atomic_load_explicit(&record->node, memory_order_relaxed),
		.flags = atomic_load_explicit(&record->flags, memory_order_relaxed),
		.worker = atomic_load_explicit(&record->worker, memory_order_relaxed),
		.inode = atomic_load_explicit(&record->inode, memory_order_relaxed),
		.is_kept = atomic_load_explicit(&record->kept, memory_order_relaxed),
		.fd = fd_of(word),
	};
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(word_at(handles, slot), memory_order_relaxed) == word;
}

int rm_handles_get(void *base, uint64_t fh, struct rm_handle *handle)
{
	struct handles *handles = base;
	uint64_t word = find(handles, fh);
	return word && copy(handles, (uint32_t)fh, word, handle) ? 0 : -EBADF;
}

int rm_handles_set_kept(void *base, uint64_t fh)
{
	struct handles *handles = base;
	if (!find(handles, fh))
		return -EBADF;
	atomic_store_explicit(&record_at(handles, (uint32_t)fh)->kept, 1, memory_order_relaxed);
	return 0;
}

int rm_handles_may_be_open(void *base, uint64_t inode)
{
	return atomic_load(open_count(base, inode)) != 0;
}

int rm_handles_remove(void *base, int worker, uint64_t fh)
{
	struct handles *handles = base;
	uint32_t slot = (uint32_t)fh;
	uint64_t word = find(handles, fh);
	uint64_t next = word >> 32 == LAST_GENERATION ? 0 : (word >> 32) + 1;
	uint64_t inode = word ? atomic_load_explicit(&record_at(handles, slot)->inode, memory_order_relaxed) : 0;
	if (!word || !atomic_compare_exchange_strong(word_at(handles, slot), &word, word_of(next, FREE)))
		return -EBADF;
	STEP();
	if (inode)
		atomic_fetch_sub(open_count(handles, inode), 1);
	STEP();
	atomic_store_explicit(&handles->hint[(uint32_t)worker % HINTS], slot, memory_order_relaxed);
	STEP();
	return fd_of(word);
}

int rm_handles_supply(void *base, uint64_t fh, int fd)
{
	struct handles *handles = base;
	uint64_t word = find(handles, fh);

	while (word && fd_of(word) < 0)
		if (atomic_compare_exchange_strong(word_at(handles, (uint32_t)fh), &word,
						   word_of(fh >> 32, (uint32_t)fd + 2)))
			return fd;
		else
			word = find(handles, fh);
	return word ? fd_of(word) : -EBADF;
}

int rm_handles_lose_fds(void *base)
{
	struct handles *handles = base;
	uint32_t top = atomic_load(&handles->top);
	int n = 0;
	for (uint32_t slot = 1; slot < top; slot++) {
		uint64_t word = atomic_load_explicit(word_at(handles, slot), memory_order_relaxed);
		if (is_live(word) && fd_of(word) >= 0)
			n += atomic_compare_exchange_strong(word_at(handles, slot), &word,
							    word_of(word >> 32, NO_DESCRIPTOR));
	}
	return n;
}

int rm_handles_sweep(void *base, int worker)
{
	struct handles *handles = base;
	uint32_t top = atomic_load(&handles->top);
	int n = 0;
	for (uint32_t slot = 1; slot < top; slot++) {
		uint64_t word = atomic_load_explicit(word_at(handles, slot), memory_order_relaxed);
		if ((uint32_t)word != (FILLING | (uint32_t)worker))
			continue;
		n += atomic_compare_exchange_strong(word_at(handles, slot), &word, word_of(word >> 32, FREE));
		STEP();
	}
	return n;
}

int rm_handles_iterate(void *base, uint64_t inode, uint32_t *cursor, struct rm_handle *out, int n)
{
	struct handles *handles = base;
	uint32_t top = atomic_load(&handles->top);
	int found = 0;
	for (; *cursor < top && found < n; ++*cursor) {
		uint64_t word = atomic_load_explicit(word_at(handles, *cursor), memory_order_acquire);
		if (is_live(word) && copy(handles, *cursor, word, &out[found]) && (!inode || out[found].inode == inode))
			found++;
	}
	return found;
}
