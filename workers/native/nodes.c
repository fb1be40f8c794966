#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "nodes.h"
#include "nodes_repair.h"

/*
 * Locks, and why a FORGET cannot lose a node that a LOOKUP has just found
 *
 * Each shard has one lock. A node's *home* is the shard of its slot; its *index* is the shard in whose chains it is
 * linked, or its home if it has no key. Nearly always they are the same.
 *
 *   1. Who changes a node (its life, its bytes, its index) holds the locks of home and index.
 *   2. Who changes its count, or the chain it is in, holds the lock of its index.
 *   3. Who reads it holds one of the two (or reads as rm_nodes_value() does).
 *   4. Locks are taken in ascending order, all of them before the first change.
 *   5. While the lock of its index is free, a live node's count is not 0.
 *
 * A LOOKUP in a worker finds a node and counts it under the lock of the index (2). A FORGET in the supervisor counts down
 * and, at zero, unlinks and frees the node without letting go of that lock in between. So one comes first: either
 * the FORGET does not reach zero, or the LOOKUP does not find the node and makes another one with another
 * nodeid. A nodeid is never used twice, so a request that still carries the old one gets ESTALE, never a stranger.
 *
 * Death
 *
 * A lock of a dead process tells that its shard may be in the middle of a change. Every change is a row of stores such that
 * what stands in memory after any of them can be told and finished, or undone, by the next:
 *
 *   - The one word `life` makes a slot a node, and ends it. Only nodes are in chains: a node is linked after it is LIVE
 *     and unlinked before it stops to be; each is one store, so that chains can be walked at any instant.
 *   - A node whose count is 0 is one whose removal has begun, or whose making was not finished: repair removes it.
 *   - The one word `blob` replaces a node's bytes. What belongs to a node (its index, its place in a chain, its extents)
 *     follows from that word, so repair puts it back: links the node if it is missing in the chain of its key,
 *     takes slots that nobody refers to for the free list.
 *   - A reference counted under an intent is undone unless the intent says that it was counted.
 *
 * Who finds a dead owner takes *all* locks of dead processes at once, each process being judged dead or alive once: so all
 * locks of one interrupted change are in one hand. It never waits for a lock of a living process, so it may hold
 * locks itself; one process repairs at a time; and if it dies too, all of this starts again from the same words.
 */

struct held {
	int n;
	uint32_t shard[3]; /* ascending */
};

int rm_steps_to_live;
static int step_signal;

void rm_step_reached(void)
{
	if (--rm_steps_to_live == 0)
		kill(getpid(), step_signal);
}

void rm_die_at(int step, int signal)
{
	step_signal = signal;
	rm_steps_to_live = step;
}

/* --- locks ---------------------------------------------------------------------------------------- */

enum { FOR_EVER = 0, SHORTLY = 10 * 1000 * 1000 }; /* how long to wait for one lock, ns */

static int lock_shard(struct nodes *nodes, uint32_t number, int64_t limit)
{
	struct shard *shard = shard_at(nodes, number);
	struct pidlock_patience patience = {.limit = limit};
	while (!pidlock_try(&shard->lock)) {
		enum pidlock_wait wait = pidlock_wait(&patience, &shard->lock);
		if (wait == PIDLOCK_LATE || (wait == PIDLOCK_DEAD && repair(nodes, NOBODY, limit) < 0))
			return -EAGAIN;
	}
	STEP();
	return 0;
}

static void unlock_shard(struct nodes *nodes, uint32_t number)
{
	pidlock_release(&shard_at(nodes, number)->lock);
	STEP();
}

static void drop(struct nodes *nodes, struct held *held)
{
	while (held->n)
		unlock_shard(nodes, held->shard[--held->n]);
}

static int hold(struct nodes *nodes, struct held *held, const uint32_t wanted[3], int64_t limit)
{
	held->n = 0;
	for (int64_t last = -1;;) {
		int64_t next = INT64_MAX;
		for (int i = 0; i < 3; i++)
			if (wanted[i] > last && wanted[i] < next)
				next = wanted[i];
		if (next == INT64_MAX)
			return 0;
		if (lock_shard(nodes, next, limit)) {
			drop(nodes, held);
			return -EAGAIN;
		}
		held->shard[held->n++] = last = next;
	}
}

/* Holds home and index of a node, and one shard more if `more` names another one. Its index is known only while one of
   them is held: so guess, look, and try again if it is elsewhere. */
static int hold_node(struct nodes *nodes, struct held *held, uint64_t nodeid, uint32_t more, int64_t limit)
{
	uint32_t number = (uint32_t)nodeid, home = home_of(nodes, number), index = home;
	if (number >= nodes->capacity)
		return -ESTALE;
	for (;;) {
		int error = hold(nodes, held, (uint32_t[]){home, index, more == KEYLESS ? home : more}, limit);
		if (error)
			return error;
		if (!is_node(slot_at(nodes, number), nodeid)) {
			drop(nodes, held);
			return -ESTALE;
		}
		if (index_of(nodes, number) == index)
			return 0;
		uint32_t found = index_of(nodes, number);
		drop(nodes, held);
		index = found;
	}
}

/* --- the region -------------------------------------------------------------------------------------- */

static uint64_t capacity_for(uint32_t wanted)
{
	uint64_t capacity = 64;
	while (capacity < wanted)
		capacity *= 2;
	return capacity;
}

static uint32_t shards_for(uint64_t capacity)
{
	if (capacity >= MOST_SHARDS * 256)
		return MOST_SHARDS;
	return capacity < 512 ? 1 : capacity / 256;
}

static uint64_t slots_offset(uint64_t capacity)
{
	uint64_t buckets = 4096 + shards_for(capacity) * sizeof(struct shard);
	return (buckets + capacity / 4 * sizeof(uint32_t) + 4095) & ~UINT64_C(4095);
}

static uint64_t size_for(uint64_t capacity)
{
	return slots_offset(capacity) + capacity * sizeof(struct slot);
}

size_t rm_nodes_size(uint32_t capacity)
{
	return size_for(capacity_for(capacity));
}

int rm_nodes_create(void *base, size_t size)
{
	struct nodes *nodes = base;
	uint64_t capacity = 64;
	if (size_for(capacity) > size)
		return -EINVAL;
	while (size_for(capacity * 2) <= size && capacity < UINT64_C(1) << 31)
		capacity *= 2;
	nodes->version = NODES_VERSION;
	nodes->size = size;
	nodes->capacity = capacity;
	nodes->shards = shards_for(capacity);
	nodes->home_shift = __builtin_ctzll(capacity / nodes->shards);
	nodes->buckets = 4096 + nodes->shards * sizeof(struct shard);
	nodes->slots = slots_offset(capacity);
	if (getrandom(nodes->seed, sizeof nodes->seed, 0) != sizeof nodes->seed)
		return -errno;
	set_life(slot_at(nodes, 0), RETIRED, 0);
	set_count(slot_at(nodes, ROOT), 1);
	set_life(slot_at(nodes, ROOT), LIVE, 0);
	shard_at(nodes, 0)->used = ROOT + 1;
	shard_at(nodes, 0)->live = 1;
	atomic_store_explicit(&nodes->magic, NODES_MAGIC, memory_order_release);
	return 0;
}

int rm_nodes_open(void *base, size_t size)
{
	struct nodes *nodes = base;
	if (atomic_load_explicit(&nodes->magic, memory_order_acquire) != NODES_MAGIC)
		return -EINVAL;
	if (nodes->version != NODES_VERSION)
		return -EPROTONOSUPPORT;
	return nodes->size == size ? 0 : -EINVAL;
}

/* --- operations ---------------------------------------------------------------------------------------- */

static bool too_long(int key_length, int value_length)
{
	return key_length > MOST_BYTES || value_length > MOST_BYTES || key_length + value_length > MOST_BYTES;
}

int64_t rm_nodes_take(void *base, const char *key, int key_length, const char *value, int value_length, uint64_t *intent)
{
	struct nodes *nodes = base;
	uint32_t hash, index, number;
	int64_t nodeid = -ENFILE;
	if (too_long(key_length, value_length))
		return -ENAMETOOLONG;
	hash = hash_of(nodes, key, key_length);
	index = hash >> 24 & (nodes->shards - 1);
	lock_shard(nodes, index, FOR_EVER);
	number = find_key(nodes, hash, key, key_length);
	if (!number)
		number = make_node(nodes, hash, index, key, key_length, value, value_length);
	if (number) {
		count_reference(nodes, index, number, intent);
		nodeid = nodeid_of(nodes, number);
	}
	unlock_shard(nodes, index);
	return nodeid;
}

int64_t rm_nodes_find(void *base, const char *key, int key_length)
{
	struct nodes *nodes = base;
	if (too_long(key_length, 0))
		return 0;
	uint32_t hash = hash_of(nodes, key, key_length), index = hash >> 24 & (nodes->shards - 1);
	lock_shard(nodes, index, FOR_EVER);
	uint32_t number = find_key(nodes, hash, key, key_length);
	int64_t nodeid = number ? nodeid_of(nodes, number) : 0;
	unlock_shard(nodes, index);
	return nodeid;
}

/*
 * Reading without a lock: hot nodes (the root, a busy folder) are read by all workers at once.
 *
 * Bytes are never changed in place: a change stores new ones elsewhere, switches `blob`, and counts up `version` before it
 * gives the old bytes away. So what was copied is whole if neither version nor life changed meanwhile; generations
 * keep a slot that was reused from looking the same. If they changed, a change was completed: try again.
 */
static int read_bytes(struct nodes *nodes, uint64_t nodeid, bool want_key, char *out, int room)
{
	struct slot *slot = slot_at(nodes, (uint32_t)nodeid);
	if ((uint32_t)nodeid >= nodes->capacity)
		return -ESTALE;
	for (;;) {
		uint32_t version = atomic_load_explicit(&slot->version, memory_order_acquire);
		if (!is_node(slot, nodeid))
			return -ESTALE;
		struct blob blob = blob_of(slot);
		uint32_t key = key_length(blob), length = want_key ? key : blob.value;
		bool fits = (int)length <= room;
		bool whole = !fits || copy_bytes(nodes, slot, blob, want_key ? 0 : key, length, out);
		atomic_thread_fence(memory_order_acquire);
		if (!is_node(slot, nodeid))
			return -ESTALE;
		if (atomic_load_explicit(&slot->version, memory_order_relaxed) != version)
			continue;
		if (!whole)
			return -EIO; /* nobody changed it, so the table itself is damaged */
		if (want_key && !blob.keyed)
			return -ENODATA;
		return fits ? (int)length : -ERANGE;
	}
}

int rm_nodes_value(void *base, uint64_t node, char *out, int room)
{
	return read_bytes(base, node, false, out, room);
}

int rm_nodes_key(void *base, uint64_t node, char *out, int room)
{
	return read_bytes(base, node, true, out, room);
}

/* The switch that readers without lock rely on, in its order. */
static void switch_blob(struct slot *slot, struct blob blob)
{
	set_blob(slot, blob);
	STEP();
	atomic_fetch_add_explicit(&slot->version, 1, memory_order_release);
	atomic_thread_fence(memory_order_release);
	STEP();
}

int rm_nodes_replace(void *base, uint64_t node, const char *value, int value_length)
{
	struct nodes *nodes = base;
	struct held held;
	struct blob blob, old;
	char key[MOST_BYTES];
	int error = hold_node(nodes, &held, node, KEYLESS, FOR_EVER);
	if (error)
		return error;
	struct slot *slot = slot_at(nodes, (uint32_t)node);
	old = blob_of(slot);
	copy_bytes(nodes, slot, old, 0, key_length(old), key);
	if (too_long(key_length(old), value_length))
		error = -ENAMETOOLONG;
	else if (!store_blob(nodes, (uint32_t)node, old.extent, key, old.keyed - 1, value, value_length, &blob))
		error = -ENOSPC;
	if (!error) {
		switch_blob(slot, blob);
		free_extents(nodes, old.extent);
	}
	drop(nodes, &held);
	return error;
}

/* Both shards are held and the key is free. */
static int move_node(struct nodes *nodes, uint32_t number, uint32_t hash, const char *key, int key_length)
{
	struct slot *slot = slot_at(nodes, number);
	struct blob blob, old = blob_of(slot);
	char value[MOST_BYTES];
	if (too_long(key_length, old.value))
		return -ENAMETOOLONG;
	copy_bytes(nodes, slot, old, blob_length(old) - old.value, old.value, value);
	if (!store_blob(nodes, number, old.extent, key, key_length, value, old.value, &blob))
		return -ENOSPC;
	if (old.keyed)
		unlink_node(nodes, number);
	switch_blob(slot, blob);
	slot->hash = hash;
	STEP();
	if (blob.keyed)
		link_node(nodes, number);
	free_extents(nodes, old.extent);
	return 0;
}

int rm_nodes_rekey(void *base, uint64_t node, const char *key, int key_length)
{
	struct nodes *nodes = base;
	struct held held;
	bool keyed = key_length >= 0;
	if (too_long(key_length, 0))
		return -ENAMETOOLONG;
	uint32_t hash = keyed ? hash_of(nodes, key, key_length) : 0;
	int error = hold_node(nodes, &held, node, keyed ? hash >> 24 & (nodes->shards - 1) : KEYLESS, FOR_EVER);
	if (error)
		return error;
	uint32_t number = (uint32_t)node, owner = keyed ? find_key(nodes, hash, key, key_length) : 0;
	if (owner && owner != number)
		error = -EEXIST;
	else if (owner ? false : keyed || blob_of(slot_at(nodes, number)).keyed)
		error = move_node(nodes, number, hash, key, key_length);
	drop(nodes, &held);
	return error;
}

int rm_nodes_watch(void *base, uint64_t node, int worker)
{
	struct nodes *nodes = base;
	struct held held;
	int error = hold_node(nodes, &held, node, KEYLESS, FOR_EVER);
	if (error)
		return error;
	slot_at(nodes, (uint32_t)node)->watchers |= UINT64_C(1) << (worker & 63);
	drop(nodes, &held);
	return 0;
}

static void count_anomaly(struct nodes *nodes)
{
	atomic_fetch_add_explicit(&nodes->anomalies, 1, memory_order_relaxed);
}

/* Counts down a node that is held. True if it went away. */
static bool give_back(struct nodes *nodes, uint32_t number, uint64_t references, uint64_t *watchers)
{
	struct slot *slot = slot_at(nodes, number);
	uint64_t count = count_of(slot), least = number == ROOT;
	if (references > count)
		count_anomaly(nodes);
	count = references < count ? count - references : 0;
	set_count(slot, count > least ? count : least);
	STEP();
	if (count_of(slot))
		return false;
	*watchers = slot->watchers;
	remove_node(nodes, number);
	return true;
}

static int forget(struct nodes *nodes, uint64_t nodeid, uint64_t references, uint64_t *watchers, int64_t limit)
{
	struct held held;
	int gone = hold_node(nodes, &held, nodeid, KEYLESS, limit);
	*watchers = 0;
	if (gone == -ESTALE)
		count_anomaly(nodes);
	if (gone)
		return gone;
	gone = give_back(nodes, (uint32_t)nodeid, references, watchers);
	drop(nodes, &held);
	return gone;
}

int rm_nodes_forget(void *base, uint64_t node, uint64_t references, uint64_t *watchers)
{
	return forget(base, node, references, watchers, FOR_EVER);
}

int rm_nodes_forget_batch(void *base, const uint64_t *pairs, int n, uint64_t *gone, uint64_t *watchers, int *n_gone)
{
	*n_gone = 0;
	for (int i = 0; i < n; i++) {
		uint64_t bits;
		int done = forget(base, pairs[2 * i], pairs[2 * i + 1], &bits, SHORTLY);
		if (done == -EAGAIN)
			return i;
		if (done == 1 && bits) {
			gone[*n_gone] = pairs[2 * i];
			watchers[(*n_gone)++] = bits;
		}
	}
	return n;
}

/* Gives back what is counted under the intent, all shards being in order. */
static int settle(struct nodes *nodes, uint64_t *intent, uint64_t *watchers, int64_t limit)
{
	struct held held;
	uint64_t nodeid = intent[INTENT_NODE];
	*watchers = 0;
	if (!nodeid)
		return 0;
	int error = intent[INTENT_COUNT] == COUNTED ? hold_node(nodes, &held, nodeid, KEYLESS, limit) : -ESTALE;
	if (error == -ESTALE)
		intent[INTENT_NODE] = 0;
	if (error)
		return error == -ESTALE ? 0 : error;
	uncount_reference(nodes, index_of(nodes, (uint32_t)nodeid), (uint32_t)nodeid, intent);
	int gone = give_back(nodes, (uint32_t)nodeid, 0, watchers);
	drop(nodes, &held);
	return gone;
}

int rm_nodes_settle(void *base, uint64_t *intent, uint64_t *watchers)
{
	int error = repair(base, NOBODY, SHORTLY);
	*watchers = 0;
	return error < 0 ? error : settle(base, intent, watchers, SHORTLY);
}

bool rm_nodes_is_counted(void *base, const uint64_t *intent)
{
	repair(base, NOBODY, FOR_EVER);
	return intent[INTENT_NODE] && intent[INTENT_COUNT] == COUNTED;
}

void rm_nodes_own(uint64_t node, uint64_t *intent)
{
	intent[INTENT_COUNT] = COUNTED;
	STEP();
	intent[INTENT_NODE] = node;
	STEP();
}

int rm_nodes_return(void *base, uint64_t *intent)
{
	uint64_t watchers;
	return settle(base, intent, &watchers, FOR_EVER);
}

bool rm_nodes_was_returned(const uint64_t *intent)
{
	return intent[INTENT_COUNT] && intent[INTENT_COUNT] != COUNTED;
}

int rm_nodes_recover(void *base, int pid)
{
	return repair(base, pid, SHORTLY);
}

int rm_nodes_iterate(void *base, uint32_t *cursor, uint64_t *nodeids, uint64_t *counts, int n)
{
	struct nodes *nodes = base;
	int found = 0;
	while (*cursor < nodes->capacity && found < n) {
		uint32_t number = *cursor, home = home_of(nodes, number);
		if (number >= first_unused(nodes, home)) {
			*cursor = first_at_home(nodes, home + 1);
			continue;
		}
		struct slot *slot = slot_at(nodes, number);
		nodeids[found] = nodeid_of(nodes, number);
		counts[found] = count_of(slot);
		found += is_node(slot, nodeids[found]) && counts[found];
		*cursor = number + 1;
	}
	return found;
}

void rm_nodes_stats(void *base, struct rm_nodes_stats *stats)
{
	struct nodes *nodes = base;
	*stats = (struct rm_nodes_stats){.capacity = nodes->capacity, .anomalies = nodes->anomalies, .repairs = nodes->repairs};
	for (uint32_t i = 0; i < nodes->shards; i++) {
		stats->live += shard_at(nodes, i)->live;
		stats->used += shard_at(nodes, i)->used;
	}
}

#include "nodes_verify.h"
