/*
 * Slots, the bytes in them, the chains they are in; making and removing nodes. Part of nodes.c, which says who holds which
 * lock: here the caller holds what it takes. Between two STEP()s a death must leave what repair can tell (nodes.c).
 */
#ifndef RINGMOUNT_NODES_SLOTS_H
#define RINGMOUNT_NODES_SLOTS_H
#include "nodes_layout.h"
#include "siphash.h"
#include "step.h"

/* --- hash, bytes ------------------------------------------------------------------------------ */

static uint32_t hash_of(struct nodes *nodes, const char *key, uint32_t length)
{
	uint64_t hash = siphash13(nodes->seed, key, length);
	return hash >> 32 ^ hash;
}

/* Copies `length` of a node's bytes from `offset` on. False if they are not there, which only a reader without lock sees. */
static bool copy_bytes(struct nodes *nodes, struct slot *slot, struct blob blob, uint32_t offset, uint32_t length, char *out)
{
	if (!blob.extent) {
		if (offset + length > sizeof slot->bytes)
			return false;
		memcpy(out, slot->bytes + offset, length);
		return true;
	}
	for (uint32_t number = blob.extent; length; number = slot->next) {
		if (!number || number >= nodes->capacity)
			return false;
		slot = slot_at(nodes, number);
		if (offset >= sizeof slot->extent) {
			offset -= sizeof slot->extent;
			continue;
		}
		uint32_t part = sizeof slot->extent - offset < length ? sizeof slot->extent - offset : length;
		memcpy(out, slot->extent + offset, part);
		out += part;
		length -= part;
		offset = 0;
	}
	return true;
}

static bool has_key(struct nodes *nodes, struct slot *slot, const char *key, uint32_t length)
{
	char mine[MOST_BYTES];
	struct blob blob = blob_of(slot);
	if (blob.keyed != length + 1)
		return false;
	if (!blob.extent)
		return !memcmp(slot->bytes, key, length);
	return copy_bytes(nodes, slot, blob, 0, length, mine) && !memcmp(mine, key, length);
}

static uint32_t hash_of_node(struct nodes *nodes, struct slot *slot)
{
	char key[MOST_BYTES];
	struct blob blob = blob_of(slot);
	copy_bytes(nodes, slot, blob, 0, key_length(blob), key);
	return hash_of(nodes, key, key_length(blob));
}

/* --- slots ------------------------------------------------------------------------------------- */

/* A slot that is neither free nor anything else until its life is set; 0 if all are taken. */
static uint32_t take_slot(struct nodes *nodes, uint32_t home)
{
	struct shard *shard = shard_at(nodes, home);
	uint32_t number = shard->free;
	if (number) {
		shard->free = slot_at(nodes, number)->next;
		STEP();
		return number;
	}
	uint32_t used = atomic_load_explicit(&shard->used, memory_order_relaxed);
	if (used >> nodes->home_shift)
		return 0;
	atomic_store_explicit(&shard->used, used + 1, memory_order_release);
	STEP();
	return first_at_home(nodes, home) + used;
}

static void free_slot(struct nodes *nodes, uint32_t number, uint64_t generation)
{
	struct shard *shard = shard_at(nodes, home_of(nodes, number));
	struct slot *slot = slot_at(nodes, number);
	set_life(slot, FREE, generation);
	STEP();
	slot->next = shard->free;
	STEP();
	shard->free = number;
	STEP();
}

static void free_extents(struct nodes *nodes, uint32_t number)
{
	while (number) {
		struct slot *slot = slot_at(nodes, number);
		uint32_t next = slot->next;
		free_slot(nodes, number, generation_of(slot));
		number = next;
	}
}

/* Stores bytes in extents, the last first. Returns the first, or 0 if there are not enough slots. */
static uint32_t store_extents(struct nodes *nodes, uint32_t home, const char *bytes, uint32_t length)
{
	const uint32_t size = sizeof slot_at(nodes, 0)->extent;
	uint32_t first = 0;
	for (int64_t offset = (length - 1) / size * size; offset >= 0; offset -= size) {
		uint32_t number = take_slot(nodes, home);
		if (!number) {
			free_extents(nodes, first);
			return 0;
		}
		struct slot *slot = slot_at(nodes, number);
		memcpy(slot->extent, bytes + offset, length - offset < size ? length - offset : size);
		slot->next = first;
		STEP();
		set_life(slot, EXTENT, generation_of(slot));
		STEP();
		first = number;
	}
	return first;
}

/* Stores key and value where the node's present bytes are not, so that these stay whole. False: not enough slots. */
static bool store_blob(struct nodes *nodes, uint32_t number, bool slot_is_free, const char *key, int key_length,
		       const char *value, uint32_t value_length, struct blob *blob)
{
	char bytes[MOST_BYTES];
	uint32_t length = key_length > 0 ? key_length : 0;
	struct slot *slot = slot_at(nodes, number);
	*blob = (struct blob){.keyed = key_length + 1, .value = value_length};
	memcpy(bytes, key, length);
	memcpy(bytes + length, value, value_length);
	length += value_length;
	if (slot_is_free && length <= sizeof slot->bytes)
		memcpy(slot->bytes, bytes, length);
	else if (length)
		blob->extent = store_extents(nodes, home_of(nodes, number), bytes, length);
	STEP();
	return blob->extent || !length || (slot_is_free && length <= sizeof slot->bytes);
}

/* --- chains ------------------------------------------------------------------------------------ */

static uint32_t find_key(struct nodes *nodes, uint32_t hash, const char *key, uint32_t length)
{
	for (uint32_t number = *bucket_at(nodes, hash); number; number = slot_at(nodes, number)->next) {
		struct slot *slot = slot_at(nodes, number);
		if (slot->hash == hash && has_key(nodes, slot, key, length))
			return number;
	}
	return 0;
}

/* The word that refers to the node in its chain, or NULL. */
static uint32_t *find_link(struct nodes *nodes, uint32_t number)
{
	uint32_t *link = bucket_at(nodes, slot_at(nodes, number)->hash);
	while (*link && *link != number)
		link = &slot_at(nodes, *link)->next;
	return *link ? link : NULL;
}

static void link_node(struct nodes *nodes, uint32_t number)
{
	struct slot *slot = slot_at(nodes, number);
	uint32_t *bucket = bucket_at(nodes, slot->hash);
	slot->next = *bucket;
	STEP();
	*bucket = number;
	STEP();
}

static void unlink_node(struct nodes *nodes, uint32_t number)
{
	uint32_t *link = find_link(nodes, number);
	if (link)
		*link = slot_at(nodes, number)->next;
	STEP();
}

/* --- making and removing nodes ------------------------------------------------------------------ */

/* Makes a node with count 0: whoever dies before it is counted has not made it. 0 if the shard is full. */
static uint32_t make_node(struct nodes *nodes, uint32_t hash, uint32_t home, const char *key, int key_length,
			  const char *value, int value_length)
{
	struct shard *shard = shard_at(nodes, home);
	struct blob blob;
	uint32_t number = take_slot(nodes, home);
	if (!number)
		return 0;
	struct slot *slot = slot_at(nodes, number);
	if (!store_blob(nodes, number, true, key, key_length, value, value_length, &blob)) {
		free_slot(nodes, number, generation_of(slot));
		return 0;
	}
	set_blob(slot, blob);
	set_count(slot, 0);
	slot->watchers = 0;
	slot->hash = hash;
	STEP();
	set_life(slot, LIVE, generation_of(slot));
	STEP();
	link_node(nodes, number);
	shard->live++;
	return number;
}

static void end_life(struct slot *slot)
{
	uint64_t generation = generation_of(slot);
	if (generation == LAST_GENERATION)
		set_life(slot, RETIRED, generation);
	else
		set_life(slot, FREE, generation + 1);
	atomic_thread_fence(memory_order_release); /* for readers without lock: before the slot is reused */
	STEP();
}

/* Removes a node whose count is 0. */
static void remove_node(struct nodes *nodes, uint32_t number)
{
	struct slot *slot = slot_at(nodes, number);
	uint32_t extent = blob_of(slot).extent;
	if (blob_of(slot).keyed)
		unlink_node(nodes, number);
	end_life(slot);
	free_extents(nodes, extent);
	shard_at(nodes, home_of(nodes, number))->live--;
	if (state_of(slot) == FREE)
		free_slot(nodes, number, generation_of(slot));
}

#endif
