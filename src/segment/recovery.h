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
	 * use by the living: the lane must stay (try again later); -errno: later steps skip it.
	 * Runs in whoever recovers, who may have no lane and no peer slot (an attach that found all
	 * slots taken, a detach settling itself): it must not call lane_enter().
	 */
	int (*settle)(struct shale_segment *view, uint32_t lane);
};
extern const struct recovery_step recovery_steps[]; /* ends with a NULL name */

/*
 * Recovers every dead peer; the number recovered. One system call per attached peer when nobody is
 * dead. Never called with view->attachment->lock held. -EROFS, -EBADF; 0 for private memory.
 */
int recovery_run(struct shale_segment *view);

/*
 * What the heap holds, for stat and for the budget: adds to committed_bytes (arenas, and facts that
 * view_metadata_bytes() does not count) and metadata_bytes, sets arenas_committed. An arena on its
 * way to be committed counts. Defined in src/steps.c.
 */
void segment_stat_fill(struct shale_segment *view, struct shale_segment_figures *stat);

/* Is this peer slot that of a dead process? 1, 0 or -errno. */
int peer_is_dead(struct shale_segment *view, uint32_t peer);

/* Where arenas were placed: arenas_on_node, arenas_elsewhere, arenas_small. Defined in src/steps.c. */
void segment_stat_places(struct shale_segment *view, struct shale_segment_figures *stat);

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

/* Header, high-water marks, peers and lanes: invariants S1 to S7 (check.c). A check step. */
void segment_check(struct check_context *check);

#endif
