/*
 * heap_recovery.h - the heap's recovery steps, in the order in which src/steps.c lists them.
 */
#ifndef SHALE_HEAP_HEAP_RECOVERY_H
#define SHALE_HEAP_HEAP_RECOVERY_H

#include <stdint.h>

#include "segment/lanes.h"
#include "segment/view.h"

int heap_settle_free(struct shale_segment *view, uint32_t lane);
int heap_settle_intent(struct shale_segment *view, uint32_t lane);
int heap_settle_slabs(struct shale_segment *view, uint32_t lane);

/* Frees the private lists of a lane that goes. */
void heap_lane_finish(struct lane *lane);

#endif
