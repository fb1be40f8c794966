/* Which requests C answers, and the entry point. */
#include "fast_call.h"

enum { OPCODES = 64 };

struct in_header {
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t uid, gid, pid;
	uint16_t total_extlen, padding;
};

static bool (*const ANSWERS[OPCODES])(struct call *) = {
	[1] = rm_do_lookup,
	[3] = rm_do_getattr,
	[4] = rm_do_setattr,
	[5] = rm_do_readlink,
	[6] = rm_do_symlink,
	[8] = rm_do_mknod,
	[9] = rm_do_mkdir,
	[10] = rm_do_unlink,
	[11] = rm_do_rmdir,
	[12] = rm_do_rename,
	[13] = rm_do_link,
	[14] = rm_do_open,
	[15] = rm_do_read,
	[16] = rm_do_write,
	[17] = rm_do_statfs,
	[18] = rm_do_release,
	[22] = rm_do_getxattr,
	[23] = rm_do_listxattr,
	[25] = rm_do_flush,
	[27] = rm_do_opendir,
	[28] = rm_do_readdir,
	[29] = rm_do_releasedir,
	[34] = rm_do_access,
	[35] = rm_do_create,
	[44] = rm_do_readdirplus,
	[45] = rm_do_rename2,
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
	struct in_header header;
	bool answered;

	memcpy(&header, journal->header, sizeof header);
	uint32_t opcode = header.opcode;

	if (opcode >= OPCODES || !ANSWERS[opcode] || !(fast->setup.opcodes >> opcode & 1) ||
	    (fast->setup.checks && (header.uid || header.gid) && !(fast->setup.unchecked >> opcode & 1)))
		return false;
	call.node = header.nodeid;
	call.uid = header.uid;
	call.gid = header.gid;
	call.plain = !header.total_extlen;
	__atomic_store_n(&journal->state, RM_STARTED, __ATOMIC_RELEASE);
	STEP();
	answered = ANSWERS[opcode](&call);
	STEP();
	__atomic_store_n(&journal->state, answered ? RM_ANSWERED : RM_DELIVERED, __ATOMIC_RELEASE);
	STEP();
	return answered;
}
