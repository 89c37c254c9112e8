/*
 * pin.h - ranges that are not to be given back: the side of whoever gives back.
 */
#ifndef SHALE_HEAP_PIN_H
#define SHALE_HEAP_PIN_H

#include <stdbool.h>
#include <stdint.h>

#include "segment/view.h"

/*
 * Does any lane pin this arena? To be asked after the arena's state has become RETURNING, or its
 * lease has been taken, by a seq_cst CAS: a pin that is not seen here sees that, and withdraws.
 */
bool pin_holds(const struct shale_segment *view, uint64_t arena);

#endif
