/* A worker's death that loses nothing. See death.cdef. */
#ifndef RINGMOUNT_DEATH_H
#define RINGMOUNT_DEATH_H
#include "arena.h"
int rm_die_by_exec(struct rm_worker *record, const int *signals, int count);
int rm_note_origin(const int *signals, int count);
#endif
