/*
 * step.h - run one operation an instruction at a time: kill it there, or pause it there and run its rival.
 *
 * For each k = 0, 1, 2 ... until the operation ends before its k-th instruction, a new *scene* is played:
 *
 *   test ---fork--> scene: setup(ctx)
 *                     |---fork--> victim: prepare(ctx) | operation(ctx) | after(ctx)
 *                     |             at full speed        k instructions, by ptrace
 *   step_kill         |   SIGKILL to the victim, reaped
 *   step_pause        |---fork--> rival(ctx) runs to its end while the victim stands still
 *                     |   the victim goes on to its end
 *                     |   check(ctx): judges what is left; its result is counted as an outcome
 *
 * Owner:     the scene traces the victim; the test only counts.
 * Invariant: P1  every point of the schedule is played in a scene of its own, nothing is carried over
 *            P2  the victim is dead and reaped before check() runs
 *            P3  a rival that does not end within the limit is a problem (it waited for a stopped process)
 * Ordering:  fork and wait; a scene's report is read after the scene was reaped.
 * Lifetime:  what setup() makes lives in the scene and in the processes forked from it; what lies in
 *            MAP_SHARED memory is seen by all of them. To hand counters to the test itself, map
 *            them shared before the call.
 * Death:     a victim dies with its scene (PTRACE_O_EXITKILL), a scene with the test.
 *
 * What stepping shows and what not: it explores where one thread stops, not weak-memory reorderings.
 * A system call counts as one instruction; the victim's own children and threads run free. Restartable
 * sequences (glibc registers rseq) and exclusive load/store loops of old arm64 code never get to their
 * end under single-stepping; the library under test uses neither (arm64: build with LSE atomics).
 * Load everything with -z now: a lazy binding would add the dynamic linker to the first call.
 */
#ifndef SHALE_TESTS_LIB_STEP_H
#define SHALE_TESTS_LIB_STEP_H

#include <stdbool.h>
#include <stdint.h>

enum { STEP_OUTCOMES = 32 };

/* All but operation may be NULL. Each may use EXPECT and ASSERT; a failure fails the test. */
struct step_case {
	const char *name;
	void (*setup)(void *ctx);   /* scene: the world before the operation, new for each point */
	void (*prepare)(void *ctx); /* victim, at full speed: attach, warm caches */
	void (*operation)(void *ctx); /* victim, one instruction at a time */
	void (*after)(void *ctx);     /* victim that was resumed, at full speed */
	void (*rival)(void *ctx);     /* a third process, while the victim stands still */
	int (*check)(void *ctx);      /* scene: outcome 0 .. STEP_OUTCOMES-1, or negative: wrong */
	void *ctx;
};

/* Zeroes are the defaults: the first 200 instructions, then gaps; problems fail the test. */
struct step_options {
	uint64_t dense;  /* so many points from the start without a gap; 0: 200 */
	uint64_t stride; /* after them every stride-th or so, fewer as the operation grows longer
			    (SHALE_TEST_LONG=1: all the same) */
	uint64_t offset; /* first point after the dense ones; 0: chosen by the seed, below stride */
	uint64_t max_steps;    /* give up stepping here; default a million */
	unsigned int limit_ms; /* for the rival, the resumed victim and the check; default 5000 */
	unsigned int max_problems; /* stop after so many; default 3 */
	bool quiet;                /* problems are counted only: for tests that expect them */
};

struct step_result {
	uint64_t points;                  /* scenes played */
	uint64_t instructions;            /* from marker to marker, when the end was reached */
	bool complete;                    /* the schedule reached the end of the operation */
	uint64_t outcomes[STEP_OUTCOMES]; /* how often check() gave each result */
	unsigned int distinct;            /* how many different ones */
	/* problems */
	uint64_t problems;      /* all of the following */
	uint64_t wrong;         /* check() was negative, or failed */
	uint64_t stuck;         /* the rival did not end */
	uint64_t blocked;       /* the victim did not end, stepped or resumed */
	uint64_t died;          /* the victim or the rival ended badly by itself */
	uint64_t first_problem; /* the point of the first one */
};

/* Both skip the test where ptrace is not to be had, fail it on problems, and fill *ret_result. */
void step_kill(const struct step_case *step, const struct step_options *options,
	       struct step_result *ret_result);
void step_pause(const struct step_case *step, const struct step_options *options,
		struct step_result *ret_result);

/*
 * For setups: leave a victim of `step` dead after k instructions, without its setup and check. 1 when
 * the operation had ended before, else 0; a failed check when the victim could not be led there.
 */
int step_kill_at(const struct step_case *step, uint64_t k);
/* Play one scene to the end of the operation: its number of instructions (it may vary a little). */
uint64_t step_count(const struct step_case *step);

bool step_supported(void);

#endif
