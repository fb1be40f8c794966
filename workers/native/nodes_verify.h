/*
 * rm_nodes_verify(): is the table what nodes.c says it is? Included once, by nodes.c.
 *
 * Every used slot must be found in exactly one way: a node by scanning (and in its chain exactly if it has a key),
 * an extent from its node, a free slot in its home's list. `found` has a byte a slot.
 */

struct verdict {
	unsigned char *found;
	char *message;
	int room;
};

#define FAULT(verdict, ...) (snprintf((verdict)->message, (verdict)->room, __VA_ARGS__), false)

static bool find_once(struct nodes *nodes, struct verdict *verdict, uint32_t number, const char *where)
{
	if (number >= nodes->capacity || number >= first_unused(nodes, home_of(nodes, number)))
		return FAULT(verdict, "slot %u in %s was never used", number, where);
	if (verdict->found[number]++)
		return FAULT(verdict, "slot %u found again in %s", number, where);
	return true;
}

static bool verify_chain(struct nodes *nodes, struct verdict *verdict, uint32_t shard, uint32_t bucket)
{
	uint32_t start = shard << 24 | bucket;
	for (uint32_t number = *bucket_at(nodes, start); number; number = slot_at(nodes, number)->next) {
		struct slot *slot = slot_at(nodes, number);
		if (!find_once(nodes, verdict, number, "a chain"))
			return false;
		if (state_of(slot) != LIVE || !blob_of(slot).keyed)
			return FAULT(verdict, "slot %u is in a chain without being a node with a key", number);
		if (slot->hash != hash_of_node(nodes, slot))
			return FAULT(verdict, "slot %u has another hash than its key", number);
		if (bucket_at(nodes, slot->hash) != bucket_at(nodes, start))
			return FAULT(verdict, "slot %u is in the wrong chain", number);
	}
	return true;
}

static bool verify_chains(struct nodes *nodes, struct verdict *verdict)
{
	for (uint32_t shard = 0; shard < nodes->shards; shard++)
		for (uint32_t bucket = 0; bucket < (1u << nodes->home_shift) / 4; bucket++)
			if (!verify_chain(nodes, verdict, shard, bucket))
				return false;
	return true;
}

static bool verify_extents(struct nodes *nodes, struct verdict *verdict, uint32_t owner, struct blob blob)
{
	int64_t length = blob_length(blob);
	for (uint32_t number = blob.extent; number; number = slot_at(nodes, number)->next) {
		if (!find_once(nodes, verdict, number, "extents"))
			return false;
		if (state_of(slot_at(nodes, number)) != EXTENT || home_of(nodes, number) != home_of(nodes, owner))
			return FAULT(verdict, "slot %u is no extent of node %u", number, owner);
		if (length <= 0)
			return FAULT(verdict, "node %u has too many extents", owner);
		length -= sizeof slot_at(nodes, number)->extent;
	}
	if (blob_length(blob) > MOST_BYTES || (blob.extent ? length > 0 : length > (int)sizeof slot_at(nodes, 0)->bytes))
		return FAULT(verdict, "node %u has fewer bytes than it says", owner);
	return true;
}

static bool verify_node(struct nodes *nodes, struct verdict *verdict, uint32_t number)
{
	struct slot *slot = slot_at(nodes, number);
	if (!count_of(slot))
		return FAULT(verdict, "node %u lives with count 0", number);
	if (verdict->found[number] != !!blob_of(slot).keyed)
		return FAULT(verdict, "node %u has a key and is in no chain", number);
	verdict->found[number] = 1;
	return verify_extents(nodes, verdict, number, blob_of(slot));
}

static bool verify_free_list(struct nodes *nodes, struct verdict *verdict, uint32_t shard)
{
	for (uint32_t number = shard_at(nodes, shard)->free; number; number = slot_at(nodes, number)->next) {
		if (!find_once(nodes, verdict, number, "a free list"))
			return false;
		if (state_of(slot_at(nodes, number)) != FREE || home_of(nodes, number) != shard)
			return FAULT(verdict, "slot %u does not belong to the free list of shard %u", number, shard);
	}
	return true;
}

static bool verify_shard(struct nodes *nodes, struct verdict *verdict, uint32_t number)
{
	struct shard *shard = shard_at(nodes, number);
	uint32_t live = 0, end = first_unused(nodes, number);
	if (shard->intent)
		return FAULT(verdict, "shard %u is in the middle of an intent", number);
	if (!verify_free_list(nodes, verdict, number))
		return false;
	for (uint32_t slot = first_at_home(nodes, number); slot < end; slot++) {
		if (state_of(slot_at(nodes, slot)) == LIVE) {
			live++;
			if (!verify_node(nodes, verdict, slot))
				return false;
		} else if (state_of(slot_at(nodes, slot)) == RETIRED) {
			verdict->found[slot] = 1;
		}
	}
	for (uint32_t slot = first_at_home(nodes, number); slot < end; slot++)
		if (!verdict->found[slot])
			return FAULT(verdict, "slot %u is lost", slot);
	return live == shard->live ? true : FAULT(verdict, "shard %u has %u nodes, counted %u", number, live, shard->live);
}

static bool verify(struct nodes *nodes, struct verdict *verdict)
{
	if (!verdict->found)
		return FAULT(verdict, "no memory");
	if (!verify_chains(nodes, verdict))
		return false;
	for (uint32_t shard = 0; shard < nodes->shards; shard++)
		if (!verify_shard(nodes, verdict, shard))
			return false;
	return true;
}

int rm_nodes_verify(void *base, char *message, int room)
{
	struct nodes *nodes = base;
	struct verdict verdict = {calloc(nodes->capacity, 1), message, room};
	for (uint32_t i = 0; i < nodes->shards; i++)
		lock_shard(nodes, i, FOR_EVER);
	bool good = verify(nodes, &verdict);
	for (uint32_t i = nodes->shards; i-- > 0;)
		unlock_shard(nodes, i);
	free(verdict.found);
	return !good;
}
