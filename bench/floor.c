// The floor: the least that a server on the ring can do, and so the limit of this kernel path.
//
// One pinned thread per CPU, each with one io_uring that serves that CPU's queue (and those of CPUs without a
// thread). Answers are constants, there is nothing beneath: a folder in which every name is a file of FILE_SIZE
// bytes with a node of its own, but for names that begin with "new", which exist between CREATE and UNLINK.
// What the kernel copies, queues and schedules is all here; what a real server adds is not.
//
// usage: floor [-d DEPTH] [-t THREADS] [-w MAX_WRITE] [-c CACHE_SECONDS] [-m defer|coop|plain] MOUNTPOINT
// Runs in the foreground; SIGTERM or SIGINT unmounts and ends it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

// The ring's part of the kernel's interface (7.42), named as there; older headers lack it.
enum { CMD_REGISTER = 1, CMD_COMMIT_AND_FETCH = 2 };
#define OVER_IO_URING (1u << (41 - 32)) // of flags2
#define INIT_EXT (1u << 30)

struct ring_ent_in_out {
	uint64_t flags, commit_id;
	uint32_t payload_sz, padding;
	uint64_t reserved;
};
struct req_header { // fuse_uring_req_header
	char in_out[128], op_in[128];
	struct ring_ent_in_out ent;
};
struct cmd_req { // fuse_uring_cmd_req, at byte 48 of the SQE
	uint64_t flags, commit_id;
	uint16_t qid;
	uint8_t padding[6];
};

enum { PAGE = 4096, NODES = 1024, FIRST_NODE = 2 };
static const uint64_t FILE_SIZE = 1ull << 30;

static int device, depth = 8, threads, queues;
static uint32_t max_write = 1 << 20, cache_seconds;
static unsigned ring_mode = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
static const char *mountpoint;
static atomic_bool created[NODES];

struct entry {
	struct req_header *header;
	char *payload;
	struct iovec parts[2];
	uint16_t qid;
};

static _Noreturn void die(const char *what)
{
	int saved = errno;
	umount2(mountpoint, MNT_DETACH);
	errno = saved;
	perror(what);
	_exit(1);
}

// -- answers ----------------------------------------------------------------------------------------------------

static uint64_t node_of(const char *name)
{
	uint32_t hash = 2166136261u;
	while (*name)
		hash = (hash ^ (unsigned char)*name++) * 16777619u;
	return FIRST_NODE + hash % NODES;
}

static void fill_attr(struct fuse_attr *attr, uint64_t node)
{
	memset(attr, 0, sizeof(*attr));
	attr->ino = node;
	attr->blksize = PAGE;
	attr->nlink = 1;
	if (node == FUSE_ROOT_ID) {
		attr->mode = S_IFDIR | 0755;
	} else {
		attr->mode = S_IFREG | 0644;
		attr->size = FILE_SIZE;
		attr->blocks = FILE_SIZE / 512;
	}
}

static uint32_t reply_entry(struct fuse_entry_out *out, uint64_t node)
{
	memset(out, 0, offsetof(struct fuse_entry_out, attr));
	out->nodeid = node;
	out->entry_valid = out->attr_valid = cache_seconds;
	fill_attr(&out->attr, node);
	return sizeof(*out);
}

static uint32_t reply_attr(struct fuse_attr_out *out, uint64_t node)
{
	memset(out, 0, offsetof(struct fuse_attr_out, attr));
	out->attr_valid = cache_seconds;
	fill_attr(&out->attr, node);
	return sizeof(*out);
}

// Returns the number of payload bytes, or a negative errno.
static int64_t answer(uint32_t opcode, uint64_t node, const void *argument, char *payload)
{
	switch (opcode) {
	case FUSE_LOOKUP: {
		uint64_t found = node_of(payload);
		if (!strncmp(payload, "new", 3) && !atomic_load(&created[found - FIRST_NODE]))
			return -ENOENT;
		return reply_entry((void *)payload, found);
	}
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		return reply_attr((void *)payload, node);
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		memset(payload, 0, sizeof(struct fuse_open_out));
		return sizeof(struct fuse_open_out);
	case FUSE_READ: {
		const struct fuse_read_in *in = argument;
		uint64_t left = in->offset < FILE_SIZE ? FILE_SIZE - in->offset : 0;
		return in->size < left ? in->size : left;
	}
	case FUSE_WRITE: {
		const struct fuse_write_in *in = argument;
		*(struct fuse_write_out *)payload = (struct fuse_write_out){.size = in->size};
		return sizeof(struct fuse_write_out);
	}
	case FUSE_CREATE: {
		uint64_t made = node_of(payload);
		atomic_store(&created[made - FIRST_NODE], true);
		uint32_t size = reply_entry((void *)payload, made);
		memset(payload + size, 0, sizeof(struct fuse_open_out));
		return size + sizeof(struct fuse_open_out);
	}
	case FUSE_UNLINK:
		atomic_store(&created[node_of(payload) - FIRST_NODE], false);
		return 0;
	case FUSE_STATFS:
		*(struct fuse_statfs_out *)payload = (struct fuse_statfs_out){
			.st = {.blocks = 1 << 20, .bfree = 1 << 19, .bavail = 1 << 19, .bsize = PAGE, .frsize = PAGE, .namelen = 255}};
		return sizeof(struct fuse_statfs_out);
	case FUSE_READDIR:
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FSYNC:
		return 0;
	default:
		return -ENOSYS;
	}
}

// -- the ring ---------------------------------------------------------------------------------------------------

static void prepare(struct io_uring *ring, struct entry *entry, uint32_t command, uint64_t commit_id)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	*sqe = (struct io_uring_sqe){0};
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = device;
	sqe->cmd_op = command;
	sqe->user_data = (uintptr_t)entry;
	if (command == CMD_REGISTER) {
		sqe->addr = (uintptr_t)entry->parts;
		sqe->len = 2;
	}
	*(struct cmd_req *)sqe->cmd = (struct cmd_req){.commit_id = commit_id, .qid = entry->qid};
}

static void serve(struct io_uring *ring, struct entry *entry)
{
	struct req_header *header = entry->header;
	const struct fuse_in_header *in = (void *)header->in_out;
	uint64_t unique = in->unique;
	int64_t result = answer(in->opcode, in->nodeid, header->op_in, entry->payload);
	struct fuse_out_header *out = (void *)header->in_out;
	out->error = result < 0 ? result : 0;
	out->unique = unique;
	out->len = sizeof(*out) + (result < 0 ? 0 : result);
	header->ent.payload_sz = result < 0 ? 0 : result;
	prepare(ring, entry, CMD_COMMIT_AND_FETCH, header->ent.commit_id);
}

static void *serve_queues(void *argument)
{
	int index = (int)(intptr_t)argument;
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(index, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);

	struct io_uring ring;
	struct io_uring_params params = {.flags = IORING_SETUP_SQE128 | ring_mode};
	int mine = (queues - index + threads - 1) / threads;
	if (io_uring_queue_init_params(mine * depth, &ring, &params) < 0)
		die("io_uring_setup");
	size_t payload = max_write < 2 * PAGE ? 2 * PAGE : max_write;
	size_t stride = PAGE + payload;
	char *memory = mmap(NULL, mine * depth * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct entry *entries = calloc(mine * depth, sizeof(*entries));
	if (memory == MAP_FAILED || !entries)
		die("memory");
	for (int i = 0; i < mine * depth; i++) {
		struct entry *entry = &entries[i];
		entry->header = (void *)(memory + i * stride);
		entry->payload = memory + i * stride + PAGE;
		entry->parts[0] = (struct iovec){entry->header, sizeof(*entry->header)};
		entry->parts[1] = (struct iovec){entry->payload, payload};
		entry->qid = index + i / depth * threads;
		prepare(&ring, entry, CMD_REGISTER, 0);
	}
	for (;;) {
		int submitted = io_uring_submit_and_wait(&ring, 1);
		if (submitted < 0 && submitted != -EINTR)
			return NULL;
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0;
		io_uring_for_each_cqe(&ring, head, cqe) {
			seen++;
			if (cqe->res == 0)
				serve(&ring, io_uring_cqe_get_data(cqe));
			else if (cqe->res != -ENOTCONN)
				fprintf(stderr, "completion: %s\n", strerror(-cqe->res));
			else
				return NULL;
		}
		io_uring_cq_advance(&ring, seen);
	}
}

// -- the connection ---------------------------------------------------------------------------------------------

static void negotiate(void)
{
	union {
		struct {
			struct fuse_in_header header;
			struct fuse_init_in init;
		};
		char bytes[2 * PAGE];
	} in;
	if (read(device, &in, sizeof(in)) < 0 || in.header.opcode != FUSE_INIT)
		die("INIT");
	uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_ASYNC_DIO |
		FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2 | INIT_EXT;
	struct {
		struct fuse_out_header header;
		struct fuse_init_out init;
	} out = {
		.header = {.len = sizeof(out), .unique = in.header.unique},
		.init = {
			.major = FUSE_KERNEL_VERSION,
			.minor = in.init.minor,
			.max_readahead = in.init.max_readahead,
			.flags = in.init.flags & wanted,
			.flags2 = in.init.flags2 & OVER_IO_URING,
			.max_background = 64,
			.congestion_threshold = 48,
			.max_write = max_write,
			.max_pages = max_write / PAGE,
			.time_gran = 1,
		},
	};
	if (!out.init.flags2) {
		errno = EOPNOTSUPP;
		die("the kernel offers no FUSE-over-io_uring");
	}
	if (write(device, &out, sizeof(out)) < 0)
		die("INIT reply");
}

static int count_queues(void) // one per possible CPU, not per online one
{
	FILE *file = fopen("/sys/devices/system/cpu/possible", "r");
	int first = 0, last = 0;
	if (!file || fscanf(file, "%d-%d", &first, &last) < 1)
		die("possible CPUs");
	fclose(file);
	return (last > first ? last : first) + 1;
}

static void leave(int signal)
{
	(void)signal;
	umount2(mountpoint, MNT_DETACH);
	_exit(0);
}

int main(int argc, char **argv)
{
	threads = sysconf(_SC_NPROCESSORS_ONLN);
	for (int option; (option = getopt(argc, argv, "d:t:w:c:m:")) != -1;) {
		switch (option) {
		case 'd': depth = atoi(optarg); break;
		case 't': threads = atoi(optarg); break;
		case 'w': max_write = strtoul(optarg, NULL, 0); break;
		case 'c': cache_seconds = strtoul(optarg, NULL, 0); break;
		case 'm':
			ring_mode = *optarg == 'd' ? IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN :
				*optarg == 'c' ? IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN : 0;
			break;
		default: return 2;
		}
	}
	mountpoint = argv[optind];
	if (!mountpoint || depth < 1 || threads < 1)
		return fprintf(stderr, "usage: floor [-d DEPTH] [-t THREADS] [-w MAX_WRITE] [-c SECONDS] [-m MODE] MOUNTPOINT\n"), 2;
	queues = count_queues();
	if (threads > queues)
		threads = queues;

	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char options[128];
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
	if (device < 0 || mount("floor", mountpoint, "fuse.floor", MS_NOSUID | MS_NODEV, options) < 0)
		die("mount");
	signal(SIGTERM, leave);
	signal(SIGINT, leave);
	negotiate();
	for (int i = 0; i < threads; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, serve_queues, (void *)(intptr_t)i))
			die("thread");
	}
	// FORGET and INTERRUPT arrive here still; neither wants an answer.
	static char rest[(1 << 20) + 2 * PAGE];
	while (read(device, rest, sizeof(rest)) >= 0 || errno == EINTR || errno == ENOENT || errno == EAGAIN)
		;
	return 0;
}
