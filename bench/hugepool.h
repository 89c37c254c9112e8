/*
 * hugepool.h - 2 MiB pages for one run: reserved before it, given back after it.
 *
 * Owner:     one program at a time, by the lock on the file that the tests use as well, so that
 *            neither takes the other's pages.
 * Invariant: the old size of the pool is in the file before it is changed.
 * Death:     whoever takes the lock next (a test, a benchmark) restores what the file says.
 */
#ifndef SHALE_BENCH_HUGEPOOL_H
#define SHALE_BENCH_HUGEPOOL_H

#include <stddef.h>

/* 0; or -1 with the reason, and nothing is changed. */
int hugepool_reserve(unsigned pages, char *reason, size_t size);
void hugepool_restore(void);

#endif
