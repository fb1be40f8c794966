#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>

#include "nodes.h"
#include "opens.h"
#include "step.h"
#include "system.h"

/* include/uapi/linux/fuse.h, 7.40 */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
_Static_assert(sizeof(struct backing_map) == 16, "fuse_backing_map");
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)
enum { DIRECT_IO = 1 << 0, NONSEEKABLE = 1 << 2, STREAM = 1 << 4, NOFLUSH = 1 << 5, PARALLEL_DIRECT_WRITES = 1 << 6,
       PASSTHROUGH = 1 << 7 };
enum { WITH_PASSTHROUGH = DIRECT_IO | NOFLUSH | PARALLEL_DIRECT_WRITES }; /* FOPEN_PASSTHROUGH_MASK */
#define CAP_FSETID (UINT64_C(1) << 4)

int rm_opens_set_up(struct rm_opens *opens, void *table, int fuse_fd, uint32_t workers_do)
{
	*opens = (struct rm_opens){ .table = table, .fuse_fd = fuse_fd, .workers_do = workers_do };
	int error = rm_capabilities(opens->own);

	memcpy(opens->tame, opens->own, sizeof opens->own);
	opens->tame[0] &= ~CAP_FSETID;
	return error;
}

/*
 * The kernel writes to the backing file with the rights of whoever made the id (fuse_backing.cred). With CAP_FSETID the
 * write would leave S_ISUID and S_ISGID alone, whoever the caller is: so it must not be there at that moment.
 */
static int backing_open(struct rm_opens *opens, int fd)
{
	struct backing_map map = { .fd = fd };
	bool is_tame = opens->own[0] == opens->tame[0];

	if (!is_tame && rm_set_capabilities(opens->tame))
		return -EPERM;
	int id = ioctl(opens->fuse_fd, BACKING_OPEN, &map), error = errno;

	if (!is_tame)
		rm_set_capabilities(opens->own);
	return id < 0 ? -error : id;
}

/* ENOENT, for an id that is closed already, does no harm: the kernel gives numbers out in a circle. */
static void backing_close(struct rm_opens *opens, int32_t id)
{
	uint32_t number = (uint32_t)id;

	ioctl(opens->fuse_fd, BACKING_CLOSE, &number);
}

static int32_t id_of(struct rm_opens *opens, int64_t way)
{
	int32_t id = 0;

	return way > 0 && rm_nodes_value(opens->table, (uint64_t)way, (char *)&id, sizeof id) == sizeof id ? id : 0;
}

static int64_t way_of(struct rm_opens *opens, uint64_t node)
{
	return rm_nodes_find(opens->table, (const char *)&node, sizeof node);
}

/* Closes the id that this request has to do with, unless open files of the node have it. */
static void tidy(struct rm_opens *opens, struct rm_journal *journal)
{
	if (journal->backing && id_of(opens, way_of(opens, journal->open_node)) != journal->backing)
		backing_close(opens, journal->backing);
	journal->backing = 0;
	STEP();
}

int rm_opens_add(struct rm_opens *opens, struct rm_journal *journal, uint64_t node, uint32_t open_flags, int fd,
		 uint32_t flags, uint32_t common, struct rm_reply *reply)
{
	/* A stream has no offsets, which the kernel's own reading would not know. */
	bool offered = fd >= 0 && !((flags | common) & (NONSEEKABLE | STREAM));
	int32_t id = offered ? backing_open(opens, fd) : 0;

	opens->tried |= offered;
	journal->open_node = node;
	STEP();
	if (id < 0) {
		opens->refused = -id;
		id = 0;
	}
	journal->backing = id;
	STEP();
	int64_t way = rm_nodes_take(opens->table, (const char *)&node, sizeof node, (const char *)&id, sizeof id,
				    journal->open_intent);
	/* Of files opened at the same time, the first decided: this one's id may be superfluous. */
	tidy(opens, journal);
	if (way < 0)
		return (int)way;
	reply->backing_id = id_of(opens, way);
	if (!reply->backing_id)
		reply->flags = flags | common;
	else if (offered && !(open_flags & opens->workers_do))
		reply->flags = (flags & WITH_PASSTHROUGH) | PASSTHROUGH;
	else                      /* reads and writes come to the workers, mappings are of the backing file */
		reply->flags = ((flags | common) & WITH_PASSTHROUGH) | PASSTHROUGH | DIRECT_IO;
	return 0;
}

static void give_back(struct rm_opens *opens, struct rm_journal *journal)
{
	journal->backing = id_of(opens, (int64_t)journal->open_intent[0]);
	STEP();
	rm_nodes_return(opens->table, journal->open_intent);
	tidy(opens, journal);
}

void rm_opens_release(struct rm_opens *opens, struct rm_journal *journal, uint64_t node)
{
	int64_t way = rm_nodes_was_returned(journal->open_intent) ? 0 : way_of(opens, node);

	if (!way)
		return;
	journal->open_node = node;
	STEP();
	rm_nodes_own((uint64_t)way, journal->open_intent);
	give_back(opens, journal);
}

void rm_opens_settle(struct rm_opens *opens, struct rm_journal *journal)
{
	if (rm_nodes_is_counted(opens->table, journal->open_intent))
		give_back(opens, journal);
	else
		tidy(opens, journal);
}
