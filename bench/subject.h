/*
 * subject.h - what is measured, and what it is measured with: subjects, stages, workers.
 *
 *   driver (shale-bench)                       worker program (one process a round and subject)
 *     for each row, mode, round:                 worker_main()
 *       for each subject: spawn  ------------>     stage: open the heap, run the row, report
 *       collect "name value" lines  <--------      workers: threads or forked processes, pinned
 *
 * A subject is an allocator behind four functions. The loops of heap_loops.h are compiled once for
 * each subject with those functions as constants, so that nothing stands between loop and allocator.
 *
 * Owner:     a stage belongs to the worker program's main thread, a worker to its thread or process.
 * Invariant: what crosses from worker to worker lies in stage.shared or goes through pack/unpack.
 * Ordering:  the barriers of crew.c; rings and slots are C11 atomics with the order at the access.
 * Lifetime:  one process a run: nothing is left for the next round.
 * Death:     a worker process that dies is noticed by its parent, a worker program by the driver.
 */
#ifndef SHALE_BENCH_SUBJECT_H
#define SHALE_BENCH_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rows.h"

#define BENCH_INLINE static inline __attribute__((always_inline))

enum { WORKERS_MAX = 2, SLOTS_MAX = 100000, RING_SLOTS = 4096, RING_BATCH = 64 };

struct stage;
struct worker;

/* An allocator. free gets the size asked for; only the limit uses it. alloc gives NULL: no memory. */
struct heap_ops {
	void *(*alloc)(struct worker *worker, size_t size);
	void (*free)(struct worker *worker, void *ptr, size_t size);
	/* a block as 64 bits that another worker, thread or process, can turn into an address */
	uint64_t (*pack)(struct worker *worker, void *ptr);
	void *(*unpack)(struct worker *worker, uint64_t handle);
};

struct subject {
	const char *name;
	uint64_t rows; /* bit n: can run row n */
	bool shared;   /* worker processes can share it */
	/* Makes the heap (stage->heap); 0, or -1 with stage->reason. NULL: nothing to make. */
	int (*open)(struct stage *stage);
	/* In each worker, thread or process, before it starts: sets worker->heap. May be NULL. */
	int (*join)(struct worker *worker);
	void (*close)(struct stage *stage);
	/* Runs a hot row: heap_row() of heap_loops.h with this subject's functions. */
	void (*run)(struct worker *worker);
	const struct heap_ops
		*ops; /* for rows where a call through a pointer is lost in the noise */
	/* Bytes resident for this process and its heap. NULL: what the kernel says of the process. */
	uint64_t (*resident)(struct stage *stage);
	/* The allocator's own call to give memory back. NULL: it has none. */
	void (*trim)(struct stage *stage);
	/* Bytes given back so far by the allocator's own count. NULL: it does not count. */
	uint64_t (*returned)(struct stage *stage);
};

/* What one worker has measured. */
struct outcome {
	uint64_t elapsed_ns;
	uint64_t cpu_ns; /* of the worker's own thread */
	uint64_t operations;
	uint64_t corrupt; /* objects that did not hold what was written to them */
};

/* Bytes that all workers see, also when they are processes. */
struct stage_shared {
	_Alignas(64) _Atomic uint32_t arrived;
	_Alignas(64) _Atomic uint32_t round;
	_Alignas(64) _Atomic uint64_t ring_tail; /* written by the producer */
	_Alignas(64) _Atomic uint64_t ring_head; /* written by the consumer */
	_Alignas(64) uint64_t ring[RING_SLOTS];
	_Alignas(64) _Atomic uint64_t slots[SLOTS_MAX];
	struct outcome outcomes[WORKERS_MAX];
};

struct stage {
	const struct subject *subject;
	const struct row *row;
	const char *variant;
	bool processes; /* workers are forked, not threads */
	bool quick;     /* small numbers: to see that it works */
	bool cpu_clock; /* the first figure is processor time, not time */
	unsigned workers;
	uint64_t budget_ns; /* how long a hot row is measured */
	uint64_t seed;
	void *heap;
	struct stage_shared *shared;
	char reason[200]; /* why it failed, in one line */
};

struct worker {
	struct stage *stage;
	struct stage_shared *shared;
	void *heap;
	unsigned index;
	uint64_t random;
	uint64_t begin_ns, begin_cpu_ns;
	uint64_t deadline_ns;
	struct outcome outcome;
};

/* ---- for the loops (crew.c) ---- */

/* Waits for all workers, then starts the clock. */
void worker_begin(struct worker *worker);
/* Counts operations; false when the time is over, and both clocks are stopped. */
bool worker_more(struct worker *worker, uint64_t operations);
/* Stops the clock now, for a row that is over when its work is. */
void worker_end(struct worker *worker, uint64_t operations);
/* All workers wait for each other, untimed. */
void worker_barrier(struct worker *worker);
/* Ends this worker: the allocator had no memory. */
_Noreturn void worker_no_memory(struct worker *worker);

/* ---- for the rows that are no loops ---- */

/* One "name value" line to the driver. */
void report_number(const char *name, double value);
void report_list(const char *name, const double *values, size_t count);
void report_text(const char *name, const char *text);

/* Looks which cores there are. Called before any library of a subject. */
void crew_init(void);
/* Runs the workers of a hot row and reports ns per operation. 0, or -1 with stage->reason. */
int crew_run(struct stage *stage);
/* Makes *worker the only worker, here. */
int crew_alone(struct stage *stage, struct worker *worker);
uint64_t stage_resident(struct stage *stage);
/* Now, by the clock that the figures are to be of: time, or this thread's processor time. */
uint64_t stage_clock(const struct stage *stage);

/* Main function of a worker program. */
int worker_main(int argc, char **argv, const struct subject *const *subjects, size_t count);

#endif
