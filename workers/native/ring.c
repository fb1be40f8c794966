#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "fast.h"
#include "ring.h"
#include "trace.h"

/* The kernel's ABI (include/uapi/linux/fuse.h, 7.42), as far as C needs it; workers/abi.py has it whole and
   tests/pure/test_abi.py checks it against the running kernel. */
enum { URING_CMD = 46, CMD_REGISTER = 1, CMD_COMMIT_AND_FETCH = 2 };
enum { OP_READ = 15, OP_WRITE = 16, OP_FORGET = 2, OP_INTERRUPT = 36, OP_BATCH_FORGET = 42 };
enum { MAX_ROUNDS = 64 };
enum { HEADER_SIZE = 288, OP_IN = 128, OP_IN_SIZE = 128, OUT_HEADER = 16, IN_HEADER = 40 };

struct in_header {
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t uid, gid, pid;
	uint16_t total_extlen, padding;
};

struct out_header {
	uint32_t len;
	int32_t error;
	uint64_t unique;
};

struct entry_header {            /* fuse_uring_req_header */
	uint8_t in_out[OP_IN];
	uint8_t op_in[OP_IN_SIZE];
	uint64_t flags, commit_id;
	uint32_t payload_size, padding;
	uint64_t reserved;
};
_Static_assert(sizeof(struct entry_header) == HEADER_SIZE, "fuse_uring_req_header");
_Static_assert(sizeof(struct in_header) == IN_HEADER, "fuse_in_header");
_Static_assert(sizeof(struct rm_journal) == 256, "a journal record is four cache lines");

struct uring_command {           /* fuse_uring_cmd_req, at offset 48 of the SQE */
	uint64_t flags, commit_id;
	uint16_t qid;
	uint8_t padding[6];
};

struct rm_ring {
	struct io_uring ring;
	struct rm_arena arena;
	struct rm_worker *worker;
	int fuse_fd;
	struct iovec (*iov)[2];  /* per entry: read by the kernel at submission only */
	struct rm_fast *fast;
	uint32_t *answered;      /* entries that `fast` has answered in this turn */
	int nanswered;
};

uint64_t rm_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- statistics ---------------------------------------------------------------------------------------- */

/* Log-linear, as HDR histograms are: sixteen linear buckets of 128 ns, then eight per octave. */
int rm_bucket(uint64_t ns)
{
	uint64_t units = ns >> 7;

	if (units < 16)
		return (int)units;
	int exponent = 63 - __builtin_clzll(units);
	int bucket = 16 + (exponent - 4) * 8 + (int)((units >> (exponent - 3)) & 7);

	return bucket < RM_BUCKETS ? bucket : RM_BUCKETS - 1;
}

uint64_t rm_bucket_floor(int bucket)
{
	if (bucket < 16)
		return (uint64_t)bucket << 7;
	int exponent = 4 + (bucket - 16) / 8;

	return (8u + (uint64_t)(bucket - 16) % 8) << (exponent - 3) << 7;
}

static void count_reply(const struct rm_arena *arena, struct rm_worker *worker, uint32_t index, uint64_t now)
{
	const struct rm_journal *journal = &arena->journal[index];
	const struct in_header *header = (const struct in_header *)journal->header;
	uint32_t opcode = header->opcode;
	struct rm_opstats *stats = &worker->ops[opcode < RM_OPCODES ? opcode : 0];
	uint64_t took = now - journal->delivered_ns;

	stats->count++;
	stats->total_ns += took;
	if (took > stats->max_ns)
		stats->max_ns = took;
	stats->buckets[rm_bucket(took)]++;
	worker->requests++;
	if (journal->error) {
		stats->errors++;
		worker->errors++;
	} else if (opcode == OP_READ) {
		worker->bytes_read += journal->size;
	} else if (opcode == OP_WRITE) {
		worker->bytes_written += journal->payload_size;
	}
	if (__builtin_expect(__atomic_load_n(&worker->traced, __ATOMIC_RELAXED) != 0, 0) && opcode < RM_OPCODES &&
	    worker->traced >> opcode & 1)
		rm_trace(arena, worker, index, now);
}

/* --- journal ------------------------------------------------------------------------------------------- */

/* From the kernel's copy in the entry to the journal. The reply's header will overwrite the request's, and a short reply the
   start of its payload (the names): both are kept, so that a successor can run the request again. A WRITE's
   data is not overwritten before the write was done: its reply has 8 bytes, and those are kept too.
   FREE comes first: what the state says of the entry's last request must not be taken for this one, once its commit id
   is here. */
static void journal_delivery(const struct rm_arena *arena, uint32_t index, uint64_t now)
{
	uint8_t *page = rm_entry_page(arena, index);
	struct entry_header *header = (struct entry_header *)page;
	struct rm_journal *journal = &arena->journal[index];
	uint32_t payload = header->payload_size;

	if (payload > arena->payload)
		payload = (uint32_t)arena->payload;
	__atomic_store_n(&journal->state, RM_FREE, __ATOMIC_RELEASE);
	STEP();
	memcpy(journal->header, header->in_out, IN_HEADER);
	STEP();
	journal->payload_size = payload;
	journal->saved = payload < RM_SAVED_MAX ? payload : RM_SAVED_MAX;
	memcpy(page + RM_SAVED_AT, page + RM_ENTRY_PAGE, journal->saved);
	STEP();
	journal->commit_id = header->commit_id;
	STEP();
	journal->delivered_ns = now;
	journal->error = 0;
	journal->size = 0;
	journal->deaths = 0;
	memset(journal->intent, 0, sizeof journal->intent);
	journal->effect = RM_UNDONE;
	journal->listed = RM_NOT_LISTING;
	memset(journal->open_intent, 0, sizeof journal->open_intent);
	journal->backing = 0;
	journal->thread = 0;
	STEP();
	__atomic_store_n(&journal->state, RM_DELIVERED, __ATOMIC_RELEASE);
	STEP();
}

int64_t rm_find_unique(const struct rm_arena *arena, uint64_t unique)
{
	for (uint32_t index = 0; index < arena->count; index++) {
		const struct entry_header *header = (const struct entry_header *)rm_entry_page(arena, index);
		const struct rm_journal *journal = &arena->journal[index];
		uint32_t state = __atomic_load_n(&journal->state, __ATOMIC_ACQUIRE);

		if ((state == RM_DELIVERED || state == RM_STARTED) &&
		    ((const struct in_header *)journal->header)->unique == unique)
			return index;
		if (header->commit_id && ((const struct in_header *)header->in_out)->unique == unique)
			return index;
	}
	return -1;
}

int64_t rm_oldest(const struct rm_arena *arena, uint32_t worker, uint32_t waits, uint64_t *since)
{
	int64_t oldest = -1;

	for (uint32_t index = 0; index < arena->count; index++) {
		const struct rm_journal *journal = &arena->journal[index];
		uint32_t state = __atomic_load_n(&journal->state, __ATOMIC_ACQUIRE);

		if (journal->worker != worker || (state != RM_DELIVERED && state != RM_STARTED) ||
		    ((const struct in_header *)journal->header)->opcode == waits)
			continue;
		if (oldest < 0 || journal->delivered_ns < *since) {
			oldest = index;
			*since = journal->delivered_ns;
		}
	}
	return oldest;
}

/* --- the ring ------------------------------------------------------------------------------------------ */

struct rm_ring *rm_ring_new(uint32_t entries, uint32_t flags, int fuse_fd, int eventfd, const struct rm_arena *arena,
			    struct rm_worker *worker, int *error)
{
	struct io_uring_params params = { .flags = flags | IORING_SETUP_SQE128 | IORING_SETUP_CQSIZE,
					  .cq_entries = 2 * entries };
	struct rm_ring *ring = calloc(1, sizeof *ring);

	*error = -ENOMEM;
	if (!ring)
		return NULL;
	ring->arena = *arena;
	ring->worker = worker;
	ring->fuse_fd = fuse_fd;
	ring->iov = calloc(arena->count ? arena->count : 1, sizeof *ring->iov);
	ring->answered = calloc(arena->count ? arena->count : 1, sizeof *ring->answered);
	if (!ring->iov || !ring->answered)
		goto no_memory;
	*error = io_uring_queue_init_params(entries, &ring->ring, &params);
	if (*error)
		goto no_ring;
	/* While the ring still has a descriptor: liburing 2.3 registers nothing by the private reference. */
	*error = eventfd < 0 ? 0 : io_uring_register_eventfd(&ring->ring, eventfd);
	if (*error)
		goto no_private;
	*error = io_uring_register_ring_fd(&ring->ring);
	if (*error != 1)
		goto no_private;
	io_uring_ring_dontfork(&ring->ring);
	/* From here on the registered reference alone holds the ring, and it goes with this thread. */
	close(ring->ring.ring_fd);
	ring->ring.ring_fd = -1;
	*error = 0;
	return ring;

no_private:
	if (*error >= 0)
		*error = -EOPNOTSUPP;
	io_uring_queue_exit(&ring->ring);
no_ring:
no_memory:
	free(ring->answered);
	free(ring->iov);
	free(ring);
	return NULL;
}

void rm_ring_free(struct rm_ring *ring)
{
	io_uring_queue_exit(&ring->ring);
	free(ring->answered);
	free(ring->iov);
	free(ring);
}

void rm_ring_accelerate(struct rm_ring *ring, struct rm_fast *fast)
{
	ring->fast = fast;
}

static struct io_uring_sqe *next_sqe(struct rm_ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);

	if (!sqe) {      /* full: hand in what is there, without waiting */
		if (io_uring_submit(&ring->ring) < 0)
			return NULL;
		sqe = io_uring_get_sqe(&ring->ring);
	}
	if (sqe)
		memset(sqe, 0, 128);
	return sqe;
}

static struct io_uring_sqe *next_command(struct rm_ring *ring, uint32_t command, uint16_t qid, uint64_t commit_id,
					 uint64_t data)
{
	struct io_uring_sqe *sqe = next_sqe(ring);

	if (!sqe)
		return NULL;
	struct uring_command *request = (struct uring_command *)((uint8_t *)sqe + 48);

	sqe->opcode = URING_CMD;
	sqe->fd = ring->fuse_fd;
	sqe->off = command;      /* cmd_op, in the low half */
	sqe->user_data = data;
	request->qid = qid;
	request->commit_id = commit_id;
	return sqe;
}

int rm_register(struct rm_ring *ring, uint32_t index)
{
	uint8_t *page = rm_entry_page(&ring->arena, index);
	struct rm_journal *journal = &ring->arena.journal[index];
	struct iovec *iov = ring->iov[index];
	struct io_uring_sqe *sqe = next_command(ring, CMD_REGISTER, (uint16_t)journal->qid, 0, index);

	if (!sqe)
		return -EBUSY;
	((struct entry_header *)page)->commit_id = 0;
	__atomic_store_n(&journal->state, RM_FREE, __ATOMIC_RELEASE);
	iov[0] = (struct iovec){ page, HEADER_SIZE };
	iov[1] = (struct iovec){ page + RM_ENTRY_PAGE, ring->arena.payload };
	sqe->addr = (uint64_t)(uintptr_t)iov;
	sqe->len = 2;
	return 0;
}

int rm_register_nowhere(struct rm_ring *ring, uint64_t data)
{
	struct iovec *iov = ring->iov[0];
	struct io_uring_sqe *sqe = next_command(ring, CMD_REGISTER, 0xffff, 0, data);

	if (!sqe)
		return -EBUSY;
	iov[0] = (struct iovec){ rm_entry_page(&ring->arena, 0), HEADER_SIZE };
	iov[1] = (struct iovec){ rm_entry_page(&ring->arena, 0) + RM_ENTRY_PAGE, ring->arena.payload };
	sqe->addr = (uint64_t)(uintptr_t)iov;
	sqe->len = 2;
	return 0;
}

/* The order is what recovery rests on: the reply is complete and the state is ANSWERED before anything here. Only then is
   the kernel's header overwritten, and its commit id cleared, so that a non-zero one there means a newer request. */
int rm_recommit(struct rm_ring *ring, uint32_t index)
{
	struct entry_header *header = (struct entry_header *)rm_entry_page(&ring->arena, index);
	struct rm_journal *journal = &ring->arena.journal[index];
	struct out_header *reply = (struct out_header *)header->in_out;
	struct io_uring_sqe *sqe = next_command(ring, CMD_COMMIT_AND_FETCH, (uint16_t)journal->qid,
						journal->commit_id, index);

	if (!sqe)
		return -EBUSY;
	STEP();
	reply->len = OUT_HEADER + journal->size;
	reply->error = journal->error;
	reply->unique = ((struct in_header *)journal->header)->unique;
	header->payload_size = journal->size;
	STEP();
	header->commit_id = 0;
	STEP();
	return 0;
}

int rm_io(struct rm_ring *ring, int opcode, int fd, uint64_t address, uint32_t length, uint64_t offset,
	  uint32_t flags, uint64_t data)
{
	struct io_uring_sqe *sqe = next_sqe(ring);

	if (!sqe)
		return -EBUSY;
	sqe->opcode = (uint8_t)opcode;
	sqe->fd = fd;
	sqe->addr = address;
	sqe->len = length;
	sqe->off = offset;
	sqe->rw_flags = (int)flags;
	sqe->user_data = data;
	return 0;
}

static int take_events(struct rm_ring *ring, struct rm_event *events, int max)
{
	struct io_uring_cqe *cqe;
	unsigned head, taken = 0;
	int count = 0;
	uint64_t now = rm_now();

	io_uring_for_each_cqe(&ring->ring, head, cqe) {
		uint32_t index = (uint32_t)cqe->user_data;

		if (count == max)
			break;
		taken++;
		if (cqe->user_data < ring->arena.count && cqe->res == 0) {
			journal_delivery(&ring->arena, index, now);
			if (ring->fast && rm_fast_serve(ring->fast, &ring->arena, index)) {
				ring->answered[ring->nanswered++] = index;
				continue;
			}
		}
		events[count++] = (struct rm_event){ cqe->user_data, cqe->res, cqe->flags };
	}
	io_uring_cq_advance(&ring->ring, taken);
	ring->worker->heartbeat_ns = now;
	ring->worker->turns++;
	return count;
}

static int commit_all(struct rm_ring *ring, const uint32_t *commits, int ncommits)
{
	uint64_t now = ncommits ? rm_now() : 0;

	for (int i = 0; i < ncommits; i++) {
		count_reply(&ring->arena, ring->worker, commits[i], now);
		int error = rm_recommit(ring, commits[i]);
		if (error)
			return error;
	}
	return 0;
}

/* Hands in what was queued. COMMIT_AND_FETCH completes its request inside the submission, so what was taken from the
   queue is done. What arrived in the same entry since is told by the entry's commit id, which take_events then journals. */
static int enter(struct rm_ring *ring, const uint32_t *commits, int ncommits, int wait)
{
	int result;

	if (wait) {
		ring->worker->waiting = 1;
		result = io_uring_submit_and_wait(&ring->ring, 1);
		ring->worker->waiting = 0;
	} else {
		result = io_uring_submit_and_get_events(&ring->ring);
	}
	STEP();
	if (io_uring_sq_ready(&ring->ring) == 0)
		for (int i = 0; i < ncommits; i++) {
			__atomic_store_n(&ring->arena.journal[commits[i]].state, RM_FREE, __ATOMIC_RELEASE);
			STEP();
		}
	return result;
}

static bool is_passing(int error)
{
	return error == -EAGAIN || error == -EBUSY || error == -ETIME || error == -EINTR;
}

int rm_turn(struct rm_ring *ring, const uint32_t *commits, int ncommits, int wait, struct rm_event *events, int max)
{
	for (int round = 0;; round++) {
		int error = commit_all(ring, commits, ncommits);

		if (error)
			return error;
		int result = enter(ring, commits, ncommits, wait);

		if (result < 0 && !is_passing(result))
			return result;
		ring->nanswered = 0;
		int count = take_events(ring, events, max);

		if (ring->nanswered == 0)
			return count == 0 && result == -EINTR ? -EINTR : count;
		/* Some were answered on the spot. With events for the caller, or after many rounds without waiting, theirs are
		   the last commits of this turn; otherwise the next round commits and waits in one system call. */
		commits = ring->answered;
		ncommits = ring->nanswered;
		if (count || (!wait && round >= MAX_ROUNDS)) {
			error = commit_all(ring, commits, ncommits);
			if (!error)
				error = enter(ring, commits, ncommits, 0);
			return error < 0 && !is_passing(error) ? error : count;
		}
	}
}

/* --- a cloned /dev/fuse -------------------------------------------------------------------------------- */

struct rm_device {
	struct rm_arena arena;
	struct rm_worker *worker;
	int fuse_fd, mail_fd;
	uint16_t argument_sizes[RM_OPCODES];
	uint32_t *free;          /* a stack of free entries */
	int nfree;
	struct rm_fast *fast;
};

struct rm_device *rm_device_new(int fuse_fd, int mail_fd, const struct rm_arena *arena, struct rm_worker *worker,
				const uint16_t *argument_sizes, const uint32_t *indices, int count, int capacity)
{
	struct rm_device *device = calloc(1, sizeof *device);

	if (!device)
		return NULL;
	device->arena = *arena;
	device->worker = worker;
	device->fuse_fd = fuse_fd;
	device->mail_fd = mail_fd;
	memcpy(device->argument_sizes, argument_sizes, sizeof device->argument_sizes);
	device->free = calloc((size_t)capacity + 1, sizeof *device->free);
	if (!device->free) {
		free(device);
		return NULL;
	}
	memcpy(device->free, indices, (size_t)count * sizeof *indices);
	device->nfree = count;
	return device;
}

void rm_device_free(struct rm_device *device)
{
	free(device->free);
	free(device);
}

/* A request is read so that a WRITE's data lands page-aligned at the payload's start. */
static struct in_header *read_area(const struct rm_arena *arena, uint32_t index)
{
	return (struct in_header *)(rm_entry_page(arena, index) + RM_ENTRY_PAGE - RM_LEGACY_HEAD);
}

int rm_device_reply(struct rm_device *device, uint32_t index)
{
	struct rm_journal *journal = &device->arena.journal[index];
	struct entry_header *header = (struct entry_header *)rm_entry_page(&device->arena, index);
	struct out_header reply = { OUT_HEADER + journal->size, journal->error,
				    ((struct in_header *)journal->header)->unique };
	struct iovec iov[2] = { { &reply, OUT_HEADER },
				{ (uint8_t *)header + RM_ENTRY_PAGE, journal->size } };
	STEP();
	ssize_t written = writev(device->fuse_fd, iov, journal->size ? 2 : 1);
	int error = written < 0 ? -errno : 0;

	STEP();
	rm_device_release(device, index);
	return error;
}

void rm_device_accelerate(struct rm_device *device, struct rm_fast *fast)
{
	device->fast = fast;
}

void rm_device_release(struct rm_device *device, uint32_t index)
{
	read_area(&device->arena, index)->unique = 0;
	STEP();
	((struct entry_header *)rm_entry_page(&device->arena, index))->commit_id = 0;
	STEP();
	__atomic_store_n(&device->arena.journal[index].state, RM_FREE, __ATOMIC_RELEASE);
	STEP();
	device->free[device->nfree++] = index;
}

int rm_device_room(const struct rm_device *device)
{
	return device->nfree;
}

void rm_journal_delivery(const struct rm_arena *arena, uint32_t index)
{
	journal_delivery(arena, index, rm_now());
}

/* Lays a request that was read where a ring would have put its header, first argument and payload. */
static void lay_out(struct rm_device *device, uint32_t index)
{
	uint8_t *page = rm_entry_page(&device->arena, index);
	uint8_t *payload = page + RM_ENTRY_PAGE;
	struct in_header *area = read_area(&device->arena, index);
	uint8_t *body = (uint8_t *)(area + 1);
	struct entry_header *header = (struct entry_header *)page;
	uint32_t size = area->len - IN_HEADER;
	uint32_t argument = area->opcode < RM_OPCODES ? device->argument_sizes[area->opcode] : 0;

	if (argument > size)
		argument = size;
	memcpy(header->in_out, area, IN_HEADER);
	memcpy(header->op_in, body, argument);
	header->payload_size = size - argument;
	if (body + argument != payload) {
		__atomic_store_n(&header->flags, 1, __ATOMIC_RELEASE);     /* until it has moved, it may be torn */
		memmove(payload, body + argument, header->payload_size);
	}
	__atomic_store_n(&header->commit_id, area->unique, __ATOMIC_RELEASE);
	__atomic_store_n(&area->unique, 0, __ATOMIC_RELEASE);
}

/* The order is what recovery rests on: an entry whose request was read but has no commit id yet is told by the number in
   its read area, which was cleared before. A process killed in read(2) does not return from it, but has the request. */
static int read_request(struct rm_device *device, uint32_t index)
{
	struct entry_header *header = (struct entry_header *)rm_entry_page(&device->arena, index);
	struct in_header *area = read_area(&device->arena, index);

	header->flags = 0;
	__atomic_store_n(&area->unique, 0, __ATOMIC_RELEASE);
	ssize_t got = read(device->fuse_fd, area, RM_LEGACY_HEAD + device->arena.payload);
	int error = got < 0 ? -errno : got < IN_HEADER || area->len != (uint32_t)got ? -EIO : 0;

	if (error) {
		__atomic_store_n(&area->unique, 0, __ATOMIC_RELEASE);
		return error;
	}
	lay_out(device, index);
	journal_delivery(&device->arena, index, device->worker->heartbeat_ns);
	return 0;
}

int rm_device_unread(struct rm_device *device, uint32_t *found)
{
	int count = 0, kept = 0;

	for (int i = 0; i < device->nfree; i++) {
		uint32_t index = device->free[i];
		struct entry_header *header = (struct entry_header *)rm_entry_page(&device->arena, index);
		struct in_header *area = read_area(&device->arena, index);

		if (!area->unique || area->len < IN_HEADER || area->len > RM_LEGACY_HEAD + device->arena.payload) {
			device->free[kept++] = index;
			continue;
		}
		bool torn = header->flags;

		lay_out(device, index);
		journal_delivery(&device->arena, index, rm_now());
		if (torn) {
			device->arena.journal[index].error = -EIO;
			__atomic_store_n(&device->arena.journal[index].state, RM_ANSWERED, __ATOMIC_RELEASE);
		}
		found[count++] = index;
	}
	device->nfree = kept;
	return count;
}

/* Reads a request: into an event, or, when it can be, answers it at once and returns true. */
static bool take_request(struct rm_device *device, struct rm_event *events, int *count)
{
	uint32_t index = device->free[device->nfree - 1];
	int error = read_request(device, index);

	if (error) {
		/* ENOENT: the request was taken back while it was read. */
		if (error != -EAGAIN && error != -EINTR && error != -ENOENT)
			events[(*count)++] = (struct rm_event){ 1ull << 62, error, 0 };
		return false;
	}
	device->nfree--;
	if (device->fast && rm_fast_serve(device->fast, &device->arena, index)) {
		count_reply(&device->arena, device->worker, index, rm_now());
		rm_device_reply(device, index);
		return true;
	}
	events[(*count)++] = (struct rm_event){ index, 0, 0 };
	return false;
}

int rm_device_turn(struct rm_device *device, const uint32_t *commits, int ncommits, int timeout_ms, int wake_fd,
		   struct rm_event *events, int max)
{
	/* poll(2) leaves out what is negative. */
	struct pollfd fds[3] = { { device->fuse_fd, 0, 0 }, { device->mail_fd, POLLIN, 0 }, { wake_fd, POLLIN, 0 } };
	int count = 0, result;

	if (ncommits) {
		uint64_t now = rm_now();

		for (int i = 0; i < ncommits; i++) {
			count_reply(&device->arena, device->worker, commits[i], now);
			result = rm_device_reply(device, commits[i]);
			/* ENOENT: the request was aborted or interrupted away; nobody waits for it. */
			if (result && result != -ENOENT && count < max)
				events[count++] = (struct rm_event){ commits[i], result, 1 };
		}
	}
	bool answered;

	do {
		answered = false;
		fds[0].events = device->nfree ? POLLIN : 0;
		device->worker->waiting = timeout_ms != 0;
		result = poll(fds, 3, count ? 0 : timeout_ms);
		device->worker->waiting = 0;
		device->worker->heartbeat_ns = rm_now();
		device->worker->turns++;
		if (result < 0)
			return count ? count : -errno;
		if (fds[1].revents && count < max)
			events[count++] = (struct rm_event){ 1ull << 63, 0, 0 };
		if (device->nfree && fds[0].revents && count < max)
			answered = take_request(device, events, &count);
	} while (answered && !count && !fds[2].revents && timeout_ms);
	return count;
}
