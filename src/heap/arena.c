/*
 * arena.c - arenas: commit them, and find a free slab in them.
 *
 * Arena state word: NONE -> COMMITTING(lane) -> COMMITTED -> RETURNING(lane) -> NONE, by CAS. The
 * doer is named, so recovery can set a dead doer's word back to NONE; committing twice is harmless.
 * Which arena is asked first is in rank.c; docs/design/arenas.md has the whole.
 *
 * Invariant: AR1 a slab word of an arena that is not COMMITTED is FREE, or CLAIMED by the lane that
 *            is returning it, or claimed by mistake for an instant (arena_take below).
 *            AR2 a slab with a bit in `fresh` has not been written since its pages were given: they
 *            are zero. Set while COMMITTING, cleared by who has claimed the slab.
 * Progress:  lock-free but for the kernel's commit, which nobody else waits for.
 * Ordering:  arena.state: who claims a slab re-checks the state after the CAS on the word; who
 *            returns an arena sets the state before its CASes on the words (both RMWs seq_cst).
 *            arena.high: an entry is committed before the mark is raised.
 * Death:     COMMITTING, RETURNING and CLAIMED name the lane; recovery sets them back.
 */
#include "heap/arena.h"

#include <errno.h>
#include <string.h>

#include "heap/debug.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/placement.h"
#include "heap/rank.h"
#include "heap/slab.h"
#include "heap/sparse.h"

#define COMMIT_TRIES 1024u

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

/* -- nodes ----------------------------------------------------------------------------------- */

unsigned arena_node_here(const struct shale_segment *view)
{
	unsigned node;

	if (view->header.placement != SHALE_PLACE_LOCAL || !view->several_nodes)
		return 0;
	os_cpu_current(NULL, &node);
	return node < UINT8_MAX ? node + 1 : 0;
}

/* -- committing ------------------------------------------------------------------------------ */

/* Makes the table entry of arena `high` usable and raises the mark to high + 1. */
static int raise_high(struct shale_segment *view, uint32_t high)
{
	uint64_t entry = view->arena_table_offset + (uint64_t)high * sizeof(struct arena_shm);
	int r = view_commit(view, entry, sizeof(struct arena_shm));

	if (r < 0)
		return r;
	/* before the mark: whoever dies in between has hidden nothing */
	rank_announce(view, high);
	/* pairs: arena.high - the entry is committed. Who loses finds it raised already. */
	(void)cas_acq_rel(&view_hints(view)->arena_high, &high, high + 1);
	return 0;
}

/* Short facts that were purged while the arena was here before wait for who takes their slabs. */
static int commit_short_facts(struct shale_segment *view, uint64_t arena)
{
	/* pairs: facts.gone - pages of which a slab's facts are there are there, and stay. */
	uint32_t gone = load_acquire(&heap_arena(view, arena)->facts_gone);
	uint64_t facts = view->short_facts_offset + arena * SHORT_FACTS_ARENA;
	int r = 0;

	if (gone == 0)
		return view_commit(view, facts, SHORT_FACTS_ARENA);
	for (unsigned s = 0; s < SLABS_PER_ARENA && r == 0; s += 4)
		if ((gone >> s & 0xf) != 0xf)
			r = view_commit(view, facts + s * (uint64_t)SHORT_FACTS_STRIDE,
					UINT64_C(4) * SHORT_FACTS_STRIDE);
	return r;
}

static int commit_memory(struct shale_segment *view, uint64_t arena, unsigned node)
{
	int r;

	/* our own COMMITTING word is counted already */
	if (!view_budget_allows(view, 0))
		return -ENOMEM;
	r = commit_short_facts(view, arena);
	return r < 0 ? r : placement_commit(view, arena, (uint8_t)node);
}

/* The arena is COMMITTING by us: what its other words say once it has memory. */
static void note_committed(struct shale_segment *view, uint64_t number, unsigned node)
{
	struct arena_shm *arena = heap_arena(view, number);

	/* ours until the state says COMMITTED: plain stores, published by it */
	store_relaxed(&arena->fresh, UINT32_MAX);
	store_relaxed(&arena->node, (uint8_t)node);
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		if (load_relaxed(&arena->punched[i]) != 0)
			store_relaxed(&arena->punched[i], (uint16_t)0);
}

/* 0 committed by us; -EAGAIN not NONE (any more); -errno. */
static int arena_commit(struct lane *lane, uint64_t arena, unsigned node)
{
	struct shale_segment *view = lane->view;
	uint64_t *state = &heap_arena(view, arena)->state;
	uint64_t before = load_relaxed(state); /* the CAS decides */
	uint64_t doing = arena_word(ARENA_COMMITTING, lane->index, before);
	uint64_t done;
	int r;

	if (!state_is(before, ARENA_NONE) || !cas_seq_cst(state, &before, doing)) {
		(void)rank_update(view, arena);
		return -EAGAIN;
	}
	r = commit_memory(view, arena, node);
	if (r == 0)
		note_committed(view, arena, node);
	done = arena_word(r < 0 ? ARENA_NONE : ARENA_COMMITTED, 0, doing);
	/* pairs: arena.state - the memory is there before the word says so. */
	(void)cas_seq_cst(state, &doing, done);
	if (r == 0)
		rank_set_node(view, arena, node);
	(void)rank_update(view, arena);
	return r;
}

/* Brings `arena` below the mark. */
static int arena_reach(struct shale_segment *view, uint64_t arena)
{
	int r = 0;

	if (arena >= view->arena_count)
		return -ENOMEM;
	/* one step for each arena, whatever a lying peer does to the mark */
	for (uint64_t steps = 0, high; r == 0 && steps <= arena; steps++) {
		high = view_arena_high(view);
		if (high > arena)
			break;
		r = raise_high(view, (uint32_t)high);
	}
	return r;
}

int arena_commit_at(struct lane *lane, uint64_t arena, unsigned node)
{
	int r = arena_reach(lane->view, arena);

	if (r < 0)
		return r;
	return arena_committed(lane->view, arena) ? 0 : arena_commit(lane, arena, node);
}

int arena_commit_any(struct lane *lane, unsigned node, uint64_t *ret_arena)
{
	struct shale_segment *view = lane->view;
	uint64_t arena;
	int r;

	for (uint64_t from = 0; rank_next(view, RANK_UNCOMMITTED, from, 0, &arena);
	     from = arena + 1) {
		r = arena_commit(lane, arena, node);
		if (r == 0)
			*ret_arena = arena;
		if (r != -EAGAIN)
			return r;
	}
	for (arena = view_arena_high(view); arena < view->arena_count; arena++) {
		r = arena_reach(view, arena);
		if (r == 0)
			r = arena_commit(lane, arena, node);
		if (r == 0)
			*ret_arena = arena;
		if (r != -EAGAIN)
			return r;
	}
	return -ENOMEM;
}

/* -- long facts -------------------------------------------------------------------------------- */

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
 * Whoever comes late with a pointer into facts that were punched may have left a byte there. facts_gone
 * does not tell: the slab may have had short facts since, and the bit is theirs as well.
 */
static void zero_long_facts(struct shale_segment *view, uint64_t slab)
{
	uint64_t __attribute__((may_alias)) *eight =
		view_at(view, view->long_facts_offset + slab * LONG_FACTS_STRIDE);

	for (unsigned i = 0; i < LONG_FACTS_STRIDE / 8; i++)
		if (load_relaxed(eight + i) != 0) /* the slab is ours */
			store_relaxed(eight + i, UINT64_C(0));
}

/*
 * The long facts of a slab are committed when a slab of small blocks first needs them, or needs them
 * again after a purge. On large pages the budget is asked for a whole page even if a neighbour has it
 * already: refusing early is allowed.
 */
int arena_commit_long_facts(struct shale_segment *view, uint64_t slab)
{
	struct arena_shm *arena = slab_arena(view, slab);
	uint32_t bits = load_relaxed(
		&arena->long_committed); /* its bit moves with the slab, which is ours */
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
	zero_long_facts(view, slab);
	/* pairs: arena.long_facts - a checker that sees the bit may read the facts. */
	(void)fetch_or_acq_rel(&arena->long_committed, bit);
	return 0;
}

/* -- what was in a slab before ------------------------------------------------------------------ */

static void zero_slabs(struct shale_segment *view, uint64_t arena, uint32_t mask)
{
	for (; mask != 0; mask &= mask - 1)
		memset(view_at(view, slab_offset(view, arena * SLABS_PER_ARENA + lowest_bit(mask))),
		       0, SLAB_SIZE);
}

int arena_prepare(struct shale_segment *view, uint64_t number, uint32_t mask, bool zero,
		  uint32_t *ret_fresh)
{
	struct arena_shm *arena = heap_arena(view, number);
	uint32_t fresh;
	int r;

	for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
		unsigned i = lowest_bit(rest);

		/* the slab is claimed by us: nobody else writes what is known about it */
		if (load_relaxed(&arena->punched[i]) == 0)
			continue;
		r = view_commit(view, slab_offset(view, number * SLABS_PER_ARENA + i), SLAB_SIZE);
		if (r < 0)
			return r;
		store_relaxed(&arena->punched[i], (uint16_t)0);
	}
	fresh = load_relaxed(&arena->fresh) & mask; /* ours, as above */
	if (zero)
		zero_slabs(view, number, mask & ~fresh);
	if (fresh != 0)
		/* relaxed: the slab's word hands it on */
		(void)fetch_and_relaxed(&arena->fresh, ~mask);
	if (ret_fresh)
		*ret_fresh = fresh;
	return 0;
}

/* -- taking a slab ------------------------------------------------------------------------------ */

/* A slab that is CLAIMED by us: what it needs before a block is in it. */
static int slab_equip(struct lane *lane, const struct bin_info *bin, uint64_t slab)
{
	struct shale_segment *view = lane->view;
	uint64_t arena = slab / SLABS_PER_ARENA;
	uint32_t fresh;
	int r;

	if (!arena_committed(view, arena))
		return -EAGAIN;
	r = arena_prepare(view, arena, UINT32_C(1) << (slab % SLABS_PER_ARENA), false, &fresh);
	if (r == 0)
		r = slab_make_whole(view, slab, bin);
	if (r == 0)
		heap_lane(lane)->taken_fresh = fresh != 0;
	return r;
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
	int r;

	/* pairs: slab.word - the facts that the last owner left are zero. */
	if (slab_word_state(before) != SLAB_FREE || !cas_seq_cst(word, &before, claimed))
		return -EAGAIN;
	r = slab_equip(lane, bin, slab);
	if (view->debug)
		debug_slab_taken(view, slab, claimed);
	after = slab_word_next(claimed, r < 0 ? slab_low(SLAB_FREE, 0, 0)
					      : slab_low(SLAB_OWNED, lane->index, (unsigned)index));
	/* a CLAIMED word is changed by the lane that it names, or by that lane's recovery */
	(void)cas_acq_rel(word, &claimed, after);
	return r;
}

/* One of the slabs in the mask. -EAGAIN they are gone. */
static int arena_take(struct lane *lane, const struct bin_info *bin, uint64_t arena, uint32_t mask,
		      uint64_t *ret_slab)
{
	int r = -EAGAIN;

	for (; mask != 0 && r == -EAGAIN; mask &= mask - 1) {
		*ret_slab = arena * SLABS_PER_ARENA + lowest_bit(mask);
		r = slab_take(lane, bin, *ret_slab);
	}
	if (r == 0)
		heap_lane(lane)->arena_current = arena;
	/* also when it was in vain: the class that led here was wrong */
	(void)rank_update(lane->view, arena);
	return r;
}

void arena_note_free(struct shale_segment *view, uint64_t slab)
{
	if (rank_update(view, slab / SLABS_PER_ARENA) == RANK_EMPTY)
		giveback_note_empty(view, slab / SLABS_PER_ARENA);
	memory_freed(view);
}

/* The lane goes on in the arena of its last slab, unless that is empty or on another node. */
static int take_current(struct lane *lane, const struct bin_info *bin, unsigned node,
			uint64_t *ret_slab)
{
	struct shale_segment *view = lane->view;
	uint64_t current = heap_lane(lane)->arena_current;
	uint32_t mask;

	if (current >= view_arena_high(view) || !arena_committed(view, current) ||
	    (node != 0 && load_relaxed(&heap_arena(view, current)->node) != node)) /* a hint */
		return -EAGAIN;
	mask = rank_free_mask(view, current);
	return mask != 0 && mask != UINT32_MAX ? arena_take(lane, bin, current, mask, ret_slab)
					       : -EAGAIN;
}

/* From the fullest arena that has room; node 0: any. Each arena is tried once for each class. */
static int take_ranked(struct lane *lane, const struct bin_info *bin, unsigned node,
		       uint64_t *ret_slab)
{
	struct shale_segment *view = lane->view;
	uint64_t arena;
	uint32_t mask;
	int r;

	for (unsigned rank = RANK_FULLEST; rank <= RANK_EMPTY; rank++)
		for (uint64_t from = 0; rank_next(view, rank, from, node, &arena);
		     from = arena + 1) {
			mask = arena_committed(view, arena) ? rank_free_mask(view, arena) : 0;
			r = arena_take(lane, bin, arena, mask, ret_slab);
			if (r != -EAGAIN)
				return r;
		}
	return -EAGAIN;
}

static int take_committing(struct lane *lane, const struct bin_info *bin, unsigned node,
			   uint64_t *ret_slab)
{
	uint64_t full = heap_lane(lane)->arena_current, arena;
	int r = -EAGAIN;

	/*
	 * again only when others took all 32 slabs of the arena that we committed; who never comes
	 * to an end of that is played with
	 */
	for (unsigned tries = 0; r == -EAGAIN && tries < COMMIT_TRIES; tries++) {
		r = arena_commit_any(lane, node, &arena);
		if (r == 0)
			r = arena_take(lane, bin, arena, UINT32_MAX, ret_slab);
	}
	if (r == 0)
		placement_collapse(lane, full);
	return r;
}

int arena_take_slab(struct lane *lane, const struct bin_info *bin, bool commit, uint64_t *ret_slab)
{
	unsigned node = arena_node_here(lane->view);
	int r = take_current(lane, bin, node, ret_slab);

	if (r == -EAGAIN)
		r = take_ranked(lane, bin, node, ret_slab);
	if (!commit)
		return r == -EAGAIN ? -ENOMEM : r;
	if (r == -EAGAIN)
		r = take_committing(lane, bin, node, ret_slab);
	if (r == -ENOMEM && node != 0)
		r = take_ranked(lane, bin, 0, ret_slab);
	/* the last resort: a bit may hide an arena that has room */
	if (r == -ENOMEM || r == -EAGAIN) {
		rank_repair(lane->view);
		r = take_ranked(lane, bin, 0, ret_slab);
	}
	return r == -EAGAIN ? -ENOMEM : r;
}
