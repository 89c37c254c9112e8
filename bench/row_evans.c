/*
 * row_evans.c - Evan Jones's program: 2,000,000 blocks, freed, allocated again, dropped.
 *
 *   step:      fill        free   idle    fill again    drop   idle     trim
 *   live:      /^^^^^^^^^^^^\______________/^^^^^^^^^^^^^\__________________
 *   resident:  what an allocator makes of it
 *
 * He showed with it that Python's allocator kept what was freed. Blocks are of 64 bytes, as large as an
 * empty dict of today; the list that names them is allocated too, and goes with the drop.
 *
 * Samples: time, live bytes (as asked for), resident bytes beyond those before the first block, and
 * returned bytes: the sum of all falls of the resident ones. Retained is resident minus live.
 * "value" is ns a block for one allocation and one free; marks are the times of the steps' ends.
 */
#include "heap_cold.h"

enum {
	BLOCKS = 2000000,
	BLOCKS_QUICK = 20000,
	BLOCK_BYTES = 64,
	SAMPLES_MAX = 800,
	SAMPLES_A_STEP = 50,
	IDLE_SAMPLES = 40,
	MARKS = 7,
};

struct trace {
	struct stage *stage;
	uint64_t begin_ns;
	uint64_t pause_ns, work_pause_ns; /* spent on sampling, by either clock; not counted */
	uint64_t base, live, last, returned;
	size_t count, marks;
	double time_ms[SAMPLES_MAX], live_bytes[SAMPLES_MAX], resident_bytes[SAMPLES_MAX],
		returned_bytes[SAMPLES_MAX], mark_ms[MARKS];
};

static double trace_time(const struct trace *trace)
{
	return (double)(now_ns() - trace->begin_ns - trace->pause_ns) / 1e6;
}

/* The clock of the figures, without what sampling took. */
static uint64_t work_clock(const struct trace *trace)
{
	return stage_clock(trace->stage) - trace->work_pause_ns;
}

static void sample(struct trace *trace)
{
	uint64_t begin = now_ns(), work = stage_clock(trace->stage),
		 resident = stage_resident(trace->stage);

	if (trace->count == SAMPLES_MAX)
		return;
	resident = resident > trace->base ? resident - trace->base : 0;
	if (resident < trace->last)
		trace->returned += trace->last - resident;
	trace->last = resident;
	trace->time_ms[trace->count] = trace_time(trace);
	trace->live_bytes[trace->count] = (double)trace->live;
	trace->resident_bytes[trace->count] = (double)resident;
	trace->returned_bytes[trace->count] = (double)trace->returned;
	trace->count++;
	trace->pause_ns += now_ns() - begin;
	trace->work_pause_ns += stage_clock(trace->stage) - work;
}

static void mark(struct trace *trace)
{
	sample(trace);
	if (trace->marks < MARKS)
		trace->mark_ms[trace->marks++] = trace_time(trace);
}

/* ---- the steps ---- */

static void fill(struct trace *trace, struct worker *worker, void **list, size_t count)
{
	const struct heap_ops *ops = worker->stage->subject->ops;

	for (size_t i = 0; i < count; i++) {
		list[i] = ops->alloc(worker, BLOCK_BYTES);
		if (!list[i])
			worker_no_memory(worker);
		object_write(list[i], BLOCK_BYTES, i);
		trace->live += BLOCK_BYTES;
		if (i % (count / SAMPLES_A_STEP) == 0)
			sample(trace);
	}
	mark(trace);
}

static void empty(struct trace *trace, struct worker *worker, void **list, size_t count)
{
	const struct heap_ops *ops = worker->stage->subject->ops;

	for (size_t i = 0; i < count; i++) {
		worker->outcome.corrupt += object_wrong(list[i], BLOCK_BYTES, i);
		ops->free(worker, list[i], BLOCK_BYTES);
		trace->live -= BLOCK_BYTES;
		if (i % (count / SAMPLES_A_STEP) == 0)
			sample(trace);
	}
	mark(trace);
}

/* Nothing but a block now and then, as a program that waits for work has. */
static void idle(struct trace *trace, struct worker *worker, uint64_t ns)
{
	for (unsigned i = 0; i < IDLE_SAMPLES; i++) {
		sleep_ns(ns / IDLE_SAMPLES);
		light_activity(worker, 1);
		sample(trace);
	}
	mark(trace);
}

static void report_trace(const struct trace *trace, size_t count)
{
	report_number("blocks", (double)count);
	report_list("time_ms", trace->time_ms, trace->count);
	report_list("live_bytes", trace->live_bytes, trace->count);
	report_list("resident_bytes", trace->resident_bytes, trace->count);
	report_list("returned_bytes", trace->returned_bytes, trace->count);
	report_list("mark_ms", trace->mark_ms, trace->marks);
}

static void run_steps(struct trace *trace, struct worker *worker, size_t count)
{
	const struct subject *subject = worker->stage->subject;
	uint64_t pause = worker->stage->quick ? SECOND_NS / 50 : SECOND_NS * 3 / 2;
	void **list = subject->ops->alloc(worker, count * sizeof(*list));
	uint64_t begin, work;

	if (!list)
		worker_no_memory(worker);
	trace->live += count * sizeof(*list);
	begin = work_clock(trace);
	fill(trace, worker, list, count);
	empty(trace, worker, list, count);
	work = work_clock(trace) - begin;
	idle(trace, worker, pause);
	begin = work_clock(trace);
	fill(trace, worker, list, count);
	empty(trace, worker, list, count);
	subject->ops->free(worker, list, count * sizeof(*list));
	work += work_clock(trace) - begin;
	trace->live -= count * sizeof(*list);
	report_number("value", (double)work / (2 * (double)count));
	idle(trace, worker, pause);
	if (subject->trim)
		subject->trim(worker->stage);
	mark(trace);
}

int row_evans(struct stage *stage)
{
	static struct trace trace;
	struct worker worker;
	size_t count = stage->quick ? BLOCKS_QUICK : BLOCKS;

	if (crew_alone(stage, &worker) != 0)
		return -1;
	light_activity(&worker, 1);
	trace.stage = stage;
	trace.base = stage_resident(stage);
	trace.begin_ns = now_ns();
	sample(&trace);
	run_steps(&trace, &worker, count);
	report_trace(&trace, count);
	report_number("corrupt", (double)worker.outcome.corrupt);
	return 0;
}
