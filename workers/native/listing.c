#include <stdbool.h>
#include <stddef.h>

#include "listing.h"

#include "nodes.h"
#include "step.h"

/*
 * The first two words of a fuse_direntplus are nodeid and generation; those of an intent are nodeid and COUNTED. So the
 * entry that is being made begins with its own intent, and becomes one of the list by a single store, of `listed`:
 *
 *   payload   | entry | entry | ... | nodeid COUNTED           |
 *                                   ^ listed
 *   listed    | entry | entry | ... | nodeid COUNTED ......... | 0
 *                                                              ^ listed
 *
 * The word after the list is cleared before the list grows over the entry before it, so that what lay there (an older
 * reply, a file's contents) is never taken for an intent. The generation is set after that: in the list nobody reads it.
 * Settling is the same backwards: the last entry becomes an intent again, which rm_nodes_settle() gives back exactly once.
 */
enum { NODE, GENERATION, INTENT_SIZE = 16 };
#define COUNTED UINT64_MAX

/* fuse_direntplus, up to the name. */
struct entry {
	uint64_t node, generation;
	uint8_t times_and_attributes[112];
	uint64_t ino, offset;
	uint32_t name_length, type;
};
_Static_assert(sizeof(struct entry) == 152, "fuse_direntplus");

static uint64_t *words_at(uint8_t *payload, uint64_t at)
{
	return (uint64_t *)(payload + at);
}

uint64_t *rm_listing_begin(struct rm_journal *journal, uint8_t *payload)
{
	words_at(payload, 0)[NODE] = 0;
	STEP();
	journal->listed = 0;
	STEP();
	return words_at(payload, 0);
}

uint64_t *rm_listing_add(struct rm_journal *journal, uint8_t *payload, uint64_t room, uint32_t size)
{
	uint32_t next = journal->listed + size;
	bool fits = next + INTENT_SIZE <= room;

	if (fits)
		words_at(payload, next)[NODE] = 0;
	STEP();
	journal->listed = next;
	STEP();
	return fits ? words_at(payload, next) : NULL;
}

/* Where the last entry of the list begins; the list's end if it is damaged. */
static uint32_t last_entry(const uint8_t *payload, uint32_t listed)
{
	uint32_t at = 0, last = listed;

	while (at + sizeof(struct entry) < listed) {
		const struct entry *entry = (const struct entry *)(payload + at);

		if (entry->name_length > listed)
			return listed;
		last = at;
		at += (sizeof *entry + entry->name_length + 7) & ~7u;
	}
	return at == listed ? last : listed;
}

int rm_listing_settle(void *nodes, struct rm_journal *journal, uint8_t *payload, uint64_t room, uint64_t *node,
		      uint64_t *watchers)
{
	*watchers = 0;
	while (journal->listed != RM_NOT_LISTING && journal->listed <= room) {
		uint64_t *words = words_at(payload, journal->listed);

		if (journal->listed + INTENT_SIZE <= room && words[NODE]) {
			*node = words[NODE];
			int gone = rm_nodes_settle(nodes, words, watchers);

			return gone < 0 ? gone : 1;
		}
		uint32_t last = last_entry(payload, journal->listed);

		if (last == journal->listed)
			break;
		words_at(payload, last)[GENERATION] = COUNTED;
		STEP();
		journal->listed = last;
		STEP();
	}
	journal->listed = RM_NOT_LISTING;
	return 0;
}
