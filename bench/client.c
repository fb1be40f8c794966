// The client of the micro rows: one system call, or one short cycle, over and over, each timed.
//
// usage: client OPERATION FOLDER SECONDS CPU...
// One process per CPU named, pinned to it, with files of its own in FOLDER; all start together. The first tenth of
// the time is warm-up. Prints one JSON object: operations, seconds, and the latencies' percentiles in microseconds.
//
// Latencies go into log-linear buckets of 1/128 of a power of two: no allocation and an error below 1 %.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB, BLOCK = 4096, LISTING = 1 << 16 };

struct tally {
	uint64_t warmup, measured, nanoseconds, longest;
	uint32_t buckets[BUCKETS];
};

static int folder, file = -1;
static char name[32], fresh[32], target[64];
static char block[LISTING] __attribute__((aligned(BLOCK)));
static uint64_t file_blocks, turn;

static void die(const char *what)
{
	fprintf(stderr, "client: %s %s: %s\n", what, name, strerror(errno));
	_exit(1);
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

// -- operations -------------------------------------------------------------------------------------------------

static void do_fstat(void)
{
	struct stat st;
	if (fstat(file, &st))
		die("fstat");
}

static void do_stat(void)
{
	struct stat st;
	if (fstatat(folder, name, &st, 0))
		die("stat");
}

static void do_open(void)
{
	int fd = openat(folder, name, O_RDONLY);
	if (fd < 0 || close(fd))
		die("open and close");
}

static void do_create(void)
{
	int fd = openat(folder, fresh, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0 || write(fd, block, BLOCK) != BLOCK || close(fd) || unlinkat(folder, fresh, 0))
		die("create, write, close, unlink");
}

static void do_read(void) // scattered without a random generator: a stride that is coprime to the size
{
	off_t at = turn++ * 7919 % file_blocks * BLOCK;
	if (pread(file, block, BLOCK, at) != BLOCK)
		die("pread");
}

static void do_list(int with_stat)
{
	int fd = openat(folder, target, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		die("open folder");
	long got;
	while ((got = syscall(SYS_getdents64, fd, block, sizeof(block))) > 0) {
		for (long at = 0; with_stat && at < got;) {
			struct { uint64_t ino; int64_t next; uint16_t length; uint8_t type; char name[]; } *entry = (void *)(block + at);
			struct stat st;
			if (entry->name[0] != '.' && fstatat(fd, entry->name, &st, AT_SYMLINK_NOFOLLOW))
				die("stat of an entry");
			at += entry->length;
		}
	}
	if (got < 0 || close(fd))
		die("list");
}

static void do_readdir(void) { do_list(0); }
static void do_scandir(void) { do_list(1); }

static const struct operation {
	const char *name;
	void (*run)(void);
	int flags; // to open the client's file with; -1: not opened
} operations[] = {
	{"fstat", do_fstat, O_RDONLY}, {"stat", do_stat, -1},       {"open", do_open, -1},       {"create", do_create, -1},
	{"readdir", do_readdir, -1},   {"scandir", do_scandir, -1}, {"read", do_read, O_RDONLY | O_DIRECT},
};

// -- running ----------------------------------------------------------------------------------------------------

static unsigned bucket_of(uint64_t ns)
{
	if (ns < SUB)
		return ns;
	unsigned shift = 63 - __builtin_clzll(ns) - SUB_BITS;
	return (shift + 1) * SUB + (ns >> shift) - SUB;
}

static double middle_of(unsigned bucket)
{
	if (bucket < SUB)
		return bucket;
	unsigned shift = bucket / SUB - 1;
	return ((uint64_t)(bucket % SUB + SUB) << shift) + ((1ull << shift) - 1) / 2.0;
}

static void run(const struct operation *operation, int index, int cpu, double seconds, struct tally *tally,
		pthread_barrier_t *barrier)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("pin");
	snprintf(name, sizeof(name), "file%d", index);
	snprintf(fresh, sizeof(fresh), "new%d", index);
	strcpy(target, "listing");
	if (operation->flags >= 0) {
		struct stat st;
		file = openat(folder, name, operation->flags);
		if (file < 0 || fstat(file, &st))
			die("open");
		file_blocks = st.st_size / BLOCK;
	}
	pthread_barrier_wait(barrier);
	uint64_t begin = now(), measured_from = begin + seconds * 1e8, end = begin + seconds * 1e9, t = begin;
	for (; t < measured_from; t = now(), tally->warmup++)
		operation->run();
	uint64_t first = t;
	while (t < end || !tally->measured) {
		operation->run();
		uint64_t after = now(), took = after - t;
		tally->buckets[bucket_of(took)]++;
		tally->measured++;
		if (took > tally->longest)
			tally->longest = took;
		t = after;
	}
	tally->nanoseconds = t - first;
	_exit(0);
}

static double percentile(const struct tally *sum, double share)
{
	uint64_t below = 0;
	for (unsigned i = 0; i < BUCKETS; i++) {
		below += sum->buckets[i];
		if (below > share * (sum->measured - 1))
			return middle_of(i) / 1e3;
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct operation *operation = NULL;
	for (unsigned i = 0; argc > 4 && i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(argv[1], operations[i].name))
			operation = &operations[i];
	if (!operation)
		return fprintf(stderr, "usage: client OPERATION FOLDER SECONDS CPU...\n"), 2;
	folder = open(argv[2], O_RDONLY | O_DIRECTORY);
	if (folder < 0)
		die(argv[2]);
	double seconds = atof(argv[3]);
	int clients = argc - 4;

	struct shared {
		pthread_barrier_t barrier;
		struct tally tallies[];
	} *shared = mmap(NULL, sizeof(*shared) + clients * sizeof(struct tally), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (shared == MAP_FAILED)
		die("memory");
	pthread_barrierattr_t attr;
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->barrier, &attr, clients);
	pid_t pids[clients];
	for (int i = 0; i < clients; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			run(operation, i, atoi(argv[4 + i]), seconds, &shared->tallies[i], &shared->barrier);
	}
	for (int left = clients; left; left--) {
		int status;
		if (wait(&status) < 0 || status) { // the others may wait at the barrier
			for (int i = 0; i < clients; i++)
				kill(pids[i], SIGKILL);
			return 1;
		}
	}

	static struct tally sum;
	double rate = 0;
	for (int i = 0; i < clients; i++) {
		const struct tally *one = &shared->tallies[i];
		sum.warmup += one->warmup;
		sum.measured += one->measured;
		sum.longest = one->longest > sum.longest ? one->longest : sum.longest;
		rate += one->measured / (one->nanoseconds / 1e9);
		for (unsigned b = 0; b < BUCKETS; b++)
			sum.buckets[b] += one->buckets[b];
	}
	printf("{\"operations\": %lu, \"ops_per_s\": %.1f, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, "
		"\"p999_us\": %.3f, \"max_us\": %.3f}\n",
		sum.warmup + sum.measured, rate, percentile(&sum, .5), percentile(&sum, .9), percentile(&sum, .99),
		percentile(&sum, .999), sum.longest / 1e3);
	return 0;
}
