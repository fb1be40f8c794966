#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "system.h"

#ifndef SYS_faccessat2
#define SYS_faccessat2 439 /* Linux 5.8; the number is the same on all architectures */
#endif

static inline int64_t result_of(int64_t result)
{
	return result < 0 ? -errno : result;
}

/* The kernel's struct file_handle, with room for the largest handle. */
struct handle {
	unsigned int size;
	int type;
	unsigned char bytes[MAX_HANDLE_SZ];
};

int rm_file_handle(int fd, struct rm_file_handle *out)
{
	struct handle handle = {.size = MAX_HANDLE_SZ};
	int mount = -1;
	int failed = syscall(SYS_name_to_handle_at, fd, "", &handle, &mount, AT_EMPTY_PATH);
	out->mount = mount;
	out->size = 0;
	if (failed) /* EOVERFLOW: a type of handle that was never meant to leave the kernel */
		return errno == EOPNOTSUPP || errno == EOVERFLOW ? 0 : -errno;
	memcpy(out->bytes, &handle.type, sizeof(handle.type));
	memcpy(out->bytes + sizeof(handle.type), handle.bytes, handle.size);
	out->size = sizeof(handle.type) + handle.size;
	return 0;
}

int rm_lookup(int folder, const char *name, struct rm_file_handle *out)
{
	int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int error = rm_file_handle(fd, out);
	if (error) {
		close(fd);
		return error;
	}
	return fd;
}

/* Both came with Linux 5.2 and 5.12; glibc has them since 2.36. */
int rm_clone_without_atime(const char *path, int *mount)
{
	struct { uint64_t set, clear, propagation, userns; } attributes = {0x10, 0x70, 0, 0}; /* MOUNT_ATTR_NOATIME, __ATIME */
	int tree = (int)syscall(428, AT_FDCWD, path, 1 | O_CLOEXEC); /* OPEN_TREE_CLONE */
	if (tree < 0)
		return -errno;
	int fd = syscall(442, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) ? -1
			: openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		int error = errno;
		close(tree);
		return -error;
	}
	*mount = tree;
	return fd;
}

int rm_open_by_handle(int mount, const char *bytes, int size, int flags)
{
	struct handle handle;
	int payload = size - (int)sizeof(handle.type);
	if (payload < 0 || payload > MAX_HANDLE_SZ)
		return -EINVAL;
	handle.size = payload;
	memcpy(&handle.type, bytes, sizeof(handle.type));
	memcpy(handle.bytes, bytes + sizeof(handle.type), payload);
	return result_of(syscall(SYS_open_by_handle_at, mount, &handle, flags));
}

int rm_renameat2(int folder, const char *name, int new_folder, const char *new_name, unsigned int flags)
{
	return result_of(renameat2(folder, name, new_folder, new_name, flags));
}

int rm_fallocate(int fd, int mode, int64_t offset, int64_t length)
{
	return result_of(fallocate(fd, mode, offset, length));
}

int rm_syncfs(int fd)
{
	return result_of(syncfs(fd));
}

int64_t rm_filesystem_type(int fd)
{
	struct statfs found;
	return fstatfs(fd, &found) < 0 ? -errno : (int64_t)(uint32_t)found.f_type;
}

int rm_utimens(int fd, int64_t atime_sec, int64_t atime_nsec, int64_t mtime_sec, int64_t mtime_nsec)
{
	struct timespec times[2] = {{atime_sec, atime_nsec}, {mtime_sec, mtime_nsec}};
	return result_of(utimensat(fd, "", times, AT_EMPTY_PATH));
}

int rm_statx(int fd, int flags, unsigned int mask, struct rm_statx *out)
{
	struct statx found;
	if (statx(fd, "", AT_EMPTY_PATH | (flags & AT_STATX_SYNC_TYPE), mask, &found) < 0)
		return -errno;
	out->mask = found.stx_mask;
	out->btime_sec = found.stx_btime.tv_sec;
	out->btime_nsec = found.stx_btime.tv_nsec;
	out->attributes = found.stx_attributes;
	out->attributes_mask = found.stx_attributes_mask;
	return 0;
}

int rm_access(int fd, int mask)
{
	return result_of(syscall(SYS_faccessat2, fd, "", mask, AT_EMPTY_PATH | AT_EACCESS));
}

int rm_getdents(int fd, int64_t offset, char *buffer, int size)
{
	if (offset >= 0 && lseek(fd, offset, SEEK_SET) < 0)
		return -errno;
	return result_of(syscall(SYS_getdents64, fd, buffer, (unsigned int)size));
}

int rm_fanotify_init(unsigned int flags)
{
	return result_of(fanotify_init(flags, O_RDONLY | O_CLOEXEC | O_LARGEFILE));
}

int rm_fanotify_mark(int group, unsigned int flags, uint64_t mask, int folder)
{
	return result_of(fanotify_mark(group, flags, mask, folder, "."));
}

int rm_capabilities(uint64_t sets[3])
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	sets[0] = data[0].effective | (uint64_t)data[1].effective << 32;
	sets[1] = data[0].permitted | (uint64_t)data[1].permitted << 32;
	sets[2] = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	return 0;
}

static int set_capabilities(const uint64_t sets[3])
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{(uint32_t)sets[0], (uint32_t)sets[1], (uint32_t)sets[2]},
		{sets[0] >> 32, sets[1] >> 32, sets[2] >> 32},
	};
	return result_of(syscall(SYS_capset, &header, data));
}

/* The kernel takes the parent-death signal off a task whose ids change or whose capabilities grow (commit_creds). */
static int death_signal(void)
{
	int signal = 0;
	prctl(PR_GET_PDEATHSIG, &signal);
	return signal;
}

static void restore_death_signal(int signal)
{
	if (signal)
		prctl(PR_SET_PDEATHSIG, signal);
}

int rm_set_capabilities(const uint64_t sets[3])
{
	int signal = death_signal();
	int error = set_capabilities(sets);
	restore_death_signal(signal);
	return error;
}

int rm_act_as(uint32_t uid, uint32_t gid, const uint64_t capabilities[3])
{
	int signal = death_signal();
	setfsgid(gid);
	setfsuid(uid); /* these two do not fail but leave things as they were, which the next call tells */
	int error = (uint32_t)setfsgid(-1) == gid && (uint32_t)setfsuid(-1) == uid ? 0 : -EPERM;
	if (!error && capabilities)
		error = set_capabilities(capabilities);
	restore_death_signal(signal);
	return error;
}

int rm_set_groups(int count, const uint32_t *groups)
{
	return result_of(syscall(SYS_setgroups, (size_t)count, groups));
}
