/*
 * crew.c - the workers of a row: pinned, started together, timed; one is the program's own thread.
 *
 * Owner:     each worker writes its own outcome; the stage's thread reads them when all have ended.
 * Invariant: one worker runs on the program's first thread, which never had a second: allocators
 *            that are faster in a program without threads are measured as such.
 * Ordering:  bench.barrier: the last to arrive releases the round, the others acquire it.
 * Lifetime:  threads are joined, processes reaped, before crew_run() returns.
 * Death:     a worker process that dies ends the others and the row; a worker that has no memory
 *            ends its process.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "objects.h"
#include "subject.h"

enum { EXIT_NO_MEMORY = 3, EXIT_NO_HEAP = 4, BARRIER_SPINS = 1024 };

/* ---- pins ---- */

static cpu_set_t all; /* cores that the program may use, before a library pins it */

void crew_init(void)
{
	if (sched_getaffinity(0, sizeof(all), &all) != 0)
		CPU_ZERO(&all);
}

/* Pins the caller to the n-th core that the program may use; with too few, workers share. */
static void pin(unsigned n)
{
	unsigned count = (unsigned)CPU_COUNT(&all), seen = 0;
	cpu_set_t one;

	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all) || seen++ != n % count)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

/* ---- the clock ---- */

void worker_barrier(struct worker *worker)
{
	struct stage_shared *shared = worker->shared;
	uint32_t round = atomic_load_explicit(&shared->round, memory_order_relaxed);

	/* pairs: bench.barrier - what each worker did before is seen by all after it. */
	if (atomic_fetch_add_explicit(&shared->arrived, 1, memory_order_acq_rel) + 1 ==
	    worker->stage->workers) {
		atomic_store_explicit(&shared->arrived, 0, memory_order_relaxed);
		atomic_store_explicit(&shared->round, round + 1, memory_order_release);
		return;
	}
	/* pairs: bench.barrier */
	for (unsigned spins = 1;
	     atomic_load_explicit(&shared->round, memory_order_acquire) == round; spins++)
		if (spins % BARRIER_SPINS == 0)
			sched_yield();
}

void worker_begin(struct worker *worker)
{
	worker_barrier(worker);
	worker->outcome.operations = 0;
	worker->begin_cpu_ns = now_cpu_ns();
	worker->begin_ns = now_ns();
	worker->deadline_ns = worker->begin_ns + worker->stage->budget_ns;
}

void worker_end(struct worker *worker, uint64_t operations)
{
	worker->outcome.operations += operations;
	worker->outcome.elapsed_ns = now_ns() - worker->begin_ns;
	worker->outcome.cpu_ns = now_cpu_ns() - worker->begin_cpu_ns;
}

bool worker_more(struct worker *worker, uint64_t operations)
{
	uint64_t now = now_ns();

	worker->outcome.operations += operations;
	if (now < worker->deadline_ns)
		return true;
	worker_end(worker, 0);
	return false;
}

void worker_no_memory(struct worker *worker)
{
	(void)worker;
	report_text("reason", "the allocator had no memory");
	_exit(EXIT_NO_MEMORY);
}

/* ---- workers ---- */

static void worker_run(struct worker *worker)
{
	const struct subject *subject = worker->stage->subject;

	pin(worker->index);
	if (subject->join && subject->join(worker) != 0) {
		report_text("reason", "a worker cannot use the heap");
		_exit(EXIT_NO_HEAP);
	}
	subject->run(worker);
	worker->shared->outcomes[worker->index] = worker->outcome;
}

static void worker_init(struct worker *worker, struct stage *stage, unsigned index)
{
	*worker = (struct worker){
		.stage = stage,
		.shared = stage->shared,
		.heap = stage->heap,
		.index = index,
		.random = (stage->seed + index) * UINT64_C(0x9e3779b97f4a7c15) | 1,
	};
}

int crew_alone(struct stage *stage, struct worker *worker)
{
	worker_init(worker, stage, 0);
	pin(0);
	if (stage->subject->join && stage->subject->join(worker) != 0) {
		snprintf(stage->reason, sizeof(stage->reason), "the worker cannot use the heap");
		return -1;
	}
	return 0;
}

static void *thread_main(void *argument)
{
	worker_run(argument);
	return NULL;
}

static int run_threads(struct stage *stage)
{
	struct worker workers[WORKERS_MAX];
	pthread_t threads[WORKERS_MAX];

	for (unsigned i = 0; i < stage->workers; i++) {
		int r;

		worker_init(&workers[i], stage, i);
		r = pthread_create(&threads[i], NULL, thread_main, &workers[i]);
		if (r != 0) { /* the others wait at their barrier: end with the program */
			snprintf(stage->reason, sizeof(stage->reason), "no thread: %s",
				 strerror(r));
			return -1;
		}
	}
	for (unsigned i = 0; i < stage->workers; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static _Noreturn void process_main(struct stage *stage, unsigned index, pid_t parent)
{
	struct worker worker;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	worker_init(&worker, stage, index);
	worker_run(&worker);
	_exit(0);
}

/* The first bad end of a worker ends the others, who would wait for it. */
static int reap(struct stage *stage, pid_t pids[WORKERS_MAX], unsigned count)
{
	int result = 0;

	for (unsigned left = count; left > 0; left--) {
		int status;
		pid_t pid = wait(&status);

		if (pid < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
			continue;
		if (result == 0) {
			snprintf(stage->reason, sizeof(stage->reason), "a worker process %s",
				 WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "failed");
			for (unsigned i = 0; i < count; i++)
				if (pids[i] != pid)
					kill(pids[i], SIGKILL);
		}
		result = -1;
	}
	return result;
}

static int run_processes(struct stage *stage)
{
	pid_t pids[WORKERS_MAX], self = getpid();
	unsigned count;

	for (count = 0; count < stage->workers; count++) {
		pids[count] = fork();
		if (pids[count] == 0)
			process_main(stage, count, self);
		if (pids[count] < 0)
			break;
	}
	if (count < stage->workers) {
		snprintf(stage->reason, sizeof(stage->reason), "no process: %s", strerror(errno));
		for (unsigned i = 0; i < count; i++)
			kill(pids[i], SIGKILL);
		reap(stage, pids, count);
		return -1;
	}
	return reap(stage, pids, count);
}

/* ---- the row ---- */

static void report_outcomes(struct stage *stage)
{
	double ns = 0, cpu_ns = 0;
	uint64_t corrupt = 0, operations = 0;

	for (unsigned i = 0; i < stage->workers; i++) {
		const struct outcome *outcome = &stage->shared->outcomes[i];

		double each = (double)(outcome->operations > 0 ? outcome->operations : 1);

		ns += (double)outcome->elapsed_ns / each / stage->workers;
		cpu_ns += (double)outcome->cpu_ns / each / stage->workers;
		corrupt += outcome->corrupt;
		operations += outcome->operations;
	}
	report_number("value", stage->cpu_clock ? cpu_ns : ns);
	report_number(stage->cpu_clock ? "wall_ns" : "cpu_ns", stage->cpu_clock ? ns : cpu_ns);
	report_number("operations", (double)operations);
	report_number("corrupt", (double)corrupt);
}

int crew_run(struct stage *stage)
{
	int r = 0;

	if (stage->processes) {
		r = run_processes(stage);
	} else if (stage->workers > 1) {
		r = run_threads(stage);
	} else {
		struct worker worker;

		worker_init(&worker, stage, 0);
		worker_run(&worker);
	}
	if (r == 0)
		report_outcomes(stage);
	return r;
}
