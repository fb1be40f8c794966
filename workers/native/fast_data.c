/* Open files: opened, read, written, closed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fast_call.h"

enum { WRITE_KILL_SUIDGID = 1 << 2, RELEASE_FLOCK_UNLOCK = 1 << 1 };
enum { FMODE_EXEC = 0x20, LARGEFILE = 0x8000 };
#define RWF_NOAPPEND_FLAG 0x20 /* Linux 6.9 */

struct io_in {                   /* fuse_read_in and fuse_write_in */
	uint64_t fh, offset;
	uint32_t size, io_flags;
	uint64_t lock_owner;
	uint32_t flags, padding;
};
_Static_assert(sizeof(struct io_in) == 40, "fuse_read_in, fuse_write_in");

struct write_out {
	uint32_t size, padding;
};

/* How the kernel shall treat an open file, as Files.how and Opens.add say. 0, or an errno. */
static int choose_way(struct call *call, uint64_t node, uint32_t flags, int fd, struct open_out *out)
{
	const struct rm_fast_setup *setup = call->setup;
	bool reads = (flags & O_ACCMODE) == O_RDONLY;
	struct rm_reply reply;
	struct stat st;

	out->flags = reads ? setup->read_reply : setup->written_reply;
	if (!setup->opens) {
		out->flags |= setup->open_reply;
		return 0;
	}
	bool offered = setup->offers && (reads || (!fstat(fd, &st) && !(st.st_mode & (S_ISUID | S_ISGID))));
	int error = rm_opens_add(setup->opens, call->journal, node, flags, offered ? fd : -1, out->flags,
				 setup->open_reply, &reply);

	if (error)
		return -error;
	out->flags = reply.flags;
	out->backing_id = reply.backing_id;
	return 0;
}

/* Records `fd`, a file with this inode number, as an open file. 0, or an errno: then it stays the caller's. */
int rm_opened(struct call *call, uint64_t node, uint32_t flags, int fd, uint64_t inode, struct open_out *out)
{
	if (fd >= call->setup->fd_limit)
		return ENFILE;
	int64_t fh = rm_handles_add(call->setup->handles, call->setup->worker, node, flags, fd, inode, call->journal->intent);

	if (fh < 0)
		return (int)-fh;
	*out = (struct open_out){ .fh = (uint64_t)fh };
	int error = choose_way(call, node, flags, fd, out);

	if (error) {
		rm_handles_remove(call->setup->handles, call->setup->worker, (uint64_t)fh);
		return error;
	}
	call->fast->recent[node % RECENT] = (struct recent){ node, (uint64_t)fh };
	return 0;
}

/* Plain opens; what truncates, appends, syncs or goes past the page cache is Python's. */
bool rm_do_open(struct call *call)
{
	const struct open_in *in = call->in;
	struct open_out *out = (struct open_out *)call->payload;
	struct stat st = { .st_ino = 0 };
	uint32_t plain = O_ACCMODE | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | LARGEFILE | FMODE_EXEC;

	/* The first one is Python's, which tells if the kernel does not take it. */
	if (in->flags & ~plain || (call->setup->opens && !call->setup->opens->tried))
		return false;
	int fd = rm_open_node(call, call->node, beneath(call, in->flags) | call->setup->no_trace);

	if (fd < 0)
		return false;
	if (rm_handles_is_lasting(call->setup->handles) && (fstat(fd, &st) || !st.st_nlink)) {
		close(fd);               /* what has no name is to be kept */
		return false;
	}
	if (rm_opened(call, call->node, in->flags, fd, st.st_ino, out)) {
		close(fd);
		return false;
	}
	return answer(call, sizeof *out);
}

bool rm_do_release(struct call *call)
{
	const struct release_in *in = call->in;

	if (in->release_flags & RELEASE_FLOCK_UNLOCK)
		return false;
	if (call->setup->opens)
		rm_opens_release(call->setup->opens, call->journal, call->node);
	return answer_release(call, in->fh);
}

/* Closing any descriptor of the file makes the filesystem beneath report what it has kept back. */
bool rm_do_flush(struct call *call)
{
	const struct release_in *in = call->in;
	int fd = handle_fd(call, in->fh), copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		return false;
	return close(copy) ? fail(call, errno) : answer(call, 0);
}

/* What is in the page cache is read at once; the rest, and every error, is Python's. */
bool rm_do_read(struct call *call)
{
	const struct io_in *in = call->in;
	uint32_t done = 0;
	ssize_t got;
	int fd = handle_fd(call, in->fh);

	if (fd < 0 || in->size > call->room || in->offset >> 63)
		return false;
	do {
		struct iovec iov = { call->payload + done, in->size - done };

		got = preadv2(fd, &iov, 1, (off_t)(in->offset + done), call->setup->read_flags);
		if (got < 0)
			return false;
		done += (uint32_t)got;
	} while (got && done < in->size);
	return answer(call, done);
}

bool rm_do_write(struct call *call)
{
	const struct io_in *in = call->in;
	int fd = handle_fd(call, in->fh);
	int how = in->flags & O_APPEND ? RWF_APPEND : call->setup->knows_noappend ? RWF_NOAPPEND_FLAG : 0;
	struct iovec iov = { call->payload, in->size };
	struct stat st;

	if (fd < 0 || in->size > call->journal->payload_size || in->offset >> 63)
		return false;
	if (in->io_flags & WRITE_KILL_SUIDGID && (fstat(fd, &st) || st.st_mode & (S_ISUID | S_ISGID)))
		return false;
	bool appends = how == RWF_APPEND;

	if (appends) {
		if (fstat(fd, &st))
			return false;
		rm_begin(call->journal, (uint64_t)st.st_size, 0);
	}
	ssize_t put = pwritev2(fd, &iov, 1, (off_t)in->offset, how);

	if (put < 0) {
		rm_not_made(call->journal);
		return false;
	}
	if (appends)
		rm_made(call->journal, put);
	*(struct write_out *)call->payload = (struct write_out){ (uint32_t)put, 0 };
	return answer(call, sizeof(struct write_out));
}
