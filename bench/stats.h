/*
 * stats.h - median and quartiles of a few numbers.
 */
#ifndef SHALE_BENCH_STATS_H
#define SHALE_BENCH_STATS_H

#include <stddef.h>

struct quartiles {
	double median, q1, q3;
	size_t count; /* 0: the others mean nothing */
};

/* Sorts values. Between two numbers it interpolates: the quartile of 1 2 3 4 5 is 2. */
struct quartiles stats_quartiles(double *values, size_t count);

#endif
