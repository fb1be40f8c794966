#include "given.h"

#include <stdatomic.h>
#include <time.h>

#include "ring.h"

enum { FOLDERS = 1 << 14, LOCKED_AT_MOST = 1000 /* ms */ };
#define SECOND INT64_C(1000000000)
#define COARSEST (SECOND / 20) /* of clocks that date changes, with room to spare */

struct given {
	_Atomic uint32_t lock;     /* 0: free; else when it was locked, ms: a dead owner's is taken over */
	uint32_t names, lost;      /* given with nodes; looked up nevertheless */
	bool whole;                /* the kernel was given all names */
	bool stamped;              /* `modified` and `changed` hold for all that the kernel keeps of the listing */
	bool settled;              /* the opening that stamped it was answered: there was a listing since */
	bool kept;                 /* the kernel was told to keep the listing */
	uint64_t node;             /* 0: nothing is known */
	uint64_t next;             /* the offset up to which it has the names */
	uint64_t since;            /* they are not older than this */
	int64_t modified, changed; /* ns */
};
_Static_assert(sizeof(struct given) == 56 || sizeof(struct given) == 64, "a cache line");

size_t rm_given_size(void)
{
	return FOLDERS * sizeof(struct given);
}

/* The folder's record, locked; NULL if another worker has it: a hint is not worth waiting for. */
static struct given *take(void *table, uint64_t node)
{
	struct given *given = (struct given *)table + ((node * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (FOLDERS - 1));
	uint32_t now = (uint32_t)(rm_now() / 1000000) | 1, owner = 0;

	if (atomic_compare_exchange_strong(&given->lock, &owner, now))
		return given;
	if (now - owner > LOCKED_AT_MOST && atomic_compare_exchange_strong(&given->lock, &owner, now)) {
		given->node = 0; /* half written, perhaps */
		return given;
	}
	return NULL;
}

static void release(struct given *given)
{
	atomic_store_explicit(&given->lock, 0, memory_order_release);
}

/* As `take`, but only if something is known of the folder. */
static struct given *take_known(void *table, uint64_t node)
{
	struct given *given = take(table, node);

	if (given && given->node != node) {
		release(given);
		return NULL;
	}
	return given;
}

static struct given *take_new(void *table, uint64_t node)
{
	struct given *given = take(table, node);

	if (given && given->node != node) {
		given->names = given->lost = 0;
		given->whole = given->stamped = given->settled = given->kept = false;
		given->next = given->since = 0;
		given->node = node;
	}
	return given;
}

static bool is_fresh(const struct given *given, uint64_t lifetime)
{
	return given->whole && rm_now() - given->since < lifetime;
}

bool rm_given_whole(void *table, uint64_t node, uint64_t lifetime)
{
	struct given *given = take_known(table, node);

	if (!given)
		return false;
	bool fresh = is_fresh(given, lifetime);

	release(given);
	return fresh;
}

void rm_given_names(void *table, uint64_t node, uint64_t begin, uint64_t end, uint32_t names, uint64_t since)
{
	struct given *given = begin ? take_known(table, node) : take_new(table, node);

	if (!given)
		return;
	if (begin == 0) {
		given->names = given->lost = 0;
		given->next = 0;
		given->since = since;
		given->whole = false;
	}
	if (given->next == begin) {
		given->next = end;
		given->names += names;
	}
	release(given);
}

void rm_given_end(void *table, uint64_t node, uint64_t offset)
{
	struct given *given = take_known(table, node);

	if (!given)
		return;
	given->whole = given->next == offset;
	given->settled = true;
	release(given);
}

void rm_given_lookup(void *table, uint64_t node)
{
	struct given *given = take_known(table, node);

	if (!given)
		return;
	if (given->whole && ++given->lost * 8 > given->names)
		given->whole = false;
	release(given);
}

static int64_t nanoseconds(struct timespec time)
{
	return time.tv_sec * SECOND + time.tv_nsec;
}

uint32_t rm_given_open(void *table, uint64_t node, uint64_t lifetime, const struct stat *st)
{
	int64_t modified = nanoseconds(st->st_mtim), changed = nanoseconds(st->st_ctim);
	struct timespec now;
	struct given *given = lifetime ? take_new(table, node) : NULL;

	if (!given)
		return 0;
	bool same = given->stamped && given->modified == modified && given->changed == changed;
	bool again = same && given->settled && is_fresh(given, lifetime);
	uint32_t flags = !again ? 0 : given->kept ? FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE : FOPEN_CACHE_DIR;

	given->kept = again;
	if (!same) {
		clock_gettime(CLOCK_REALTIME, &now);
		given->modified = modified;
		given->changed = changed;
		given->stamped = modified + COARSEST < nanoseconds(now) && changed + COARSEST < nanoseconds(now);
		given->settled = false;
	}
	release(given);
	return flags;
}
