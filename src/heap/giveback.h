/*
 * giveback.h - an arena's memory back to the kernel.
 */
#ifndef SHALE_HEAP_GIVEBACK_H
#define SHALE_HEAP_GIVEBACK_H

#include <stdint.h>

#include "segment/lanes.h"
#include "segment/view.h"

/* Punches the arena's 2 MiB. Its slabs must all be claimed by the caller, or by a dead lane. */
int arena_decommit(struct shale_segment *view, uint64_t arena);

/* Returns empty arenas until at most `keep` of them are left. Bytes returned, or -errno if none. */
int64_t giveback_empty(struct lane *lane, uint64_t keep);

#endif
