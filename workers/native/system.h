/* System calls that Python's os module lacks. See system.cdef for what each function does. */
#ifndef RINGMOUNT_SYSTEM_H
#define RINGMOUNT_SYSTEM_H
#include <stdint.h>

struct rm_file_handle {
	int mount;
	int size;
	char bytes[132];
};

struct rm_statx {
	uint32_t mask;
	uint32_t btime_nsec;
	int64_t btime_sec;
	uint64_t attributes;
	uint64_t attributes_mask;
};

int rm_file_handle(int fd, struct rm_file_handle *handle);
int rm_lookup(int folder, const char *name, struct rm_file_handle *handle);
int rm_open_by_handle(int mount, const char *bytes, int size, int flags);
int rm_clone_without_atime(const char *path, int *mount);
int rm_renameat2(int folder, const char *name, int new_folder, const char *new_name, unsigned int flags);
int rm_fallocate(int fd, int mode, int64_t offset, int64_t length);
int rm_syncfs(int fd);
int rm_fanotify_init(unsigned int flags);
int rm_fanotify_mark(int group, unsigned int flags, uint64_t mask, int folder);
int64_t rm_filesystem_type(int fd);
int rm_utimens(int fd, int64_t atime_sec, int64_t atime_nsec, int64_t mtime_sec, int64_t mtime_nsec);
int rm_statx(int fd, int flags, unsigned int mask, struct rm_statx *out);
int rm_access(int fd, int mask);
int rm_getdents(int fd, int64_t offset, char *buffer, int size);
int rm_act_as(uint32_t uid, uint32_t gid, const uint64_t capabilities[3]);
int rm_set_groups(int count, const uint32_t *groups);
int rm_capabilities(uint64_t sets[3]);
int rm_set_capabilities(const uint64_t sets[3]);
#endif
