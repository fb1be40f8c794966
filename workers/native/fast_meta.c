/* Names and attributes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fast_call.h"
#include "nodes.h"
#include "system.h"

enum { GETATTR_FH = 1 << 0 };

struct getattr_in {
	uint32_t flags, dummy;
	uint64_t fh;
};

bool rm_do_getattr(struct call *call)
{
	const struct getattr_in *in = call->in;
	struct attr_out *out = (struct attr_out *)call->payload;
	int fd = in->flags & GETATTR_FH ? handle_fd(call, in->fh) : rm_fast_get(call->fast, call->node);
	struct stat st;

	if (fd < 0) {
		if (in->flags & GETATTR_FH || call->node == ROOT)
			return false;
		fd = rm_open_node(call, O_PATH | O_NOFOLLOW);
		if (fd < 0)
			return false;
		rm_keep(call, call->node, fd);
		fd = rm_fast_get(call->fast, call->node);
	}
	if (fd < 0 || fstat(fd, &st) || !is_plain(call, &st))
		return false;
	*out = (struct attr_out){ .valid = call->setup->attr_valid, .valid_nsec = call->setup->attr_valid_nsec };
	fill_attr(&out->attr, &st);
	return answer(call, sizeof *out);
}

bool rm_do_lookup(struct call *call)
{
	const char *name = (const char *)call->payload;
	size_t length = strnlen(name, call->journal->payload_size);
	int folder = call->node == ROOT ? call->setup->root : rm_fast_get(call->fast, call->node);
	struct rm_file_handle handle;
	struct stat st;
	char key[HANDLE_AT + sizeof handle.bytes];

	if (folder < 0 || length == 0 || length > NAME_MOST || length + 1 != call->journal->payload_size ||
	    memchr(name, '/', length) || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	int fd = rm_lookup(folder, name, &handle);

	if (fd == -ENOENT && !call->setup->remembers_missing)
		return fail(call, ENOENT);
	if (fd < 0)
		return false;
	if (handle.size <= 0 || handle.mount != call->setup->mount || fstat(fd, &st) || !is_plain(call, &st)) {
		close(fd);
		return false;
	}
	key[0] = 'h';
	memcpy(key + 1, &call->setup->device, sizeof call->setup->device);
	memcpy(key + HANDLE_AT, handle.bytes, (size_t)handle.size);
	int64_t node = rm_nodes_take(call->setup->nodes, key, HANDLE_AT + handle.size, "", 0, call->journal->intent);

	if (node < 0) {
		close(fd);
		return false;
	}
	if (S_ISDIR(st.st_mode))
		rm_keep(call, (uint64_t)node, fd);
	else
		close(fd);
	struct entry_out *out = (struct entry_out *)call->payload;

	*out = (struct entry_out){
		.node = (uint64_t)node, .entry_valid = call->setup->entry_valid, .attr_valid = call->setup->attr_valid,
		.entry_valid_nsec = call->setup->entry_valid_nsec, .attr_valid_nsec = call->setup->attr_valid_nsec,
	};
	fill_attr(&out->attr, &st);
	return answer(call, sizeof *out);
}

/* Asked before the first write after each refresh of a file's attributes (cap_inode_need_killpriv); hardly a file has it. */
bool rm_do_getxattr(struct call *call)
{
	static const char capability[] = "security.capability";
	char path[32], value[64];
	int fd = rm_fast_get(call->fast, call->node);

	if (call->journal->payload_size != sizeof capability || memcmp(call->payload, capability, sizeof capability))
		return false;
	bool opened = fd < 0;

	if (opened && (call->node == ROOT || (fd = rm_open_node(call, O_PATH | O_NOFOLLOW)) < 0))
		return false;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	bool missing = getxattr(path, capability, value, sizeof value) < 0 && errno == ENODATA;

	if (opened)
		close(fd);
	return missing && fail(call, ENODATA);
}
