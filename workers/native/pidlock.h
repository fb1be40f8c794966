/*
 * A lock in shared memory that survives its owner: one word that holds the owner's process id, 0 when free.
 *
 * Why not a robust mutex: the kernel's robust list is found through the thread, and glibc's mutexes trust the thread
 * id that a raw clone(2) leaves stale (process.c). A word that names its owner needs nothing but the word.
 *
 * Who waits spins, then yields, then naps, and after about a millisecond looks whether the owner is dead: gone, or a
 * zombie without other threads (a zombie leader alone does not prove that the threads have stopped). A process whose
 * /proc entry cannot be read (hidepid) counts as alive while kill(2) finds it. What is not seen here is an owner's number
 * that was given to a new process; the supervisor closes that gap by naming the dead worker as soon as it has reaped it.
 */
#ifndef RINGMOUNT_PIDLOCK_H
#define RINGMOUNT_PIDLOCK_H
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum pidlock_wait { PIDLOCK_AGAIN, PIDLOCK_DEAD, PIDLOCK_LATE }; /* try again, the owner is dead, give up */

struct pidlock_patience {
	int64_t limit;    /* ns to wait at most; 0: as long as it takes */
	int64_t deadline; /* of CLOCK_MONOTONIC, once it is looked at */
	uint32_t owner;   /* who holds the lock, as last seen */
	uint32_t turns;
};

/* getpid(2) without the system call, which costs more than the lock. The kernel zeroes the page in every child
   (MADV_WIPEONFORK), however it was forked. */
static inline uint32_t pidlock_self(void)
{
	static uint32_t *_Atomic page;
	uint32_t *mine = atomic_load_explicit(&page, memory_order_acquire), *none = NULL;
	if (!mine) {
		mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (mine == MAP_FAILED)
			return getpid();
		if (madvise(mine, 4096, MADV_WIPEONFORK) || !atomic_compare_exchange_strong(&page, &none, mine)) {
			munmap(mine, 4096);
			return getpid();
		}
	}
	if (!*mine)
		*mine = getpid();
	return *mine;
}

static inline bool pidlock_seize(_Atomic uint32_t *lock, uint32_t owner)
{
	return atomic_compare_exchange_strong_explicit(lock, &owner, pidlock_self(), memory_order_acquire,
						       memory_order_relaxed);
}

static inline bool pidlock_try(_Atomic uint32_t *lock)
{
	return pidlock_seize(lock, 0);
}

static inline void pidlock_release(_Atomic uint32_t *lock)
{
	atomic_store_explicit(lock, 0, memory_order_release);
}

static inline bool pidlock_is_zombie(uint32_t pid)
{
	char path[32], text[512];
	snprintf(path, sizeof path, "/proc/%u/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	char state, *name_end = strrchr(text, ')'); /* the name itself may contain anything */
	long threads;
	if (!name_end || sscanf(name_end + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld",
				&state, &threads) != 2)
		return false;
	return (state == 'Z' || state == 'X') && threads <= 1;
}

static inline bool pidlock_is_dead(uint32_t pid)
{
	if (pid == pidlock_self())
		return false;
	if (kill(pid, 0) && errno == ESRCH)
		return true;
	return pidlock_is_zombie(pid);
}

static inline int64_t pidlock_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline void pidlock_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static inline bool pidlock_is_late(struct pidlock_patience *patience)
{
	if (!patience->limit)
		return false;
	int64_t now = pidlock_now();
	if (!patience->deadline)
		patience->deadline = now + patience->limit;
	return now > patience->deadline;
}

/* One turn of waiting for `lock`, longer from turn to turn. A nap of 50 us takes about 100. */
static inline enum pidlock_wait pidlock_wait(struct pidlock_patience *patience, _Atomic uint32_t *lock)
{
	enum { SPINS = 100, YIELDS = 10, NAPS_BETWEEN_LOOKS = 10 };
	uint32_t turn = patience->turns++;
	if (turn < SPINS) {
		pidlock_pause();
		return PIDLOCK_AGAIN;
	}
	if (turn < SPINS + YIELDS) {
		sched_yield();
		return PIDLOCK_AGAIN;
	}
	bool late = pidlock_is_late(patience);
	if (!late)
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
	if (!late && turn % NAPS_BETWEEN_LOOKS)
		return PIDLOCK_AGAIN;
	patience->owner = atomic_load_explicit(lock, memory_order_relaxed);
	if (patience->owner && pidlock_is_dead(patience->owner))
		return PIDLOCK_DEAD;
	return late ? PIDLOCK_LATE : PIDLOCK_AGAIN;
}

#endif
