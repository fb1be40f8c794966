/* Requests of a passthrough that are answered without Python. See fast.cdef. */
#ifndef RINGMOUNT_FAST_H
#define RINGMOUNT_FAST_H
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "opens.h"

struct rm_fast_setup {
	void *nodes;
	void *given;
	void *handles;
	uint16_t *fd_owners;
	uint32_t fd_owners_size;
	int worker;
	int top;
	int root;
	int mount;
	uint64_t device;
	uint64_t attr_valid;
	uint64_t entry_valid;
	uint64_t missing_valid;
	uint32_t attr_valid_nsec;
	uint32_t entry_valid_nsec;
	uint32_t missing_valid_nsec;
	uint32_t open_reply;
	uint32_t read_reply;
	uint32_t written_reply;
	uint32_t folder_reply;
	int files_top;
	int offers;
	struct rm_opens *opens;
	int no_trace;
	int read_flags;
	uint32_t *umask;
	uint32_t checks;
	uint32_t switches;
	uint32_t uid;
	uint32_t gid;
	uint64_t capabilities[3];
	int fd_limit;
	int writeback;
	int knows_noappend;
	int coherent;
	uint64_t opcodes;
	uint64_t unchecked;
};

struct rm_fast;

struct rm_fast *rm_fast_new(uint32_t limit);
void rm_fast_free(struct rm_fast *fast);
void rm_fast_set_up(struct rm_fast *fast, const struct rm_fast_setup *setup);
int rm_fast_get(struct rm_fast *fast, uint64_t node);
int rm_fast_put(struct rm_fast *fast, uint64_t node, int fd);
int rm_fast_drop(struct rm_fast *fast, uint64_t node);
int rm_fast_oldest(struct rm_fast *fast);
void rm_fast_let_go(struct rm_fast *fast);
uint32_t rm_fast_count(const struct rm_fast *fast);
bool rm_fast_serve(struct rm_fast *fast, const struct rm_arena *arena, uint32_t index);
#endif
