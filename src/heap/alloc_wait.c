/*
 * alloc_wait.c - sleeping until there is memory, and what those who free owe the sleepers.
 *
 *   waiter                                     owner of a slab, freeing its last block
 *   w1  wanted_ns = now + 1 s                  f1  the fact: free
 *   w2  mark the event                         f2  an open slab: done, the fast path
 *   w3  try to allocate                        f3  a parked one: FREE, and wake
 *   w4  sleep
 *
 * An open slab of somebody else's is no use to the waiter, even if nothing lives in it: only its owner
 * can let go of it. While wanted_ns says so, an allocation that the caches do not serve, and a free in
 * a parked slab, close all open slabs of their lane, every ten milliseconds at most (memory_look), and no
 * parked slab is opened for a free. So a lane holds back its open slabs until the first of its calls
 * that its caches do not serve, and nothing else.
 *
 * wanted_ns is no count that a killed waiter would leave raised, and a wake does not clear it: frees
 * go on to look while the waiter that was woken finds that it needs still more. Each waiter renews it
 * at w1; a second after the last one it is over.
 *
 * Wakes, all on slow paths: a slab or span became FREE, an arena's bytes went back to the kernel, the
 * budget grew, a dead lane's slabs were settled, a remote free was the first in its slab since the
 * owner looked.
 *
 * Owner:     the event belongs to nobody; wanted_ns is a hint that anybody may set.
 * Progress:  blocks, but in slices: after each the waiter recovers the dead and tries again, so a
 *            freer that was killed before its wake delays it by one slice.
 * Ordering:  event.announce for the wakes. wanted_ns orders nothing: a free that misses it was over
 *            before the waiter came.
 * Lifetime:  the event is in the header page, which is never given back.
 * Death:     of a waiter: the mark stays for the next waker, wanted_ns for a second. Of a freer: as
 *            above. A stopped owner holds back the slabs that it owns.
 */
#include "heap/memory_wait.h"

#include <errno.h>

#include <shale/heap.h>

#include "heap/debug.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/parked.h"
#include "heap/size_class.h"
#include "segment/geometry.h"
#include "segment/recovery.h"

#define LOOK_NS UINT64_C(10000000) /* between two looks of one lane through all of its slabs */

uint64_t memory_slice_ns = 100000000;
uint64_t memory_wanted_ns = 1000000000;

/* -- those who free -------------------------------------------------------------------------- */

/* The word is not cleared by who leaves, others may wait; it expires. */
static bool wanted_at(const struct shale_segment *view, uint64_t now)
{
	uint64_t *word = &view_hints(view)->wanted_ns;
	uint64_t until = load_relaxed(word); /* a hint */

	if (until == 0 || (now < until && until - now <= 2 * memory_wanted_ns))
		return until != 0;
	(void)cas_relaxed(word, &until, UINT64_C(0)); /* fails if somebody has come meanwhile */
	return false;
}

SHALE_COLD bool memory_look(struct lane *lane)
{
	struct heap_lane *heap = heap_lane(lane);
	uint64_t now = memory_wanted(lane->view) ? os_clock_ns() : 0;

	if (now == 0 || !wanted_at(lane->view, now))
		return false;
	if (now - heap->looked_ns >= LOOK_NS) {
		heap->looked_ns = now;
		slab_close_all(lane);
		slab_take_dead(lane, false);
	}
	return true;
}

/* -- those who wait -------------------------------------------------------------------------- */

/* Lanes whose thread has ended belong to nobody: their empty slabs are found by us. */
static void look_into_idle_lanes(struct shale_segment *view)
{
	pthread_mutex_lock(&view->attachment->lock);
	for (struct lane *lane = view->parked; lane; lane = lane->next_parked)
		if (lane->index != 0 && heap_lane(lane)->own_word != 0)
			slab_close_all(lane);
	pthread_mutex_unlock(&view->attachment->lock);
}

/* w1 and w2: the ticket. */
static uint32_t announce(struct shale_segment *view)
{
	uint32_t ticket;

	/* relaxed: a hint; the mark below is what no waker may miss */
	store_relaxed(&view_hints(view)->wanted_ns, os_clock_ns() + memory_wanted_ns);
	ticket = shale_event_prepare(memory_event(view));
	look_into_idle_lanes(view);
	return ticket;
}

/* 0 woken, or a slice has passed; -ETIMEDOUT, -EINTR. */
static int wait_slice(struct shale_segment *view, uint32_t ticket, uint64_t deadline)
{
	uint64_t now = os_clock_ns(), slice = now + memory_slice_ns;
	int r;

	/* before the wait: those who wake all the time must not keep us beyond the deadline */
	if (now >= deadline)
		return -ETIMEDOUT;
	if (deadline <= slice)
		return shale_event_wait(memory_event(view), ticket, deadline);
	r = shale_event_wait(memory_event(view), ticket, slice);
	if (r != -ETIMEDOUT)
		return r;
	(void)recovery_run(view);
	return 0;
}

/* Could it fit into a segment with nothing else in it, and the budget as it is now? */
static bool may_fit(const struct shale_segment *view, size_t size)
{
	struct geometry geometry = geometry_of_view(view);
	uint64_t bytes, arenas;

	if (size > view->capacity_bytes)
		return false;
	if (view->debug != 0)
		size += sizeof(struct debug_trailer);
	if (size > view->capacity_bytes)
		return false;
	bytes = size > BIN_SIZE_MAX ? round_up(size, SLAB_SIZE) : SLAB_SIZE;
	arenas = round_up(bytes, ARENA_SIZE) / ARENA_SIZE;
	return arenas * ARENA_SIZE + geometry_metadata_bytes(&geometry, 1, (uint32_t)arenas) <=
	       view_budget(view);
}

void *shale_alloc_wait(struct shale_segment *segment, size_t size, uint64_t deadline_ns)
{
	void *block = shale_alloc(segment, size);
	uint32_t ticket;
	int r = 0;

	if (block || errno != ENOMEM || !may_fit(segment, size))
		return block;
	if (deadline_ns == SHALE_NO_WAIT)
		r = -ETIMEDOUT;
	while (r == 0) {
		ticket = announce(segment);
		block = shale_alloc(segment, size);
		if (block || errno != ENOMEM || !may_fit(segment, size)) {
			shale_event_cancel(memory_event(segment), ticket);
			return block;
		}
		r = wait_slice(segment, ticket, deadline_ns);
	}
	/* a freer killed before its wake has freed all the same */
	if (r == -ETIMEDOUT && deadline_ns != SHALE_NO_WAIT)
		block = shale_alloc(segment, size);
	if (!block)
		errno = -r;
	return block;
}

/* -- the budget ---------------------------------------------------------------------------------- */

int shale_segment_set_budget(struct shale_segment *segment, uint64_t budget_bytes)
{
	struct geometry geometry = geometry_of_view(segment);

	if (segment->read_only)
		return -EROFS;
	if (budget_bytes == 0 || budget_bytes > segment->file_size)
		budget_bytes = segment->file_size;
	if (budget_bytes < geometry_least_budget(&geometry))
		return -EINVAL;
	/* pairs: event.announce - stored before the mark is looked at. */
	store_release(&view_hints(segment)->budget_bytes, budget_bytes);
	memory_freed(segment);
	return 0;
}
