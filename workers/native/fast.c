/* Which requests C answers, and the entry point. */
#include "fast_call.h"

enum { OPCODES = 64 };

static bool (*const ANSWERS[OPCODES])(struct call *) = {
	[1] = rm_do_lookup,
	[3] = rm_do_getattr,
	[14] = rm_do_open,
	[15] = rm_do_read,
	[16] = rm_do_write,
	[18] = rm_do_release,
	[22] = rm_do_getxattr,
	[25] = rm_do_flush,
	[27] = rm_do_opendir,
	[28] = rm_do_readdir,
	[29] = rm_do_releasedir,
	[44] = rm_do_readdirplus,
};

void rm_fast_set_up(struct rm_fast *fast, const struct rm_fast_setup *setup)
{
	fast->setup = *setup;
}

bool rm_fast_serve(struct rm_fast *fast, const struct rm_arena *arena, uint32_t index)
{
	uint8_t *page = rm_entry_page(arena, index);
	struct rm_journal *journal = &arena->journal[index];
	struct call call = { .fast = fast, .setup = &fast->setup, .journal = journal, .in = page + 128,
			     .payload = page + RM_ENTRY_PAGE, .room = arena->payload };
	uint32_t opcode, ids[2];         /* uid, gid */
	bool answered;

	memcpy(&opcode, journal->header + 4, sizeof opcode);
	memcpy(&call.node, journal->header + 16, sizeof call.node);
	memcpy(ids, journal->header + 24, sizeof ids);
	if (opcode >= OPCODES || !ANSWERS[opcode] || !(fast->setup.opcodes >> opcode & 1) ||
	    (fast->setup.root_only && (ids[0] || ids[1])))
		return false;
	__atomic_store_n(&journal->state, RM_STARTED, __ATOMIC_RELEASE);
	STEP();
	answered = ANSWERS[opcode](&call);
	STEP();
	__atomic_store_n(&journal->state, answered ? RM_ANSWERED : RM_DELIVERED, __ATOMIC_RELEASE);
	STEP();
	return answered;
}
