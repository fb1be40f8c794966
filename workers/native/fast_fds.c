/* A worker's descriptors of nodes: kept by nodeid, the one that was not used for longest goes first. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "fast_call.h"
#include "nodes.h"
#include "system.h"

#define NONE UINT32_MAX

static uint32_t bucket_of(const struct rm_fast *fast, uint64_t node)
{
	return (uint32_t)((node * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & fast->mask;
}

struct rm_fast *rm_fast_new(uint32_t limit)
{
	struct rm_fast *fast = calloc(1, sizeof *fast);
	uint32_t buckets = 16;

	if (!fast)
		return NULL;
	while (buckets < limit)
		buckets *= 2;
	fast->limit = limit;
	fast->mask = buckets - 1;
	fast->newest = fast->oldest = NONE;
	fast->buckets = malloc(buckets * sizeof *fast->buckets);
	fast->slots = calloc(limit, sizeof *fast->slots);
	if (!fast->buckets || !fast->slots) {
		rm_fast_free(fast);
		return NULL;
	}
	memset(fast->buckets, 0xff, buckets * sizeof *fast->buckets);
	for (uint32_t i = 0; i < limit; i++)
		fast->slots[i].chain = i + 1 < limit ? i + 1 : NONE;
	return fast;
}

void rm_fast_free(struct rm_fast *fast)
{
	free(fast->buckets);
	free(fast->slots);
	free(fast);
}

uint32_t rm_fast_count(const struct rm_fast *fast)
{
	return fast->count;
}

static void unlist(struct rm_fast *fast, uint32_t i)
{
	struct slot *slot = &fast->slots[i];

	if (slot->newer == NONE)
		fast->newest = slot->older;
	else
		fast->slots[slot->newer].older = slot->older;
	if (slot->older == NONE)
		fast->oldest = slot->newer;
	else
		fast->slots[slot->older].newer = slot->newer;
}

static void list_first(struct rm_fast *fast, uint32_t i)
{
	struct slot *slot = &fast->slots[i];

	slot->newer = NONE;
	slot->older = fast->newest;
	if (fast->newest == NONE)
		fast->oldest = i;
	else
		fast->slots[fast->newest].newer = i;
	fast->newest = i;
}

static uint32_t find(const struct rm_fast *fast, uint64_t node)
{
	uint32_t i = fast->buckets[bucket_of(fast, node)];

	while (i != NONE && fast->slots[i].node != node)
		i = fast->slots[i].chain;
	return i;
}

int rm_fast_get(struct rm_fast *fast, uint64_t node)
{
	uint32_t i = find(fast, node);

	if (i == NONE)
		return -1;
	if (i != fast->newest && !fast->slots[i].held) {
		unlist(fast, i);
		list_first(fast, i);
	}
	return fast->slots[i].fd;
}

int rm_fast_drop(struct rm_fast *fast, uint64_t node)
{
	uint32_t *at = &fast->buckets[bucket_of(fast, node)];

	while (*at != NONE && fast->slots[*at].node != node)
		at = &fast->slots[*at].chain;
	if (*at == NONE)
		return -1;
	uint32_t i = *at;

	*at = fast->slots[i].chain;
	if (fast->slots[i].held) {
		fast->held--;
	} else {
		unlist(fast, i);
		fast->count--;
	}
	fast->slots[i].chain = fast->free;
	fast->free = i;
	return fast->slots[i].fd;
}

int rm_fast_oldest(struct rm_fast *fast)
{
	return fast->oldest == NONE ? -1 : rm_fast_drop(fast, fast->slots[fast->oldest].node);
}

int rm_fast_put(struct rm_fast *fast, uint64_t node, int fd)
{
	int evicted = fast->free == NONE ? rm_fast_oldest(fast) : -1;
	uint32_t i = fast->free, *bucket = &fast->buckets[bucket_of(fast, node)];

	fast->free = fast->slots[i].chain;
	fast->slots[i].node = node;
	fast->slots[i].fd = fd;
	fast->slots[i].held = false;
	fast->slots[i].chain = *bucket;
	*bucket = i;
	list_first(fast, i);
	fast->count++;
	return evicted;
}

void rm_fast_let_go(struct rm_fast *fast)
{
	for (uint32_t i = 0; i < fast->limit && fast->held; i++) {
		if (!fast->slots[i].held)
			continue;
		fast->slots[i].held = false;
		list_first(fast, i);
		fast->count++;
		fast->held--;
	}
}

/* --- for one request -------------------------------------------------------------------------------------------- */

/* Keeps a node's descriptor as Descriptors.keep does. */
void rm_keep(struct call *call, uint64_t node, int fd)
{
	if (rm_fast_get(call->fast, node) >= 0 || rm_nodes_watch(call->setup->nodes, node, call->setup->worker)) {
		close(fd);
		return;
	}
	if ((uint32_t)fd < call->setup->fd_owners_size)
		call->setup->fd_owners[fd] = (uint16_t)(call->setup->worker + 1);
	int evicted = rm_fast_put(call->fast, node, fd);

	if (evicted >= 0) {
		disown(call, evicted);
		close(evicted);
	}
}

/* A node's object, opened by its file handle. */
int rm_open_node(const struct call *call, uint64_t node, int flags)
{
	char key[KEY_MOST];
	int length = rm_nodes_key(call->setup->nodes, node, key, sizeof key);

	if (length <= HANDLE_AT || key[0] != 'h')
		return -ESTALE;
	int top = flags & O_PATH ? call->setup->top : call->setup->files_top;

	return rm_open_by_handle(top, key + HANDLE_AT, length - HANDLE_AT, flags | O_CLOEXEC);
}

/* Keeps the descriptor of a node that was removed, which is taken over, until the kernel forgets the node. */
void rm_hold(struct call *call, uint64_t node, int fd)
{
	struct rm_fast *fast = call->fast;

	rm_keep(call, node, fd);
	uint32_t i = find(fast, node);

	if (i == NONE || fast->slots[i].held || fast->held >= fast->limit / 2)
		return;
	unlist(fast, i);
	fast->slots[i].held = true;
	fast->held++;
	fast->count--;
}

/* The O_PATH descriptor of a folder whose objects are opened by their handles; -1: it is Python's. */
int rm_folder(struct call *call, uint64_t node)
{
	char key[KEY_MOST];

	if (node == ROOT)
		return call->setup->root;
	if (rm_nodes_key(call->setup->nodes, node, key, sizeof key) <= HANDLE_AT || key[0] != 'h')
		return -1;
	int fd = rm_fast_get(call->fast, node);

	if (fd >= 0)
		return fd;
	fd = rm_open_node(call, node, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	rm_keep(call, node, fd);
	return rm_fast_get(call->fast, node);
}

/* A copy of the descriptor by which the node is open. Another worker may close it at any instant, and its number be used
   for another file: a handle that was live before and is after the copy was made has not ended in between. */
static int copy_of_open(struct call *call, uint64_t node)
{
	const struct recent *recent = &call->fast->recent[node % RECENT];
	struct rm_handle before, after;

	if (recent->node != node || rm_handles_get(call->setup->handles, recent->fh, &before) || before.node != node ||
	    before.fd < 0 || before.flags & O_PATH)
		return -1;
	int fd = fcntl(before.fd, F_DUPFD_CLOEXEC, 0);

	if (fd >= 0 && rm_handles_get(call->setup->handles, recent->fh, &after)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* A descriptor of any node. Most files are used once, so none is kept for it. */
struct borrowed rm_borrow(struct call *call, uint64_t node)
{
	int fd = node == ROOT ? call->setup->root : rm_fast_get(call->fast, node);

	if (fd >= 0)
		return (struct borrowed){ .fd = fd, .path = true };
	fd = copy_of_open(call, node);
	if (fd >= 0)
		return (struct borrowed){ .fd = fd, .opened = true };
	return (struct borrowed){ .fd = rm_open_node(call, node, O_PATH | O_NOFOLLOW), .opened = true, .path = true };
}

void rm_give_back(struct borrowed borrowed)
{
	if (borrowed.opened && borrowed.fd >= 0)
		close(borrowed.fd);
}
