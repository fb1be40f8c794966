/* Processes that share one descriptor table. See process.cdef for what each function does. */
#ifndef RINGMOUNT_PROCESS_H
#define RINGMOUNT_PROCESS_H
#include <stdint.h>
int rm_fork_sharing_files(void);
int rm_map_shared(int fd, uint64_t address, uint64_t size, int dontfork);
int rm_die_with_parent(int signal);
int rm_no_new_privileges(void);
int rm_same_file(int one, int other);
#endif
