#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process.h"

/* The raw system call, because glibc's fork() takes no flags and its clone() wants another stack. glibc's own
   fork handlers do not run; PyOS_*Fork* run the interpreter's. What stays stale in the child is the thread id
   that glibc keeps for itself, which only robust and error-checking mutexes read: ringmount uses neither. */
int rm_fork_sharing_files(void)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyOS_BeforeFork();
	long pid = syscall(SYS_clone, (unsigned long)(CLONE_FILES | SIGCHLD), NULL, NULL, NULL, 0UL);
	int error = errno;
	if (pid == 0)
		PyOS_AfterFork_Child();
	else
		PyOS_AfterFork_Parent();
	PyGILState_Release(gil);
	return pid < 0 ? -error : (int)pid;
}

int rm_map_shared(int fd, uint64_t address, uint64_t size, int dontfork)
{
	void *wanted = (void *)(uintptr_t)address;
	void *got = mmap(wanted, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE, fd, 0);

	if (got == MAP_FAILED)
		return -errno;
	if (got != wanted) {     /* a kernel before 4.17 takes the address as a hint */
		munmap(got, size);
		return -EEXIST;
	}
	if (dontfork && madvise(got, size, MADV_DONTFORK))
		return -errno;
	return 0;
}

int rm_die_with_parent(int signal)
{
	return prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) ? -errno : 0;
}

int rm_no_new_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
}

int rm_same_file(int one, int other)
{
	enum { KCMP_FILE = 0 };
	pid_t self = getpid();

	return syscall(SYS_kcmp, self, self, KCMP_FILE, one, other) == 0;
}
