/*
 * placement.c - where an arena is put, what is recorded about it, and when it becomes a huge page.
 *
 * arena.node, .placed and .page_kind are written by who commits the arena, before its state says
 * COMMITTED; later by who collapses it (under the lease) or moves it. All three are hints.
 *
 * Invariant: PL1 an arena is collapsed only while no page of it is punched: at its commit, or by
 *            the holder of its lease, and then only if it is mostly used
 * Progress:  a lease that somebody has is not waited for.
 * Ordering:  arena.lease: what a purger did under it is seen by the next holder.
 * Death:     a lease without a HELD slab: recovery takes it away. A collapse is the kernel's, whole or
 *            not at all; a wrong page_kind costs a try.
 */
#include "heap/placement.h"

#include "heap/arena.h"
#include "heap/pin.h"
#include "heap/rank.h"
#include "heap/slab.h"

/* Mostly used: so many slabs are taken. A huge page for less would mostly hold zeroes. */
#define COLLAPSE_SLABS 24u

/* ---- commit ---------------------------------------------------------------------------------- */

int placement_commit(struct shale_segment *view, uint64_t number, uint8_t home)
{
	struct arena_shm *arena = heap_arena(view, number);
	struct arena_place place = {
		.home = home,
		/* another arena is there, so the heap is growing */
		.huge = view_arena_high(view) > 1,
	};
	int r = view_commit_arena(view, view->heap_offset + (number << ARENA_SHIFT), &place);

	if (r < 0)
		return r;
	/* relaxed: hints */
	store_relaxed(&arena->placed, place.placed);
	store_relaxed(&arena->page_kind, place.page_kind);
	return 0;
}

void placement_moved(struct shale_segment *view, uint64_t number, unsigned node)
{
	struct arena_shm *arena = heap_arena(view, number);
	uint8_t value = node < UINT8_MAX ? (uint8_t)(node + 1) : 0;

	/* relaxed: hints */
	store_relaxed(&arena->placed, value);
	if (load_relaxed(&arena->node) != 0) {
		store_relaxed(&arena->node, value);
		rank_set_node(view, number, value);
	}
}

void placement_show(struct shale_segment *view, uint64_t number, struct shale_numa_part *part)
{
	struct arena_shm *arena = heap_arena(view, number);
	/* relaxed: hints, and a peer's word */
	uint8_t kind = load_relaxed(&arena->page_kind);

	part->home = (int32_t)load_relaxed(&arena->node) - 1;
	part->placed = (int32_t)load_relaxed(&arena->placed) - 1;
	if (kind != 0 && kind <= SHALE_PAGES_PRIVATE)
		part->pages = (enum shale_pages)kind;
}

/* ---- statistics ------------------------------------------------------------------------------ */

static bool is_elsewhere(const struct shale_segment *view, uint8_t home, uint8_t placed)
{
	unsigned node = placed - 1u;

	if (placed == 0)
		return false;
	if (view->header.placement == SHALE_PLACE_LOCAL)
		return home != 0 && home != placed;
	return (view->header.nodes[node / 64] >> node % 64 & 1) == 0;
}

static void count_arena(const struct shale_segment *view, struct arena_shm *arena,
			struct shale_segment_figures *stat)
{
	const unsigned last = sizeof(stat->arenas_on_node) / sizeof(stat->arenas_on_node[0]) - 1;
	/* relaxed: statistics */
	uint8_t home = load_relaxed(&arena->node), placed = load_relaxed(&arena->placed);
	unsigned node = placed - 1u;

	if (placed != 0)
		stat->arenas_on_node[node < last ? node : last]++;
	stat->arenas_elsewhere += is_elsewhere(view, home, placed);
	stat->arenas_small += view->header.pages == SHALE_PAGES_THP &&
			      load_relaxed(&arena->page_kind) == SHALE_PAGES_4K;
}

void placement_fill_stat(struct shale_segment *view, struct shale_segment_figures *stat)
{
	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++)
		if (arena_committed(view, arena))
			count_arena(view, heap_arena(view, arena), stat);
}

/* ---- collapse -------------------------------------------------------------------------------- */

static bool is_mostly_used(const struct arena_shm *arena)
{
	unsigned used = 0;

	for (unsigned slab = 0; slab < SLABS_PER_ARENA; slab++) {
		/* relaxed: a look; who holds the lease looks again */
		if (load_relaxed(&arena->punched[slab]) != 0)
			return false;
		used += slab_word_state(load_relaxed(&arena->word[slab])) != SLAB_FREE;
	}
	return used >= COLLAPSE_SLABS;
}

static bool is_candidate(struct shale_segment *view, uint64_t number)
{
	struct arena_shm *arena = heap_arena(view, number);

	/* relaxed: hints */
	return load_relaxed(&arena->page_kind) == SHALE_PAGES_4K && arena_committed(view, number) &&
	       is_mostly_used(arena);
}

bool placement_collapse(struct lane *lane, uint64_t number)
{
	struct shale_segment *view = lane->view;
	uint64_t nobody = 0, ours = (uint64_t)lane->index << SLAB_LANE_SHIFT | LEASE_PUNCH;
	struct arena_shm *arena;
	bool done = false;

	if (view->header.pages != SHALE_PAGES_THP || number >= view_arena_high(view) ||
	    !is_candidate(view, number))
		return false;
	arena = heap_arena(view, number);
	/* a lease in the phase of a purger that moves no fact; its pins as for one */
	/* pairs: arena.lease - what the last holder punched is seen. */
	if (!cas_seq_cst(&arena->lease, &nobody, ours))
		return false;
	if (!arena_is_pinned(view, number) && is_candidate(view, number) &&
	    view_collapse_arena(view, view->heap_offset + (number << ARENA_SHIFT)) == 0) {
		store_relaxed(&arena->page_kind, (uint8_t)SHALE_PAGES_THP); /* a hint */
		done = true;
	}
	/* pairs: arena.lease - as above. */
	(void)cas_seq_cst(&arena->lease, &ours, UINT64_C(0));
	return done;
}
