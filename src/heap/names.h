/*
 * names.h - which blocks some lane names (rule N of docs/design/heap.md).
 */
#ifndef SHALE_HEAP_NAMES_H
#define SHALE_HEAP_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/view.h"

#define NAMES_MAX 64u

/*
 * Every name in [first, end) that a lane holds now: read after the facts that made the caller ask.
 * False if there are more than fit: then all must count as named.
 */
bool names_gather(const struct shale_segment *view, uint64_t first, uint64_t end,
		  uint64_t *ret_names, uint32_t *ret_count);

/*
 * Does any lane name anything in [first, end), `except` aside? The caller has dropped its own name
 * and gone through a fence. A name that is just being dropped is waited for, a little.
 */
bool names_any(const struct shale_segment *view, uint64_t first, uint64_t end, uint64_t except);

static inline bool names_has(const uint64_t *names, uint32_t count, uint64_t offset)
{
	for (uint32_t i = 0; i < count; i++)
		if (names[i] == offset)
			return true;
	return false;
}

#endif
