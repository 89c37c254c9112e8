/*
 * heap_check.h - walks over all slabs: the checker of H1..H7 and the counters of heap_stat.
 */
#ifndef SHALE_HEAP_HEAP_CHECK_H
#define SHALE_HEAP_HEAP_CHECK_H

#include <shale/heap.h>

#include "segment/recovery.h"

void heap_check(struct check_context *check);
void roots_check(struct check_context *check);
void heap_fill_segment_stat(struct shale_segment *view, struct shale_segment_figures *stat);
int heap_stat_walk(struct shale_segment *view, struct shale_heap_figures *stat);

#endif
