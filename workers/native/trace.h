/* Records of answered requests, for who looks on (trace.cdef). Used by ring.c alone. */
#ifndef RINGMOUNT_TRACE_H
#define RINGMOUNT_TRACE_H
#include <stdint.h>
#include "arena.h"

void rm_trace(const struct rm_arena *arena, struct rm_worker *worker, uint32_t index, uint64_t now);
#endif
