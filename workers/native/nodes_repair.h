/*
 * What dead processes leave: references counted for a request that was not answered (intents), and shards in the middle
 * of a change. Part of nodes.c, which says why this suffices.
 */
#ifndef RINGMOUNT_NODES_REPAIR_H
#define RINGMOUNT_NODES_REPAIR_H
#include "nodes_slots.h"
#include "pidlock.h"

/* --- intents ------------------------------------------------------------------------------------- */

/*
 * An intent is two words: a nodeid (0: no reference), and COUNTED, or the count that includes the reference while it is
 * being counted. Count and intent cannot change in one store. So the shard names the intent that is being changed
 * under its lock, and who repairs the shard undoes a count that was not finished while nobody else could change it.
 * An intent that is not COUNTED once its shard is in order stands for nothing.
 */
enum { INTENT_NODE, INTENT_COUNT };
#define COUNTED UINT64_MAX

static void begin_intent(struct nodes *nodes, struct shard *shard, uint64_t *intent)
{
	shard->intent = (char *)intent - (char *)nodes;
	STEP();
}

static void end_intent(struct shard *shard)
{
	shard->intent = 0;
	STEP();
}

static void count_reference(struct nodes *nodes, uint32_t index, uint32_t number, uint64_t *intent)
{
	struct shard *shard = shard_at(nodes, index);
	struct slot *slot = slot_at(nodes, number);
	uint64_t count = count_of(slot) + 1;
	if (!intent) {
		set_count(slot, count);
		STEP();
		return;
	}
	intent[INTENT_NODE] = 0;
	STEP();
	begin_intent(nodes, shard, intent);
	intent[INTENT_COUNT] = count;
	STEP();
	intent[INTENT_NODE] = nodeid_of(nodes, number);
	STEP();
	set_count(slot, count);
	STEP();
	intent[INTENT_COUNT] = COUNTED;
	STEP();
	end_intent(shard);
}

/* The reverse: from the second store on, repair undoes the count as if it had never been finished. */
static void uncount_reference(struct nodes *nodes, uint32_t index, uint32_t number, uint64_t *intent)
{
	struct shard *shard = shard_at(nodes, index);
	struct slot *slot = slot_at(nodes, number);
	uint64_t count = count_of(slot);
	begin_intent(nodes, shard, intent);
	intent[INTENT_COUNT] = count;
	STEP();
	set_count(slot, count - 1);
	STEP();
	intent[INTENT_NODE] = 0;
	STEP();
	end_intent(shard);
}

static void undo_intent(struct nodes *nodes, struct shard *shard)
{
	if (!shard->intent)
		return;
	uint64_t *intent = (uint64_t *)((char *)nodes + shard->intent);
	uint64_t nodeid = intent[INTENT_NODE];
	if (nodeid && intent[INTENT_COUNT] != COUNTED)
		set_count(slot_at(nodes, (uint32_t)nodeid), intent[INTENT_COUNT] - 1);
	STEP();
	end_intent(shard);
}

/* --- repair --------------------------------------------------------------------------------------- */

enum { NOBODY = -1, EVERYBODY = 0 };

struct dead {
	int n;
	uint32_t pid[MOST_SHARDS];
};

static bool is_among(const uint32_t *pids, int n, uint32_t pid)
{
	while (n--)
		if (pids[n] == pid)
			return true;
	return false;
}

/* Who among the owners of locks is dead. `known` is said to be dead. Each owner is judged once. */
static void find_dead(struct nodes *nodes, int64_t known, struct dead *dead)
{
	uint32_t alive[MOST_SHARDS];
	int n_alive = 0;
	dead->n = 0;
	for (uint32_t i = 0; i < nodes->shards; i++) {
		uint32_t owner = atomic_load_explicit(&shard_at(nodes, i)->lock, memory_order_relaxed);
		if (!owner || is_among(dead->pid, dead->n, owner) || is_among(alive, n_alive, owner))
			continue;
		if (known == EVERYBODY || owner == known || pidlock_is_dead(owner))
			dead->pid[dead->n++] = owner;
		else
			alive[n_alive++] = owner;
	}
}

static int seize_shards(struct nodes *nodes, const struct dead *dead, bool mine[MOST_SHARDS])
{
	int n = 0;
	for (uint32_t i = 0; i < nodes->shards; i++) {
		_Atomic uint32_t *lock = &shard_at(nodes, i)->lock;
		uint32_t owner = atomic_load_explicit(lock, memory_order_relaxed);
		mine[i] = owner && is_among(dead->pid, dead->n, owner) && pidlock_seize(lock, owner);
		n += mine[i];
		STEP();
	}
	return n;
}

static void reach_extents(struct nodes *nodes, struct slot *slot)
{
	for (uint32_t number = blob_of(slot).extent; number; number = slot->next) {
		slot = slot_at(nodes, number);
		slot->reached = 1;
	}
}

/* Finishes what was begun with a node. True if it lives. */
static bool repair_node(struct nodes *nodes, uint32_t number, const bool mine[MOST_SHARDS])
{
	struct slot *slot = slot_at(nodes, number);
	bool keyed = blob_of(slot).keyed;
	if (keyed)
		slot->hash = hash_of_node(nodes, slot);
	if (!count_of(slot)) {
		if (keyed)
			unlink_node(nodes, number);
		end_life(slot);
		return false;
	}
	if (keyed && mine[index_of(nodes, number)] && !find_link(nodes, number))
		link_node(nodes, number);
	atomic_fetch_add_explicit(&slot->version, 1, memory_order_release);
	reach_extents(nodes, slot);
	return true;
}

static void repair_free_list(struct nodes *nodes, uint32_t home)
{
	struct shard *shard = shard_at(nodes, home);
	atomic_thread_fence(memory_order_release); /* versions before the reuse of bytes */
	shard->free = 0;
	for (uint32_t number = first_unused(nodes, home); number-- > first_at_home(nodes, home);) {
		struct slot *slot = slot_at(nodes, number);
		if (state_of(slot) == EXTENT && !slot->reached)
			set_life(slot, FREE, generation_of(slot));
		STEP();
		if (state_of(slot) != FREE)
			continue;
		slot->next = shard->free;
		shard->free = number;
		STEP();
	}
}

static void repair_shard(struct nodes *nodes, uint32_t home, const bool mine[MOST_SHARDS])
{
	uint32_t end = first_unused(nodes, home), live = 0;
	for (uint32_t number = first_at_home(nodes, home); number < end; number++)
		if (state_of(slot_at(nodes, number)) == EXTENT)
			slot_at(nodes, number)->reached = 0;
	for (uint32_t number = first_at_home(nodes, home); number < end; number++)
		if (state_of(slot_at(nodes, number)) == LIVE)
			live += repair_node(nodes, number, mine);
	repair_free_list(nodes, home);
	shard_at(nodes, home)->live = live;
	STEP();
}

static void repair_shards(struct nodes *nodes, const bool mine[MOST_SHARDS])
{
	for (uint32_t i = 0; i < nodes->shards; i++)
		if (mine[i])
			undo_intent(nodes, shard_at(nodes, i));
	for (uint32_t i = 0; i < nodes->shards; i++)
		if (mine[i])
			repair_shard(nodes, i, mine);
	for (uint32_t i = 0; i < nodes->shards; i++)
		if (mine[i]) {
			atomic_fetch_add_explicit(&nodes->repairs, 1, memory_order_relaxed);
			pidlock_release(&shard_at(nodes, i)->lock);
			STEP();
		}
}

static int lock_repair(struct nodes *nodes, int64_t known, int64_t limit)
{
	struct pidlock_patience patience = {.limit = limit};
	while (!pidlock_try(&nodes->repairing)) {
		uint32_t owner = atomic_load_explicit(&nodes->repairing, memory_order_relaxed);
		if (owner && (known == EVERYBODY || owner == known) && pidlock_seize(&nodes->repairing, owner))
			break;
		enum pidlock_wait wait = pidlock_wait(&patience, &nodes->repairing);
		if (wait == PIDLOCK_LATE)
			return -EAGAIN;
		if (wait == PIDLOCK_DEAD && pidlock_seize(&nodes->repairing, patience.owner))
			break;
	}
	STEP();
	return 0;
}

/* Puts right what dead processes left. Returns the number of shards. */
static int repair(struct nodes *nodes, int64_t known, int64_t limit)
{
	bool mine[MOST_SHARDS];
	struct dead dead;
	int n = 0, error = lock_repair(nodes, known, limit);
	if (error)
		return error;
	find_dead(nodes, known, &dead);
	if (dead.n) {
		n = seize_shards(nodes, &dead, mine);
		repair_shards(nodes, mine);
	}
	pidlock_release(&nodes->repairing);
	return n;
}

#endif
