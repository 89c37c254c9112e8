/*
 * pin.c - ranges that nobody may punch: shale_pin, shale_unpin.
 *
 * A pin is one word of a lane: first arena | arena count << 32. It belongs to the process: its
 * threads put it in and take it out by CAS, in any lane of theirs that has room.
 *
 *   pinner                           who gives back
 *   0 -> pin (seq_cst CAS)           state -> RETURNING, or lease taken (seq_cst CAS)
 *   reads states and leases          reads the pins
 *   RETURNING, leased: withdraws     pinned: undoes
 *
 * Invariant: PI1 while a pin is in after its look, no arena that it names is RETURNING or leased by
 *            anybody who goes on to punch
 * Progress:  the pinner waits for whoever holds an arena just then: bounded, then EBUSY; unpinning
 *            and giving back wait for nobody.
 * Ordering:  arena.pin, with arena.state and arena.lease: store, then load, on both sides, all seq_cst.
 * Death:     pins of a dead lane hold until recovery has cleared the slot.
 */
#include "heap/pin.h"

#include <errno.h>

#include <shale/heap.h>

#include "heap/slab.h"
#include "segment/lanes.h"
#include "segment/recovery.h"

#define PIN_TRIES   1000u /* about a second */
#define PIN_WAIT_NS UINT64_C(1000000)

static uint64_t pin_word(uint64_t first, uint64_t count)
{
	return first | count << 32;
}

/* Replaces `from` by `to` in a pin word of a lane of this process; NULL: there is none. */
static uint64_t *pin_replace(struct shale_segment *view, uint64_t from, uint64_t to)
{
	for (uint32_t lane = 1, high = view_lane_high(view); lane < high; lane++) {
		struct lane_shm *slot = view_lane(view, lane);
		uint64_t word = load_relaxed(&slot->word); /* ours stay ours until detach */

		if (!lane_word_active(word) || lane_word_peer(word) != view->peer)
			continue;
		for (unsigned i = 0; i < LANE_PINS; i++) {
			uint64_t seen = from;

			if (load_relaxed(&slot->pins[i]) == from &&
			    /* pairs: arena.pin - in before the look at the arenas; out after use. */
			    cas_seq_cst(&slot->pins[i], &seen, to))
				return &slot->pins[i];
		}
	}
	return NULL;
}

/* 0 nobody is giving back any of them; -EBUSY somebody is; -EINVAL one is not committed. */
static int pin_look(struct shale_segment *view, uint64_t first, uint64_t count)
{
	for (uint64_t arena = first; arena < first + count; arena++) {
		struct arena_shm *entry = heap_arena(view, arena);
		/* pairs: arena.pin - whoever returns it set the state before reading our pin. */
		uint64_t state = load_seq_cst(&entry->state) & SLAB_STATE_MASK;

		if (state == ARENA_RETURNING)
			return -EBUSY;
		if (state != ARENA_COMMITTED)
			return -EINVAL;
		/* pairs: arena.pin - as with the state. */
		if (load_seq_cst(&entry->lease) != 0)
			return -EBUSY;
	}
	return 0;
}

/* Whoever holds the arena is at work for microseconds, stopped, or dead. */
static void pin_pause(struct shale_segment *view, unsigned tries)
{
	uint32_t nothing = 0;

	if (tries % 64 == 63)
		(void)recovery_run(view);
	(void)os_futex_wait(&nothing, 0, OS_FUTEX_ANY, os_clock_ns() + PIN_WAIT_NS);
}

static int pin_arenas(struct shale_segment *view, uint64_t first, uint64_t count)
{
	uint64_t pin = pin_word(first, count);
	int r;

	for (unsigned tries = 0; tries < PIN_TRIES; tries++) {
		uint64_t *place = pin_replace(view, 0, pin);

		if (!place)
			return -ENOSPC;
		r = pin_look(view, first, count);
		if (r == 0)
			return 0;
		/*
		 * Ours, or that of another thread of ours with the same range: the lowest goes, and
		 * who gives back reads from the lowest up, so it meets the one that stays.
		 */
		(void)pin_replace(view, pin, 0);
		if (r != -EBUSY)
			return r;
		pin_pause(view, tries);
	}
	return -EBUSY;
}

/* The arenas of a range; -EINVAL it is not in the heap as far as it has been used. */
static int pin_range(struct shale_segment *view, const void *ptr, size_t size, uint64_t *ret_first,
		     uint64_t *ret_count)
{
	uint64_t offset = view_offset_of(view, ptr);
	uint64_t first, last;

	if (offset == 0 || size == 0 || !view_in_heap(view, offset, size))
		return -EINVAL;
	first = (offset - view->heap_offset) >> ARENA_SHIFT;
	last = (offset - view->heap_offset + size - 1) >> ARENA_SHIFT;
	if (last >= view_arena_high(view))
		return -EINVAL;
	*ret_first = first;
	*ret_count = last - first + 1;
	return 0;
}

int shale_pin(struct shale_segment *segment, const void *ptr, size_t size)
{
	uint64_t first, count;
	struct lane *lane;
	int r;

	r = pin_range(segment, ptr, size, &first, &count);
	if (r == 0)
		r = lane_enter(segment, &lane);
	return r < 0 ? r : pin_arenas(segment, first, count);
}

int shale_unpin(struct shale_segment *segment, const void *ptr, size_t size)
{
	uint64_t first, count;
	struct lane *lane;
	int r;

	r = pin_range(segment, ptr, size, &first, &count);
	if (r == 0)
		r = lane_enter(segment, &lane);
	if (r < 0)
		return r;
	return pin_replace(segment, pin_word(first, count), 0) ? 0 : -ENOENT;
}
