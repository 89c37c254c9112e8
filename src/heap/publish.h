/*
 * publish.h - what recovery must know about an interrupted publish_at or take_at.
 */
#ifndef SHALE_HEAP_PUBLISH_H
#define SHALE_HEAP_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/view.h"

/* Status bit of an INTENT_PUBLISH_AT word: somebody has taken the ref out of the place. */
#define PUBLISH_DONE (UINT64_C(1) << 8)

/* The word at `offset`, if a ref may be placed there; else NULL. */
uint64_t *publish_place(const struct shale_segment *view, uint64_t offset);

/* Is some lane in the middle of taking this ref out of this place? */
bool publish_is_being_taken(struct shale_segment *view, uint64_t offset, uint64_t place);

#endif
