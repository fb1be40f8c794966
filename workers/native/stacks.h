/* Stacks on request. See stacks.cdef. */
#ifndef RINGMOUNT_STACKS_H
#define RINGMOUNT_STACKS_H
int rm_tell_stacks(int signal, int fd);
int rm_ask_stack(int pid, int tid, int signal);
#endif
