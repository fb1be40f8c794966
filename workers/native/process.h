/* Processes that share one descriptor table. See process.cdef for what each function does. */
#ifndef RINGMOUNT_PROCESS_H
#define RINGMOUNT_PROCESS_H
int rm_fork_sharing_files(void);
#endif
