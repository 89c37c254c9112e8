/*
 * stats.c - median and quartiles of a few numbers.
 */
#include "stats.h"

#include <stdlib.h>

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

static double at_share(const double *sorted, size_t count, double share)
{
	double place = share * (double)(count - 1);
	size_t below = (size_t)place;
	size_t above = below + 1 < count ? below + 1 : below;

	return sorted[below] + (place - (double)below) * (sorted[above] - sorted[below]);
}

struct quartiles stats_quartiles(double *values, size_t count)
{
	if (count == 0)
		return (struct quartiles){0};
	qsort(values, count, sizeof(*values), compare);
	return (struct quartiles){
		.median = at_share(values, count, 0.5),
		.q1 = at_share(values, count, 0.25),
		.q3 = at_share(values, count, 0.75),
		.count = count,
	};
}
