/*
 * step_schedule.h - which instruction comes next: all of them, or a sample that reaches the end.
 */
#ifndef SHALE_TESTS_LIB_STEP_SCHEDULE_H
#define SHALE_TESTS_LIB_STEP_SCHEDULE_H

#include "harness.h"
#include "step.h"

#define QUICK_DENSE 200u /* points without a gap, in the quick form, at most */
#define QUICK_SHARE 25u  /* then gaps of about this part of the way so far */

static inline uint64_t random_gap(uint64_t k, uint64_t gap)
{
	uint64_t mixed = (test_seed() ^ k) * UINT64_C(0x9e3779b97f4a7c15);

	return 1 + (mixed >> 32) % (2 * gap - 1);
}

/*
 * The quick form of a long operation: gaps that grow, each of a random length, so that runs with other
 * seeds play other points, and every operation is played to its end. SHALE_TEST_LONG=1: no gaps.
 */
static inline uint64_t next_point(const struct step_options *options, uint64_t k)
{
	uint64_t dense = options->dense, gap = options->stride;

	if (test_long())
		return k + 1;
	if (dense == 0 || gap <= 1)
		dense = QUICK_DENSE;
	if (k + 1 < dense)
		return k + 1;
	if (k + 1 == dense)
		return dense + options->offset;
	if (gap < k / QUICK_SHARE)
		gap = k / QUICK_SHARE;
	return k + (gap > 1 ? random_gap(k, gap) : 1);
}

#endif
