#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
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
