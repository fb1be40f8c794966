/* Which way the contents of open files take: one way a node. See opens.cdef. */
#ifndef RINGMOUNT_OPENS_H
#define RINGMOUNT_OPENS_H
#include <stdint.h>

#include "arena.h"

struct rm_opens {
	void *table;
	int fuse_fd;
	int tried;
	int refused;
	uint32_t workers_do;
	uint64_t own[3], tame[3];
};

struct rm_reply {
	uint32_t flags;
	int32_t backing_id;
};

int rm_opens_set_up(struct rm_opens *opens, void *table, int fuse_fd, uint32_t workers_do);
int rm_opens_add(struct rm_opens *opens, struct rm_journal *journal, uint64_t node, uint32_t open_flags, int fd,
		 uint32_t flags, uint32_t common, struct rm_reply *reply);
void rm_opens_release(struct rm_opens *opens, struct rm_journal *journal, uint64_t node);
void rm_opens_settle(struct rm_opens *opens, struct rm_journal *journal);
#endif
