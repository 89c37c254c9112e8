/*
 * objects.c - random sizes and orders, pages outside of every allocator, time.
 *
 * Owner:     the caller; pages_map() is never unmapped, the process is short.
 * Lifetime:  the process's.
 */
#include "objects.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

void sizes_uniform(uint32_t *sizes, size_t count, uint32_t low, uint32_t high, uint64_t *random)
{
	for (size_t i = 0; i < count; i++)
		sizes[i] = low + random_below(random, high - low + 1);
}

void sizes_log(uint32_t *sizes, size_t count, uint32_t low, uint32_t high, uint64_t *random)
{
	double ratio = log((double)high / low);

	for (size_t i = 0; i < count; i++) {
		double share = random_next(random) / 4294967296.0;
		uint32_t size = (uint32_t)(low * exp(ratio * share));

		sizes[i] = size < low ? low : size > high ? high : size;
	}
}

void order_random(uint32_t *order, size_t count, uint64_t *random)
{
	for (size_t i = 0; i < count; i++) {
		size_t other = random_below(random, (uint32_t)i + 1);

		order[i] = order[other];
		order[other] = (uint32_t)i;
	}
}

void *pages_map(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (pages == MAP_FAILED) {
		perror("shale-bench: mmap");
		exit(1);
	}
	return pages;
}

static uint64_t read_clock(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t now_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void sleep_ns(uint64_t ns)
{
	struct timespec time = {.tv_sec = (time_t)(ns / 1000000000u),
				.tv_nsec = (long)(ns % 1000000000u)};

	while (nanosleep(&time, &time) != 0)
		continue;
}
