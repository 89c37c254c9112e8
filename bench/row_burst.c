/*
 * row_burst.c - 1 GiB of small objects, freed in random order but for 0.1 %: what stays resident?
 *
 *   resident: before | peak | right after the frees | + 1 s idle | + 1 s light activity | + trim
 *             base     1.0    share_after             share_idle   share_active           share_trim
 *
 * Shares are of the peak, both without what was resident before. The survivors are checked at the end.
 * "value" is ns an object for one allocation and one free.
 */
#include "heap_cold.h"

#define BURST_BYTES       (UINT64_C(1) << 30)
#define BURST_QUICK_BYTES (UINT64_C(16) << 20)

enum { SURVIVORS_IN = 1000 };

static void report_share(struct stage *stage, const char *name, uint64_t base, uint64_t peak)
{
	report_number(name, ((double)stage_resident(stage) - (double)base) /
				    ((double)peak - (double)base));
}

static uint64_t pause_of(const struct stage *stage)
{
	return stage->quick ? SECOND_NS / 50 : SECOND_NS;
}

static void report_shares(struct stage *stage, struct worker *worker, uint64_t base, uint64_t peak)
{
	report_share(stage, "share_after", base, peak);
	sleep_ns(pause_of(stage));
	report_share(stage, "share_idle", base, peak);
	light_activity(worker, pause_of(stage));
	report_share(stage, "share_active", base, peak);
	if (stage->subject->trim) {
		uint64_t begin = stage_clock(stage);

		stage->subject->trim(stage);
		report_number("trim_ms", (double)(stage_clock(stage) - begin) / 1e6);
		report_share(stage, "share_trim", base, peak);
	}
}

int row_burst(struct stage *stage)
{
	struct worker worker;
	struct herd herd;
	uint64_t base, peak, begin, middle, end;
	double each;

	if (crew_alone(stage, &worker) != 0)
		return -1;
	herd_make(&herd, stage->quick ? BURST_QUICK_BYTES : BURST_BYTES, &worker.random);
	light_activity(&worker, 1); /* so that base holds what the first block brings */
	base = stage_resident(stage);
	begin = stage_clock(stage);
	herd_alloc(&herd, &worker);
	middle = stage_clock(stage);
	peak = stage_resident(stage);
	each = 1.0 / (double)herd.count;
	report_number("alloc_ns", (double)(middle - begin) * each);
	begin += stage_clock(stage) - middle; /* looking at the peak is no work of the allocator */
	middle = stage_clock(stage);
	herd_free(&herd, &worker, herd.count / SURVIVORS_IN);
	end = stage_clock(stage);
	report_number("free_ns", (double)(end - middle) * each);
	report_number("value", (double)(end - begin) * each);
	report_number("peak_over_live", (double)(peak - base) / (double)herd.bytes);
	report_shares(stage, &worker, base, peak);
	report_number("corrupt", (double)(herd_wrong(&herd) + worker.outcome.corrupt));
	herd_free(&herd, &worker, herd.count);
	return 0;
}
