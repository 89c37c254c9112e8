/*
 * step_leap.c - the recorded addresses of an operation, and one hardware breakpoint.
 *
 *   pcs    a  b  c  b  c  b  c  d        arrivals of c before index 6: 3
 *   seen   -  1  1  2  2  3  3  1        cheapest way to 6: leap to c, third arrival, or b and one step
 *
 * A string instruction with a repeat prefix stops once an iteration when stepped, but is arrived at
 * once by a breakpoint: repeated equal addresses count as one arrival and are never leapt to.
 *
 * Owner, Ordering, Lifetime, Death: see step_leap.h.
 * Invariant: L1 of step_leap.h; L2 seen[i] >= 1 for each i > 0 that differs from its predecessor.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "step_leap.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>

enum { LEAP_COST = 8 }; /* setting and removing a breakpoint, in steps */

#if defined(__x86_64__)
uint64_t step_pc(pid_t pid)
{
	return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL);
}

int step_breakpoint(pid_t pid, uint64_t pc)
{
	const size_t address = offsetof(struct user, u_debugreg[0]);
	const size_t control = offsetof(struct user, u_debugreg[7]);

	if (pc == 0)
		return ptrace(PTRACE_POKEUSER, pid, control, 0) < 0 ? -errno : 0;
	if (ptrace(PTRACE_POKEUSER, pid, address, pc) < 0)
		return -errno;
	return ptrace(PTRACE_POKEUSER, pid, control, 1) < 0 ? -errno : 0; /* on execution */
}
#else
uint64_t step_pc(pid_t pid)
{
	(void)pid;
	return 0;
}

int step_breakpoint(pid_t pid, uint64_t pc)
{
	(void)pid;
	(void)pc;
	return -ENOSYS;
}
#endif

int step_trace_init(struct step_trace *trace)
{
	void *pcs = mmap(NULL, (STEP_TRACE_MAX + 1) * sizeof(uint64_t), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*trace = (struct step_trace){0};
	if (pcs == MAP_FAILED)
		return -errno;
	trace->pcs = pcs;
	return 0;
}

void step_trace_finish(struct step_trace *trace)
{
	if (trace->pcs != NULL)
		munmap(trace->pcs, (STEP_TRACE_MAX + 1) * sizeof(uint64_t));
	free(trace->seen);
	*trace = (struct step_trace){0};
}

struct arrivals {
	uint64_t pc;
	uint32_t count;
};

static uint32_t arrive(struct arrivals *table, uint64_t mask, uint64_t pc)
{
	uint64_t slot = (pc * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & mask;

	while (table[slot].pc != 0 && table[slot].pc != pc)
		slot = (slot + 1) & mask;
	table[slot].pc = pc;
	return ++table[slot].count;
}

void step_trace_close(struct step_trace *trace, uint64_t count)
{
	const uint64_t slots = 2 * STEP_TRACE_MAX;
	struct arrivals *table;

	if (count == 0 || count > STEP_TRACE_MAX || trace->pcs[0] == 0)
		return;
	table = calloc(slots, sizeof(*table));
	trace->seen = calloc(count + 1, sizeof(*trace->seen));
	if (table != NULL && trace->seen != NULL)
		trace->count = count;
	for (uint64_t i = 1; i <= trace->count; i++)
		if (trace->pcs[i] != trace->pcs[i - 1])
			trace->seen[i] = arrive(table, slots - 1, trace->pcs[i]);
	free(table);
}

uint64_t step_trace_plan(const struct step_trace *trace, uint64_t k, uint32_t *ret_arrivals)
{
	uint64_t best = 0, best_cost = k;

	if (k > trace->count)
		return 0;
	for (uint64_t i = k; i > 0 && k - i + LEAP_COST < best_cost; i--) {
		uint64_t cost = k - i + trace->seen[i] + LEAP_COST;

		if (trace->seen[i] == 0 || cost >= best_cost)
			continue;
		best = i;
		best_cost = cost;
		*ret_arrivals = trace->seen[i];
	}
	return best;
}
