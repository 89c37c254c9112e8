/*
 * arena.c - arenas: commit them, and find a free slab in them.
 *
 * Arena state word: NONE -> COMMITTING(lane) -> COMMITTED -> RETURNING(lane) -> NONE, by CAS. The
 * doer is named, so recovery can set a dead doer's word back to NONE; committing twice is harmless.
 *
 * Invariant: AR1 a slab word of an arena that is not COMMITTED is FREE, or CLAIMED by the lane that
 *            is returning it, or claimed by mistake for an instant (arena_take below).
 * Progress:  lock-free but for the kernel's commit, which nobody else waits for.
 * Ordering:  arena.state: who claims a slab re-checks the state after the CAS on the word; who
 *            returns an arena sets the state before its CASes on the words (both RMWs seq_cst).
 *            arena.high: an entry is committed before the mark is raised.
 * Death:     COMMITTING, RETURNING and CLAIMED name the lane; recovery sets them back.
 */
#include "heap/arena.h"

#include <errno.h>

#include "heap/debug.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/slab.h"

static uint64_t arena_word(enum arena_state state, uint32_t lane, uint64_t before)
{
	return slab_word_next(before, (uint64_t)state | ((uint64_t)lane << SLAB_LANE_SHIFT));
}

static bool state_is(uint64_t word, enum arena_state state)
{
	return (word & SLAB_STATE_MASK) == (uint64_t)state;
}

bool arena_committed(struct shale_segment *view, uint64_t arena)
{
	/* pairs: arena.state - claim and re-check, against return and claim. */
	return state_is(load_seq_cst(&heap_arena(view, arena)->state), ARENA_COMMITTED);
}

uint64_t arena_committed_bytes(struct shale_segment *view)
{
	uint64_t arenas = 0;

	for (uint64_t i = 0, high = view_arena_high(view); i < high; i++)
		/* a count: COMMITTING is included, so that the budget cannot be passed */
		arenas += !state_is(load_relaxed(&heap_arena(view, i)->state), ARENA_NONE);
	return arenas * ARENA_SIZE;
}

/* -- committing ------------------------------------------------------------------------------ */

/* Makes the table entry of arena `high` usable and raises the mark to high + 1. */
static int raise_high(struct shale_segment *view, uint32_t high)
{
	uint64_t entry = view->arena_table_offset + (uint64_t)high * sizeof(struct arena_shm);
	int r = view_commit(view, entry, sizeof(struct arena_shm));

	if (r < 0)
		return r;
	/* pairs: arena.high - the entry is committed. Who loses finds it raised already. */
	(void)cas_acq_rel(&view_hints(view)->arena_high, &high, high + 1);
	return 0;
}

static int commit_memory(struct shale_segment *view, uint64_t arena)
{
	uint64_t facts =
		view->short_facts_offset + arena * SLABS_PER_ARENA * (uint64_t)SHORT_FACTS_STRIDE;
	int r;

	/* our own COMMITTING word is counted already */
	if (!view_budget_allows(view, 0))
		return -ENOMEM;
	r = view_commit(view, facts, SLABS_PER_ARENA * (uint64_t)SHORT_FACTS_STRIDE);
	if (r < 0)
		return r;
	return view_commit(view, view->heap_offset + (arena << ARENA_SHIFT), ARENA_SIZE);
}

/* 0 committed by us; -EAGAIN not NONE (any more); -errno. */
static int arena_commit(struct lane *lane, uint64_t arena)
{
	struct shale_segment *view = lane->view;
	uint64_t *state = &heap_arena(view, arena)->state;
	uint64_t before = load_relaxed(state); /* the CAS decides */
	uint64_t doing = arena_word(ARENA_COMMITTING, lane->index, before);
	uint64_t done;
	int r;

	if (!state_is(before, ARENA_NONE) || !cas_seq_cst(state, &before, doing))
		return -EAGAIN;
	r = commit_memory(view, arena);
	done = arena_word(r < 0 ? ARENA_NONE : ARENA_COMMITTED, 0, doing);
	/* pairs: arena.state - the memory is there before the word says so. */
	(void)cas_seq_cst(state, &doing, done);
	return r;
}

/* Commits the first arena at or after `from` that is not; raises the mark when there is none. */
int arena_commit_any(struct lane *lane, uint64_t from, uint64_t *ret_arena)
{
	struct shale_segment *view = lane->view;
	int r;

	for (uint64_t arena = from; arena < view->arena_count; arena++) {
		if (arena >= view_arena_high(view)) {
			r = raise_high(view, (uint32_t)arena);
			if (r < 0)
				return r;
		}
		r = arena_commit(lane, arena);
		if (r == 0)
			*ret_arena = arena;
		if (r != -EAGAIN)
			return r;
	}
	return -ENOMEM;
}

/* -- taking a slab ----------------------------------------------------------------------------- */

/* Committed bytes of the long facts: whole pages, each counted once. */
uint64_t arena_long_facts_bytes(struct shale_segment *view)
{
	uint64_t bytes = 0, last_page = UINT64_MAX;

	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++) {
		/* pairs: arena.long_facts - a count. */
		uint32_t bits = load_acquire(&heap_arena(view, arena)->long_committed);
		uint64_t page =
			(view->long_facts_offset + arena * LONG_FACTS_ARENA) / view->page_size;

		if (view->page_size <= LONG_FACTS_STRIDE) {
			bytes += (unsigned)__builtin_popcount(bits) * (uint64_t)LONG_FACTS_STRIDE;
		} else if (bits != 0 && page != last_page) {
			bytes += view->page_size;
			last_page = page;
		}
	}
	return bytes;
}

/* What committing the long facts of one more slab may add. */
static uint64_t long_facts_step(const struct shale_segment *view)
{
	return view->page_size > LONG_FACTS_STRIDE ? view->page_size : LONG_FACTS_STRIDE;
}

/*
 * The long facts of a slab are committed when a slab of small blocks first needs them. On large pages
 * the budget is asked for a whole page even if a neighbour has it already: refusing early is allowed.
 */
static int commit_long_facts(struct shale_segment *view, uint64_t slab)
{
	struct arena_shm *arena = slab_arena(view, slab);
	uint32_t bits =
		load_relaxed(&arena->long_committed); /* set after the commit, never cleared */
	uint32_t bit = UINT32_C(1) << (slab % SLABS_PER_ARENA);
	int r;

	if (bits & bit)
		return 0;
	if ((bits == 0 || view->page_size <= LONG_FACTS_STRIDE) &&
	    !view_budget_allows(view, long_facts_step(view)))
		return -ENOMEM;
	r = view_commit(view, view->long_facts_offset + slab * LONG_FACTS_STRIDE,
			LONG_FACTS_STRIDE);
	if (r < 0)
		return r;
	/* pairs: arena.long_facts - a checker that sees the bit may read the facts. */
	(void)fetch_or_acq_rel(&arena->long_committed, bit);
	return 0;
}

/* FREE -> CLAIMED -> OWNED. 0; -EAGAIN somebody else has it; -ENOMEM. */
static int slab_take(struct lane *lane, const struct bin_info *bin, uint64_t slab)
{
	struct shale_segment *view = lane->view;
	uint64_t *word = slab_word(view, slab);
	uint64_t before = load_relaxed(word); /* the CAS decides */
	uint64_t claimed = slab_word_next(before, slab_low(SLAB_CLAIMED, lane->index, 0));
	uint64_t index = (uint64_t)(bin - bin_table);
	uint64_t after;
	int r = -EAGAIN;

	/* pairs: slab.word - the facts that the last owner left are zero. */
	if (slab_word_state(before) != SLAB_FREE || !cas_seq_cst(word, &before, claimed))
		return -EAGAIN;
	if (arena_committed(view, slab / SLABS_PER_ARENA))
		r = bin->facts_long ? commit_long_facts(view, slab) : 0;
	if (view->debug)
		debug_slab_taken(view, slab, claimed);
	after = slab_word_next(claimed, r < 0 ? slab_low(SLAB_FREE, 0, 0)
					      : slab_low(SLAB_OWNED, lane->index, (unsigned)index));
	/* a CLAIMED word is changed by the lane that it names, or by that lane's recovery */
	(void)cas_acq_rel(word, &claimed, after);
	return r;
}

static int arena_take(struct lane *lane, const struct bin_info *bin, uint64_t arena,
		      uint64_t *ret_slab)
{
	int r;

	if (!arena_committed(lane->view, arena))
		return -EAGAIN;
	for (uint64_t slab = arena * SLABS_PER_ARENA; slab < (arena + 1) * SLABS_PER_ARENA;
	     slab++) {
		r = slab_take(lane, bin, slab);
		if (r == -EAGAIN)
			continue;
		if (r == 0) {
			*ret_slab = slab;
			heap_lane(lane)->arena_current = arena;
		}
		return r;
	}
	return -EAGAIN;
}

void arena_note_free(struct shale_segment *view, uint64_t slab)
{
	uint32_t arena = (uint32_t)(slab / SLABS_PER_ARENA);

	/* a hint: a lost update costs memory, not truth */
	if (load_relaxed(&view_hints(view)->arena_free_hint) > arena)
		store_relaxed(&view_hints(view)->arena_free_hint, arena);
	memory_freed(view);
}

/* Arenas below the hint are thought to be full; a freed slab lowers it again. */
static int take_searching(struct lane *lane, const struct bin_info *bin, uint64_t *ret_slab)
{
	struct shale_segment *view = lane->view;
	uint32_t *hint = &view_hints(view)->arena_free_hint;
	uint64_t high = view_arena_high(view);
	uint32_t first = load_relaxed(hint); /* a hint: a wrong one costs memory, not truth */
	int r;

	for (uint64_t arena = first; arena < high; arena++) {
		r = arena_take(lane, bin, arena, ret_slab);
		if (r != -EAGAIN) {
			if (r == 0)
				(void)cas_relaxed(hint, &first, (uint32_t)arena);
			return r;
		}
	}
	return -EAGAIN;
}

/* 0; -ENOMEM, also when there is none free and `commit` is not set. */
int arena_take_slab(struct lane *lane, const struct bin_info *bin, bool commit, uint64_t *ret_slab)
{
	uint64_t current = heap_lane(lane)->arena_current;
	uint64_t arena;
	int r = -EAGAIN;

	if (current < view_arena_high(lane->view))
		r = arena_take(lane, bin, current, ret_slab);
	if (r == -EAGAIN)
		r = take_searching(lane, bin, ret_slab);
	while (r == -EAGAIN && commit) {
		/* repeats only when others took all 32 slabs of the arena that we committed */
		r = arena_commit_any(lane, 0, &arena);
		if (r == 0)
			r = arena_take(lane, bin, arena, ret_slab);
	}
	/* the last resort: the hint may have passed an arena in which a slab was just freed */
	if (r == -ENOMEM && commit && load_relaxed(&view_hints(lane->view)->arena_free_hint) != 0) {
		store_relaxed(&view_hints(lane->view)->arena_free_hint, 0u);
		r = take_searching(lane, bin, ret_slab);
	}
	return r == -EAGAIN ? -ENOMEM : r;
}
