/* The table of nodes that all processes of a mount share. See nodes.cdef for what each function does. */
#ifndef RINGMOUNT_NODES_H
#define RINGMOUNT_NODES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rm_nodes_stats {
	uint64_t capacity, live, used, anomalies, repairs;
};

size_t rm_nodes_size(uint32_t capacity);
int rm_nodes_create(void *base, size_t size);
int rm_nodes_open(void *base, size_t size);
int64_t rm_nodes_take(void *base, const char *key, int key_length, const char *value, int value_length,
		      uint64_t *intent);
int64_t rm_nodes_find(void *base, const char *key, int key_length);
int rm_nodes_value(void *base, uint64_t node, char *out, int room);
int rm_nodes_key(void *base, uint64_t node, char *out, int room);
int rm_nodes_replace(void *base, uint64_t node, const char *value, int value_length);
int rm_nodes_rekey(void *base, uint64_t node, const char *key, int key_length);
int rm_nodes_watch(void *base, uint64_t node, int worker);
int rm_nodes_forget(void *base, uint64_t node, uint64_t references, uint64_t *watchers);
int rm_nodes_forget_batch(void *base, const uint64_t *pairs, int n, uint64_t *gone, uint64_t *watchers, int *n_gone);
int rm_nodes_settle(void *base, uint64_t *intent, uint64_t *watchers);
bool rm_nodes_is_counted(void *base, const uint64_t *intent);
void rm_nodes_own(uint64_t node, uint64_t *intent);
int rm_nodes_return(void *base, uint64_t *intent);
bool rm_nodes_was_returned(const uint64_t *intent);
int rm_nodes_recover(void *base, int pid);
int rm_nodes_iterate(void *base, uint32_t *cursor, uint64_t *nodes, uint64_t *counts, int n);
void rm_nodes_stats(void *base, struct rm_nodes_stats *stats);
int rm_nodes_verify(void *base, char *message, int room);
void rm_die_at(int step, int signal);
#endif
