#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "trace.h"

enum { OP_SYMLINK = 6, OP_RENAME = 12, OP_READ = 15, OP_WRITE = 16, OP_RENAME2 = 45 };
enum { OFFSET_AT = 128 + 8, COMMAND_AGE = 50000000 };

/* LOOKUP SYMLINK MKNOD MKDIR UNLINK RMDIR RENAME LINK SETXATTR GETXATTR REMOVEXATTR CREATE RENAME2: their payload begins
   with a name, and what follows that may be secret. */
static const uint64_t NAMED = 1ull << 1 | 1ull << 6 | 1ull << 8 | 1ull << 9 | 1ull << 10 | 1ull << 11 | 1ull << 12 |
			      1ull << 13 | 1ull << 21 | 1ull << 22 | 1ull << 24 | 1ull << 35 | 1ull << 45;

static uint32_t copy_names(uint8_t *to, const uint8_t *from, uint32_t size, int count)
{
	uint32_t at = 0;

	while (at < size && at < RM_TRACE_NAME && count) {
		to[at] = from[at];
		if (!from[at++])
			count--;
	}
	return at;
}

/* The caller waits for the answer, which is not out: it is there, and its command is what it was. That of the last caller is
   kept for a moment, since a file is not opened for every request. */
static void note_command(struct rm_trace *trace, struct rm_trace_record *record, uint64_t now)
{
	if (trace->known_pid != record->pid || now - trace->known_at > COMMAND_AGE) {
		char path[32];

		memset(trace->known, 0, sizeof trace->known);
		snprintf(path, sizeof path, "/proc/%u/comm", record->pid);
		int fd = record->pid ? open(path, O_RDONLY | O_CLOEXEC) : -1;

		if (fd >= 0) {
			ssize_t got = read(fd, trace->known, sizeof trace->known);

			if (got > 0 && trace->known[got - 1] == '\n')
				trace->known[got - 1] = 0;
			close(fd);
		}
		trace->known_pid = record->pid;
		trace->known_at = now;
	}
	memcpy(record->command, trace->known, sizeof record->command);
}

void rm_trace(const struct rm_arena *arena, struct rm_worker *worker, uint32_t index, uint64_t now)
{
	const struct rm_journal *journal = &arena->journal[index];
	const uint8_t *page = rm_entry_page(arena, index);
	const struct { uint32_t len, opcode; uint64_t unique, nodeid; uint32_t uid, gid, pid; } *header =
		(const void *)journal->header;
	uint64_t took = now - journal->delivered_ns;

	if (took < worker->traced_from_ns || (worker->traced_errors && !journal->error))
		return;
	struct rm_trace *trace = &arena->traces[journal->worker];
	uint64_t number = __atomic_load_n(&trace->next, __ATOMIC_RELAXED);
	struct rm_trace_record *record = &trace->records[number % RM_TRACE_RECORDS];

	record->delivered_ns = journal->delivered_ns;
	record->took_ns = took;
	record->unique = header->unique;
	record->nodeid = header->nodeid;
	record->opcode = header->opcode;
	record->pid = header->pid;
	record->uid = header->uid;
	record->error = journal->error;
	record->size = header->opcode == OP_WRITE ? journal->payload_size : journal->size;
	record->offset = 0;
	if (header->opcode == OP_READ || header->opcode == OP_WRITE)
		memcpy(&record->offset, page + OFFSET_AT, sizeof record->offset);
	record->named = 0;
	if (header->opcode < 64 && NAMED >> header->opcode & 1) {
		bool two = header->opcode == OP_RENAME || header->opcode == OP_RENAME2 || header->opcode == OP_SYMLINK;

		record->named = copy_names(record->name, page + RM_SAVED_AT, journal->saved, two ? 2 : 1);
	}
	note_command(trace, record, now);
	__atomic_store_n(&trace->next, number + 1, __ATOMIC_RELEASE);
}
