/* A READDIRPLUS reply while it is made. See listing.cdef. */
#ifndef RINGMOUNT_LISTING_H
#define RINGMOUNT_LISTING_H
#include <stdint.h>

#include "arena.h"

uint64_t *rm_listing_begin(struct rm_journal *journal, uint8_t *payload);
uint64_t *rm_listing_add(struct rm_journal *journal, uint8_t *payload, uint64_t room, uint32_t size);
int rm_listing_settle(void *nodes, struct rm_journal *journal, uint8_t *payload, uint64_t room, uint64_t *node,
		      uint64_t *watchers);
#endif
