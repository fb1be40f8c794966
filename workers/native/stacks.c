#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stacks.h"

enum { TRIES = 1000, PAUSE_NS = 200000 };

static struct sigaction dump;
static int output = -1;
static bool busy;

/* Async-signal-safe, as snprintf(3) is not. */
static void write_mark(char mark, pid_t tid)
{
	char line[16], *at = line + sizeof line;

	*--at = '\n';
	do
		*--at = (char)('0' + tid % 10);
	while (tid /= 10);
	*--at = mark;
	if (write(output, at, (size_t)(line + sizeof line - at)) < 0)
		return;
}

/* faulthandler dumps one thread at a time, and leaves out who comes meanwhile. The one that is at it needs nobody else. */
static void tell(int signal)
{
	int error = errno;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	struct timespec pause = { 0, PAUSE_NS };

	for (int i = 0; i < TRIES; i++) {
		if (!__atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE)) {
			write_mark('@', tid);
			dump.sa_handler(signal);
			write_mark('!', tid);
			__atomic_store_n(&busy, false, __ATOMIC_RELEASE);
			break;
		}
		nanosleep(&pause, NULL);
	}
	errno = error;
}

int rm_tell_stacks(int signal, int fd)
{
	struct sigaction action = { .sa_handler = tell, .sa_flags = SA_RESTART | SA_ONSTACK };

	output = fd;
	if (sigaction(signal, NULL, &dump))
		return -errno;
	return sigaction(signal, &action, NULL) ? -errno : 0;
}

int rm_ask_stack(int pid, int tid, int signal)
{
	return syscall(SYS_tgkill, pid, tid, signal) ? -errno : 0;
}
