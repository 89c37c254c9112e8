/*
 * step_leap.h - reach the k-th instruction of an operation without stepping through the k before it.
 *
 * Stepping to every k costs N * N / 2 stops for N instructions. One recorded run gives the address of
 * each; later victims, forked from the same process and so at the same addresses, run at full speed to
 * a hardware breakpoint near k and step the few instructions that are left.
 *
 * Owner:     the trace is written by one recording scene and read by all later ones.
 * Invariant: L1  a leap ends at the recorded address, or reports that it missed; never further silently
 *                than the nth occurrence of that address
 * Ordering:  the trace is read after the recording scene was reaped.
 * Lifetime:  as long as one schedule.
 * Death:     a breakpoint dies with its victim.
 */
#ifndef SHALE_TESTS_LIB_STEP_LEAP_H
#define SHALE_TESTS_LIB_STEP_LEAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { STEP_TRACE_MAX = 1 << 18 };

struct step_trace {
	uint64_t *pcs;  /* shared: pcs[i] is where a victim stands after i steps */
	uint32_t *seen; /* private: so often has pcs[i] been arrived at in 1 .. i */
	uint64_t count; /* the last valid index; 0: no trace */
};

/* The address at which a stopped child stands; 0 where that is not known how to ask. */
uint64_t step_pc(pid_t pid);
int step_trace_init(struct step_trace *trace);
void step_trace_finish(struct step_trace *trace);
/* The recording is over, after `count` steps. */
void step_trace_close(struct step_trace *trace, uint64_t count);
/* From where to leap for point k, 0 when stepping is as good; arrive there so many times. */
uint64_t step_trace_plan(const struct step_trace *trace, uint64_t k, uint32_t *ret_arrivals);
/* Set the breakpoint of a stopped child; pc 0 removes it. */
int step_breakpoint(pid_t pid, uint64_t pc);

#endif
