/*
 * giveback.c - wholly empty arenas go back to the kernel.
 *
 *   state COMMITTED -> RETURNING(lane)      from here on nobody keeps a slab of it (arena.c re-checks)
 *   every word FREE -> CLAIMED(lane)        fails: undo, the arena is in use
 *   punch the 2 MiB
 *   state -> NONE, words -> FREE
 *
 * Ordering: arena.state, slab.word.
 * Progress: bounded by the arenas; nobody waits for it.
 * Death:    RETURNING and CLAIMED name the lane: recovery punches again if every word was claimed,
 *           else leaves the arena to those who have slabs of it, and sets the words back.
 */
#include "heap/giveback.h"

#include <errno.h>

#include <shale/heap.h>

#include "heap/arena.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/slab.h"

int arena_decommit(struct shale_segment *view, uint64_t arena)
{
	uint64_t offset = view->heap_offset + (arena << ARENA_SHIFT);
	int fd;

	if (view->private_memory)
		return os_advise(view_at(view, offset), ARENA_SIZE, OS_DONTNEED);
	fd = view_fd(view);
	return fd < 0 ? fd : os_decommit(fd, offset, ARENA_SIZE);
}

static bool looks_empty(struct shale_segment *view, uint64_t arena)
{
	if (!arena_committed(view, arena))
		return false;
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		/* a look; the CASes decide */
		if (slab_word_state(load_relaxed(&heap_arena(view, arena)->word[i])) != SLAB_FREE)
			return false;
	return true;
}

static bool claim_word(uint64_t *place, uint32_t lane)
{
	uint64_t word = load_relaxed(place); /* the CAS decides */
	uint64_t claimed = slab_word_next(word, slab_low(SLAB_CLAIMED, lane, 0));

	/* pairs: arena.state - the state was set before; who claims after us looks at it. */
	return slab_word_state(word) == SLAB_FREE && cas_seq_cst(place, &word, claimed);
}

static void release_words(struct arena_shm *arena, uint32_t lane)
{
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++) {
		uint64_t word = load_relaxed(&arena->word[i]); /* CLAIMED by us: nobody moves it */

		if (slab_word_state(word) == SLAB_CLAIMED && slab_word_lane(word) == lane)
			/* pairs: slab.word - the slab is free again. */
			(void)cas_acq_rel(&arena->word[i], &word, slab_word_next(word, SLAB_FREE));
	}
}

static bool claim_words(struct arena_shm *arena, uint32_t lane)
{
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		if (!claim_word(&arena->word[i], lane))
			return false;
	return true;
}

/* 1 given back; 0 it was in use; -errno. */
static int arena_return(struct lane *lane, uint64_t number)
{
	struct shale_segment *view = lane->view;
	struct arena_shm *arena = heap_arena(view, number);
	uint64_t before = load_relaxed(&arena->state); /* the CAS decides */
	uint64_t low = (uint64_t)ARENA_RETURNING | ((uint64_t)lane->index << SLAB_LANE_SHIFT);
	uint64_t doing = slab_word_next(before, low);
	enum arena_state after = ARENA_COMMITTED;
	int r = 0;

	if ((before & SLAB_STATE_MASK) != ARENA_COMMITTED ||
	    !cas_seq_cst(&arena->state, &before, doing))
		return 0;
	if (claim_words(arena, lane->index)) {
		r = arena_decommit(view, number);
		if (r == 0)
			after = ARENA_NONE;
	}
	/* pairs: arena.state - before the words become free: nobody takes a slab of a hole. */
	(void)cas_seq_cst(&arena->state, &doing, slab_word_next(doing, (uint64_t)after));
	release_words(arena, lane->index);
	return r < 0 ? r : after == ARENA_NONE;
}

static uint64_t free_arenas(struct shale_segment *view)
{
	uint64_t count = 0;

	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++)
		count += looks_empty(view, arena);
	return count;
}

int64_t giveback_empty(struct lane *lane, uint64_t keep)
{
	struct shale_segment *segment = lane->view;
	uint64_t have = free_arenas(segment);
	int64_t returned = 0;
	int r = 0;

	/* a larger page holds several arenas, which are not empty together */
	if (segment->page_size > ARENA_SIZE)
		return 0;
	for (uint64_t arena = view_arena_high(segment); arena-- > 0 && have > keep;) {
		if (!looks_empty(segment, arena))
			continue;
		r = arena_return(lane, arena);
		if (r < 0)
			break;
		returned += r * (int64_t)ARENA_SIZE;
		have -= (uint64_t)r;
	}
	if (returned > 0)
		memory_freed(segment); /* within the budget there is room again */
	/* statistics */
	(void)fetch_add_relaxed(&view_hints(segment)->returned_bytes, (uint64_t)returned);
	return r < 0 && returned == 0 ? r : returned;
}

int64_t shale_trim(struct shale_segment *segment, uint64_t keep_bytes)
{
	struct lane *lane;
	int r = lane_enter(segment, &lane);

	if (r == 0)
		r = heap_setup_lane(lane);
	if (r < 0)
		return r;
	slab_release_empty(lane, true);
	return giveback_empty(lane, keep_bytes / ARENA_SIZE);
}
