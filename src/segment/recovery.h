/*
 * recovery.h - what happens to what the dead held.
 *
 * A peer is dead when its life lock (a byte lock that its memory map holds) is free while its slot
 * is not. One process at a time recovers a peer: it holds that peer's recover lock, which dies with
 * it, so a killed recoverer is followed by the next. Every step is idempotent.
 *
 * The layers above add steps; the table is defined in src/steps.c, the one file that sees all
 * layers. Steps are the outer loop, lanes the inner one: every intent of the peer is settled before
 * the first slab is swept.
 */
#ifndef SHALE_SEGMENT_RECOVERY_H
#define SHALE_SEGMENT_RECOVERY_H

#include <stdint.h>

#include "segment/view.h"

struct recovery_step {
	const char *name;
	/*
	 * Settles what `lane`, of a dead peer, was doing or holding. 0 done; 1 something is still in
	 * use by the living: the lane must stay (try again later); -errno.
	 */
	int (*settle)(struct shale_segment *view, uint32_t lane);
};
extern const struct recovery_step recovery_steps[]; /* ends with a NULL name */

/* Recovers every dead peer; the number recovered. Cheap when nobody is dead. */
int recovery_run(struct shale_segment *view);

/* Is this peer slot that of a dead process? 1, 0 or -errno. */
int peer_is_dead(struct shale_segment *view, uint32_t peer);

/* Fills the figures that the layers above know; defined in src/steps.c. */
void segment_stat_fill(struct shale_segment *view, struct shale_segment_stat *stat);

/* Heap bytes committed now, for the budget; defined in src/steps.c. */
uint64_t segment_heap_committed(struct shale_segment *view);

struct check_context {
	struct shale_segment *view;
	shale_check_callback callback;
	void *context;
	int findings;
};
void check_report(struct check_context *check, const char *invariant, uint64_t offset,
		  const char *text);

struct check_step {
	const char *name;
	void (*run)(struct check_context *check);
};
extern const struct check_step check_steps[]; /* ends with a NULL name */

#endif
