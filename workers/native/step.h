/*
 * STEP(): the places between which a table in shared memory may be left by a process that dies.
 *
 * A change is a row of stores; a STEP() stands between two of them whenever their order matters to whoever
 * finds the table later. It does two things:
 *
 * 1. It keeps the compiler from moving stores across it. That is all the ordering that a death needs: a killed
 *    thread stops between two instructions, everything before has happened and nothing after.
 * 2. It is where the tests kill: rm_die_at(k, signal) lets the k-th STEP() from now send `signal` to the process.
 *    Switched off it costs a load and a branch that is never taken.
 */
#ifndef RINGMOUNT_STEP_H
#define RINGMOUNT_STEP_H
#include <stdatomic.h>

#pragma GCC visibility push(hidden)
extern int rm_steps_to_live;
void rm_step_reached(void);
#pragma GCC visibility pop

#define STEP()                                               \
	do {                                                 \
		atomic_signal_fence(memory_order_seq_cst);   \
		if (__builtin_expect(rm_steps_to_live, 0))   \
			rm_step_reached();                   \
		atomic_signal_fence(memory_order_seq_cst);   \
	} while (0)

#endif
