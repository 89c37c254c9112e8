/*
 * purge.h - free pages inside arenas that are in use go back to the kernel; docs/design/purge.md.
 */
#ifndef SHALE_HEAP_PURGE_H
#define SHALE_HEAP_PURGE_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/lanes.h"
#include "segment/recovery.h"
#include "segment/view.h"

/* All zero: everything, pages of blocks only. */
struct purge_limits {
	uint32_t unchanged_ms; /* only arenas in which nothing has changed for so long; 0: all */
	bool facts;            /* facts of slabs with few live blocks, too */
	uint64_t max_bytes;    /* stop after so many, and only look at the rest; 0: no limit */
	bool *ret_later; /* may be NULL: something will be worth purging when it is old enough */
};

/*
 * Purges arenas that are neither empty nor pinned. Bytes given back, or -errno if the kernel refused
 * the first of them. 0 where pages are larger than 4 KiB.
 */
int64_t purge_run(struct lane *lane, const struct purge_limits *limits);

/* purge_check.c: PG1, PG2. */
void purge_check(struct check_context *check);

#endif
