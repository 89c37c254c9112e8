/*
 * lanes.c - a thread's slot: claimed at its first operation, parked at its end, freed with its peer.
 *
 *   slot word   FREE --lane_claim_slot--> ACTIVE(peer) --recovery, detach--> FREE
 *   private     claimed -> with its thread -> parked -> with another thread ...      until detach
 *
 * Owner:     the slot belongs to the peer named in its word; its private memory to one thread at a
 *            time, or to the parked list.
 * Invariant: L1 a lane is with one thread or parked, never both
 *            L2 a lane slot below lane_high is committed; a FREE one has no intent, hazard or
 *               retired ref
 *            L3 private lane memory is unmapped by detach alone: a stale thread-local pointer to it
 *               is guarded by the view's serial
 * Progress:  a claim passes over slots that others take meanwhile; bounded by the table.
 * Ordering:  lane.word (claim and release), lane.high (commit below the mark first).
 * Death:     between raising lane_high and ACTIVE: a FREE slot below the mark. After ACTIVE: a lane of
 *            a dead peer, settled by recovery. A page committed and not announced is zero.
 * Fork:      lane memory and view_attachment read as zeroes in a child, so it sees index 0 and
 *            attached 0, and joins as a peer of its own; the parent's slots are not touched.
 */
#include "segment/lanes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "segment/internal.h"
#include "segment/recovery.h"

_Thread_local struct lane_current lane_current;

/* Address space for the most part: what is never written is never there. */
static size_t lane_memory_bytes(const struct shale_segment *view)
{
	uint64_t slabs = (uint64_t)view->arena_count * SLABS_PER_ARENA;

	return round_up(sizeof(struct lane) + slabs * sizeof(uint32_t), KIB(4));
}

/* What FREE promises to the next owner; also makes a damaged slot usable. */
static void lane_clear_slot(struct lane_shm *slot)
{
	/* pairs: lane.intent - what was named is settled before the name goes. */
	store_release(&slot->intent.word, UINT64_C(0));
	/* relaxed: the names below are read with the state word or the intent's word */
	for (unsigned i = 0; i < ARRAY_SIZE(slot->intent.block); i++)
		store_relaxed(&slot->intent.block[i], UINT64_C(0));
	for (unsigned i = 0; i < ARRAY_SIZE(slot->intent.argument); i++)
		/* pairs: map.intent - a helper that sees it sees the lane's last gate passed. */
		store_release(&slot->intent.argument[i], UINT64_C(0));
	for (unsigned i = 0; i < LANE_HAZARDS; i++)
		store_relaxed(&slot->hazards[i], UINT64_C(0));
	for (unsigned i = 0; i < LANE_RETIRED; i++)
		store_relaxed(&slot->retired[i], UINT64_C(0));
	/* pairs: lane.freeing - settled, as above. */
	store_release(&slot->freeing, UINT64_C(0));
	for (unsigned i = 0; i < LANE_PINS; i++)
		/* pairs: arena.pin - whoever pinned the range is done with it, or dead. */
		store_release(&slot->pins[i], UINT64_C(0));
	store_relaxed(&slot->thread_id, 0u);
}

void lane_release_slot(struct shale_segment *view, uint32_t lane, uint64_t word)
{
	struct lane_shm *slot = view_lane(view, lane);

	lane_clear_slot(slot);
	/* pairs: lane.word - the slot is clean before it reads FREE. */
	(void)cas_acq_rel(&slot->word, &word,
			  (word & ~(LANE_GENERATION - 1)) + LANE_GENERATION + LANE_FREE);
}

static bool lane_try_slot(struct shale_segment *view, uint32_t lane)
{
	struct lane_shm *slot = view_lane(view, lane);
	/* pairs: lane.word - whoever freed the slot has cleaned it. */
	uint64_t word = load_acquire(&slot->word);

	if ((word & LANE_STATE_MASK) != LANE_FREE)
		return false;
	/* pairs: lane.word - recovery and check see the peer with the state. */
	return cas_acq_rel(&slot->word, &word,
			   (word & ~(LANE_GENERATION - 1)) + LANE_GENERATION +
				   ((uint64_t)view->peer << 4) + LANE_ACTIVE);
}

/* Commits the slot at the mark and raises the mark over it. */
static int lane_raise_high(struct shale_segment *view, uint32_t high)
{
	uint64_t offset = view->lanes_offset + high * sizeof(struct lane_shm);
	uint32_t seen;
	int r;

	if (offset % view->page_size == 0) {
		if (!view_budget_allows(view, view->page_size))
			return -ENOMEM;
		r = view_commit(view, offset, sizeof(struct lane_shm));
		if (r < 0)
			return r;
	}
	/* relaxed: compared and swapped below; 0 is a peer's damage and is mended here */
	seen = load_relaxed(&view_hints(view)->lane_high);
	/* pairs: lane.high - the slot below the new mark is committed. Failing: another raised it. */
	if (seen <= high)
		(void)cas_acq_rel(&view_hints(view)->lane_high, &seen, high + 1);
	return 0;
}

/* -ENOSPC: every slot is taken, or the mark does not stay where we put it (a peer lies). */
static int lane_claim_slot(struct shale_segment *view, uint32_t *ret_lane)
{
	uint32_t lane = 1;
	int r;

	for (unsigned tries = 0; tries < 2 * LANE_COUNT; tries++) {
		uint32_t high = view_lane_high(view);

		for (; lane < high; lane++)
			if (lane_try_slot(view, lane)) {
				*ret_lane = lane;
				return 0;
			}
		if (high >= LANE_COUNT)
			return -ENOSPC;
		r = lane_raise_high(view, high < 1 ? 1 : high);
		if (r < 0)
			return r;
	}
	return -ENOSPC;
}

/* Room for one more in the list of what detach unmaps. */
static int lane_memory_reserve(struct shale_segment *view)
{
	uint32_t size = view->lane_memory_size ? 2 * view->lane_memory_size : 16;
	struct lane **grown;

	if (view->lane_memory_count < view->lane_memory_size)
		return 0;
	grown = realloc(view->lane_memory, size * sizeof(struct lane *));
	if (!grown)
		return -ENOMEM;
	view->lane_memory = grown;
	view->lane_memory_size = size;
	return 0;
}

/* The private half first: a slot that was claimed is never given back before detach. */
static int lane_make(struct shale_segment *view, struct lane **ret_lane)
{
	struct lane *lane;
	void *memory;
	uint32_t index = 0;
	int r;

	r = lane_memory_reserve(view);
	if (r < 0)
		return r;
	r = os_map_wipe_on_fork(lane_memory_bytes(view), &memory);
	if (r < 0)
		return r;
	r = lane_claim_slot(view, &index);
	if (r < 0) {
		(void)os_unmap(memory, lane_memory_bytes(view));
		return r;
	}
	lane = memory;
	lane->view = view;
	lane->shm = view_lane(view, index);
	lane_clear_slot(lane->shm);
	/* sequence numbers of an earlier owner of the slot do not come again soon */
	lane->intent_sequence = (load_relaxed(&lane->shm->word) >> 32) << 20;
	lane->index = index;
	lane->next = view->lanes;
	view->lanes = lane;
	view->lane_memory[view->lane_memory_count++] = lane;
	*ret_lane = lane;
	return 0;
}

/*
 * A parked lane; its open slabs are on the node where its last thread ran. NULL: there is none, or
 * (not `any`) none of this node.
 */
static struct lane *parked_take(struct shale_segment *view, bool any)
{
	uint8_t home = view_home();

	for (struct lane **at = &view->parked; *at; at = &(*at)->next_parked) {
		struct lane *lane = *at;

		if (view->several_nodes && !any && lane->home != home)
			continue;
		*at = lane->next_parked;
		lane->next_parked = NULL;
		lane->parked = 0;
		return lane;
	}
	return NULL;
}

static int lane_take_locked(struct shale_segment *view, struct lane **ret_lane)
{
	struct lane *lane = parked_take(view, false);
	int r = 0;

	if (!lane)
		r = lane_make(view, &lane);
	if (r < 0)
		lane = parked_take(view, true);
	if (!lane)
		return r;
	lane->thread = os_thread_id();
	/* relaxed: for people */
	store_relaxed(&lane->shm->thread_id, lane->thread);
	r = pthread_setspecific(view->key, lane);
	if (r != 0) {
		lane->parked = 1;
		lane->next_parked = view->parked;
		view->parked = lane;
		return -ENOMEM;
	}
	*ret_lane = lane;
	return 0;
}

/*
 * In a forked child: what the view says about lanes and the life lock is the parent's. The wiped
 * lanes stay mapped until detach, because another thread-local may still point at one.
 */
static int lane_join_locked(struct shale_segment *view)
{
	if (view_attached(view))
		return 0;
	view->lanes = NULL;
	view->parked = NULL;
	view->life = (struct os_life){0};
	return peer_claim(view);
}

static int lane_enter_locked(struct shale_segment *view, struct lane **ret_lane)
{
	int r = lane_join_locked(view);

	return r < 0 ? r : lane_take_locked(view, ret_lane);
}

static int lane_enter_once(struct shale_segment *view, struct lane **ret_lane)
{
	int r;

	pthread_mutex_lock(&view->attachment->lock);
	r = lane_enter_locked(view, ret_lane);
	pthread_mutex_unlock(&view->attachment->lock);
	return r;
}

SHALE_COLD int lane_enter_slow(struct shale_segment *view, struct lane **ret_lane)
{
	struct lane *lane = pthread_getspecific(view->key);
	int r;

	if (view->read_only)
		return -EROFS;
	if (!lane || lane->index == 0) {
		r = lane_enter_once(view, &lane);
		if ((r == -EUSERS || r == -ENOSPC) && recovery_run(view) > 0)
			r = lane_enter_once(view, &lane);
		if (r < 0)
			return r == -ENOSPC ? -ENOMEM : r;
	}
	/* in a debug segment no fast path finds its lane: heap/debug.h */
	if (view->debug == 0)
		lane_current = (struct lane_current){view->serial, lane};
	*ret_lane = lane;
	return 0;
}

/* Parks the lane if this view has it and this thread is the one that had it. */
static bool lane_park(struct shale_segment *view, struct lane *lane)
{
	bool found = false;

	pthread_mutex_lock(&view->attachment->lock);
	for (uint32_t i = 0; i < view->lane_memory_count && !found; i++)
		found = view->lane_memory[i] == lane;
	if (found && lane->index != 0 && !lane->parked && lane->thread == os_thread_id()) {
		lane->parked = 1;
		lane->home = view_home();
		lane->next_parked = view->parked;
		view->parked = lane;
	}
	pthread_mutex_unlock(&view->attachment->lock);
	return found;
}

/*
 * At a thread's end. The view may be detached by another thread meanwhile, so the lane is only a
 * number until it is found in a view that is still listed.
 */
void lane_thread_end(void *lane)
{
	struct shale_segment *view;

	if (lane_current.lane == lane)
		lane_current = (struct lane_current){0};
	view_list_lock();
	for (view = view_list_first(); view; view = view->next_view)
		if (lane_park(view, lane))
			break;
	view_list_unlock();
}

void lanes_forget(struct shale_segment *view)
{
	if (lane_current.serial == view->serial)
		lane_current = (struct lane_current){0};
	for (uint32_t i = 0; i < view->lane_memory_count; i++) {
		lane_finish(view->lane_memory[i]);
		(void)os_unmap(view->lane_memory[i], lane_memory_bytes(view));
	}
	free(view->lane_memory);
	view->lane_memory = NULL;
	view->lane_memory_count = 0;
	view->lane_memory_size = 0;
}
