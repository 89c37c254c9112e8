/*
 * pin.h - arenas that are not to be given back: a device may be writing to them.
 *
 * lane.pins[k] = first arena | arena count << 32; 0: none. Written by the threads of the lane's
 * process: pin.c.
 *
 *   who pins                              who gives back
 *   pin = arenas           (seq_cst)      lease or RETURNING in the arena   (seq_cst)
 *   lease? RETURNING?      (seq_cst)      any pin on the arena?             (seq_cst)
 *
 * pairs: arena.pin - at least one of the two sees the other.
 */
#ifndef SHALE_HEAP_PIN_H
#define SHALE_HEAP_PIN_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/view.h"

/* Has any lane pinned this arena? Asked after the arena's lease was taken or its state set. */
static inline bool arena_is_pinned(const struct shale_segment *view, uint64_t arena)
{
	for (uint32_t i = 1, high = view_lane_high(view); i < high; i++)
		for (unsigned k = 0; k < LANE_PINS; k++) {
			/* pairs: arena.pin - stored before its lane looked for our lease. */
			uint64_t pin = load_seq_cst(&view_lane(view, i)->pins[k]);

			if (arena >= (uint32_t)pin && arena - (uint32_t)pin < pin >> 32)
				return true;
		}
	return false;
}

#endif
