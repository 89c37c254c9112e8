/*
 * row_cycle.c - 20 bursts in a row: does a cycle's time stay flat?
 *
 * Each cycle allocates 64 MiB of small objects, frees them in random order but for 0.1 %, and then
 * the survivors of the cycle before. "growth" is the time of the last five cycles over that of the
 * second to sixth; "value" is ns an object over all cycles, "cycle_ns" that of each.
 */
#include "heap_cold.h"

#define CYCLE_BYTES       (UINT64_C(64) << 20)
#define CYCLE_QUICK_BYTES (UINT64_C(2) << 20)

enum { CYCLES = 20, COMPARED = 5, SURVIVORS_IN = 1000 };

static double sum(const double *values, size_t count)
{
	double total = 0;

	for (size_t i = 0; i < count; i++)
		total += values[i];
	return total;
}

/* The objects that outlive their cycle, kept apart so that the herd can be filled anew. */
static void survivors_free(struct worker *worker, const struct herd *herd, void **survivors,
			   size_t count)
{
	const struct heap_ops *ops = worker->stage->subject->ops;

	for (size_t i = 0; i < count && survivors[i]; i++)
		ops->free(worker, survivors[i], herd->sizes[herd->order[i]]);
}

int row_cycle(struct stage *stage)
{
	double cycle_ns[CYCLES];
	struct worker worker;
	struct herd herd;
	size_t kept;
	void **survivors;

	if (crew_alone(stage, &worker) != 0)
		return -1;
	herd_make(&herd, stage->quick ? CYCLE_QUICK_BYTES : CYCLE_BYTES, &worker.random);
	kept = herd.count / SURVIVORS_IN;
	survivors = pages_map((kept + 1) * sizeof(*survivors));
	for (unsigned cycle = 0; cycle < CYCLES; cycle++) {
		uint64_t begin = stage_clock(stage);

		herd_alloc(&herd, &worker);
		herd_free(&herd, &worker, kept);
		worker.outcome.corrupt += herd_wrong(&herd);
		survivors_free(&worker, &herd, survivors, kept);
		for (size_t i = 0; i < kept; i++)
			survivors[i] = herd.objects[herd.order[i]];
		cycle_ns[cycle] = (double)(stage_clock(stage) - begin) / (double)herd.count;
	}
	report_number("value", sum(cycle_ns, CYCLES) / CYCLES);
	report_number("growth",
		      sum(cycle_ns + CYCLES - COMPARED, COMPARED) / sum(cycle_ns + 1, COMPARED));
	report_list("cycle_ns", cycle_ns, CYCLES);
	report_number("corrupt", (double)worker.outcome.corrupt);
	return 0;
}
