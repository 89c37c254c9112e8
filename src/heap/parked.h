/*
 * parked.h - slabs that their lane has filled and left: let go, reopen, take when nothing lives.
 */
#ifndef SHALE_HEAP_PARKED_H
#define SHALE_HEAP_PARKED_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/block.h"
#include "heap/slab_layout.h"
#include "segment/lanes.h"

/* Lets go of a slab that the lane owns, of which nothing is cached. It is free if nothing lives in it. */
void slab_park(struct lane *lane, unsigned bin, uint64_t slab);

enum slab_opening { SLAB_GONE, SLAB_BUSY, SLAB_OPEN };

/*
 * Makes a remembered slab ours to allocate from. SLAB_GONE: it is not ours (any more), forget it;
 * SLAB_BUSY: it is, but somebody moves its facts now, or its pages cannot be had.
 */
enum slab_opening slab_open(struct lane *lane, unsigned bin, uint64_t slab);

/*
 * The caller frees a block in a slab that it has parked: true if the slab is open again, and
 * place->word with it. At most HEAP_OPEN_MAX slabs of the bin are open for this reason.
 */
bool slab_reopen_for_free(struct lane *lane, struct block_place *place);

/* Commits what was punched in a slab that we have taken. -ENOMEM. */
int slab_recommit(struct shale_segment *view, uint64_t slab);

enum slab_look { SLAB_LIVES, SLAB_NAMED, SLAB_TAKEN };

/*
 * Takes the slab, which had this word (PARKED or ORPHAN), for `lane` and sets it free if nothing
 * lives in it and nothing in it is named. After a free in it, and after it became PARKED or ORPHAN.
 */
enum slab_look slab_look(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word);

/* The same on behalf of a running lane, which comes back to what a name keeps from being taken. */
void slab_look_again(struct lane *lane, uint64_t slab);
void slab_look_later(struct lane *lane, uint64_t slab);

/* Looks at every parked slab and orphan of the segment; `thorough`, or if some were left. */
void slab_take_dead(struct lane *lane, bool thorough);

/* The word is CLAIMED, dirty: zeroes the facts and sets the slab free. */
void slab_wipe(struct shale_segment *view, uint64_t slab, uint64_t word);

#endif
