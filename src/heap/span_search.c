/*
 * span_search.c - where a run of free slabs is.
 *
 * Up to 32 slabs: inside one arena, by the classes that can have so many, the fullest first. More,
 * or when arenas have to be committed: runs of neighbouring arenas that are wholly free (or have no
 * memory yet), with what is free at the end of the arena before them and at the beginning of the one
 * after. Whoever finds a rank wrong repairs it.
 *
 * Owner:    nobody: reads words and hints; span_claim() decides by CAS.
 * Ordering: as in rank.c and large.c.
 * Progress: bounded by the arenas below the mark; a run that somebody was faster to take is passed.
 * Death:    writes nothing itself.
 */
#include "heap/span_search.h"

#include <errno.h>

#include "heap/arena.h"
#include "heap/large.h"
#include "heap/rank.h"
#include "heap/slab.h"

#define LOOKS_PER_CLASS 16u /* arenas that have enough free slabs, but maybe not in a row */

static uint32_t free_mask(struct shale_segment *view, uint64_t arena)
{
	return arena < view_arena_high(view) && arena_committed(view, arena)
		       ? rank_free_mask(view, arena)
		       : 0;
}

/* -- inside one arena --------------------------------------------------------------------------- */

/* Bit i: slabs i to i + count - 1 are in the mask, and i is a multiple of the step. */
static uint32_t run_starts(uint32_t mask, const struct span_want *want)
{
	for (uint64_t have = 1; have < want->count;) {
		uint64_t more = have < want->count - have ? have : want->count - have;

		mask &= mask >> more;
		have += more;
	}
	for (uint64_t i = 0; want->step > 1 && i < SLABS_PER_ARENA; i++)
		if (i % want->step != 0)
			mask &= ~(UINT32_C(1) << i);
	return mask;
}

static int claim_in_arena(struct lane *lane, const struct span_want *want, uint64_t arena,
			  uint64_t *ret_head)
{
	uint32_t starts = run_starts(free_mask(lane->view, arena), want);
	int r = -EAGAIN;

	for (; starts != 0 && r == -EAGAIN; starts &= starts - 1) {
		*ret_head = arena * SLABS_PER_ARENA + lowest_bit(starts);
		r = span_claim(lane, want, *ret_head);
	}
	if (r == -EAGAIN)
		(void)rank_update(lane->view, arena);
	return r;
}

static int search_arenas(struct lane *lane, const struct span_want *want, unsigned node,
			 uint64_t *ret_head)
{
	uint64_t arena;

	for (unsigned rank = rank_with_room((unsigned)want->count); rank <= RANK_EMPTY; rank++) {
		uint64_t from = 0;

		for (unsigned looks = 0; looks < LOOKS_PER_CLASS; looks++, from = arena + 1) {
			int r;

			if (!rank_next(lane->view, rank, from, node, &arena))
				break;
			r = claim_in_arena(lane, want, arena, ret_head);
			if (r != -EAGAIN)
				return r;
		}
	}
	return -EAGAIN;
}

/* -- runs of arenas ------------------------------------------------------------------------------ */

struct run_search {
	struct shale_segment *view;
	bool commit;
	unsigned node;  /* inside one arena: of this node (rank.h), 0: any */
	uint64_t high;  /* the mark: above it no arena has memory, and no entry may be read */
	uint64_t limit; /* the first arena that cannot be part of a run */
	uint64_t begin; /* first arena of the run found */
	uint64_t end;   /* the one after its last */
};

static struct run_search run_search_make(struct shale_segment *view, bool commit, unsigned node)
{
	uint64_t high = view_arena_high(view);

	return (struct run_search){
		.view = view,
		.commit = commit,
		.node = node,
		.high = high,
		.limit = commit ? view->arena_count : high,
	};
}

/* The first arena at or after `from` that may be in a run, or `limit`. */
static uint64_t run_begin(const struct run_search *search, uint64_t from)
{
	uint64_t first = search->commit && from < search->high ? search->high : search->limit;
	uint64_t arena;

	if (from >= search->high)
		return from < search->limit ? from : search->limit;
	if (rank_next(search->view, RANK_EMPTY, from, search->node, &arena) && arena < first)
		first = arena;
	if (search->commit && rank_next(search->view, RANK_UNCOMMITTED, from, 0, &arena) &&
	    arena < first)
		first = arena;
	return first;
}

/* The first arena at or after `arena` that is not in the run. */
static uint64_t run_end(const struct run_search *search, uint64_t arena)
{
	while (arena < search->high) {
		uint64_t group = round_down(arena, 64);
		uint64_t bits = rank_bits(search->view, RANK_EMPTY, group);
		uint64_t rest;

		if (search->commit)
			bits |= rank_bits(search->view, RANK_UNCOMMITTED, group);
		rest = ~(bits >> (arena % 64));
		arena += rest != 0 ? lowest_bit(rest) : 64;
		if (arena < group + 64)
			break;
	}
	return arena >= search->high ? search->limit : arena;
}

static bool run_next(struct run_search *search, uint64_t from)
{
	search->begin = run_begin(search, from);
	if (search->begin >= search->limit)
		return false;
	search->end = run_end(search, search->begin);
	if (search->end == search->begin) /* the bits have changed since */
		search->end = search->begin + 1;
	return true;
}

/* What is free in the arena beside a run; on another node, nothing. */
static uint32_t free_beside(const struct run_search *search, uint64_t arena)
{
	uint32_t mask = free_mask(search->view, arena);

	if (mask != 0 && search->node != 0 &&
	    load_relaxed(&heap_arena(search->view, arena)->node) != search->node) /* a hint */
		return 0;
	return mask;
}

/* The head of `want` in the run and what is free beside it; false: too short. */
static bool run_fits(const struct run_search *search, const struct span_want *want,
		     uint64_t *ret_head)
{
	uint64_t first = search->begin * SLABS_PER_ARENA, last = search->end * SLABS_PER_ARENA;
	uint32_t before = search->begin > 0 ? free_beside(search, search->begin - 1) : 0;
	uint32_t after = search->end < search->limit ? free_beside(search, search->end) : 0;

	first -= ~before != 0 ? (uint64_t)__builtin_clz(~before) : SLABS_PER_ARENA;
	last += ~after != 0 ? lowest_bit(~after) : SLABS_PER_ARENA;
	*ret_head = round_up(first, want->step);
	return range_fits(*ret_head, want->count, last);
}

static int claim_run(struct lane *lane, const struct span_want *want, bool commit, unsigned node,
		     uint64_t head)
{
	uint64_t last = (head + want->count - 1) / SLABS_PER_ARENA;
	int r = 0;

	for (uint64_t arena = head / SLABS_PER_ARENA; commit && r == 0 && arena <= last; arena++)
		r = arena_commit_at(lane, arena, node);
	if (r == 0)
		r = span_claim(lane, want, head);
	if (r == -EAGAIN)
		span_rank(lane->view, head, want->count);
	return r;
}

static int search_runs(struct lane *lane, const struct span_want *want, bool commit, unsigned node,
		       uint64_t *ret_head)
{
	/* a run of several arenas is had where there is one */
	struct run_search search =
		run_search_make(lane->view, commit, want->count <= SLABS_PER_ARENA ? node : 0);
	int none = commit ? -ENOMEM : -EAGAIN;
	uint64_t from = 0, least = 0;
	int r;

	while (run_next(&search, from)) {
		from = search.end;
		if (!run_fits(&search, want, ret_head))
			continue;
		r = claim_run(lane, want, commit, node, *ret_head);
		if (r != -EAGAIN)
			return r;
		/* somebody was faster: what is left of the run is one again */
		none = -EAGAIN;
		from = *ret_head / SLABS_PER_ARENA + 1;
		/* onwards each time: a head before the run's first arena gives the same run again, once */
		if (from < least)
			from = least;
		least = from + 1;
	}
	return none;
}

int span_search(struct lane *lane, const struct span_want *want, bool commit, uint64_t *ret_head)
{
	unsigned node = arena_node_here(lane->view);
	int r = -EAGAIN;

	if (want->count <= SLABS_PER_ARENA)
		r = search_arenas(lane, want, node, ret_head);
	if (r == -EAGAIN && (commit || want->count > SLABS_PER_ARENA))
		r = search_runs(lane, want, commit, node, ret_head);
	return r;
}

/* -- everywhere ---------------------------------------------------------------------------------- */

/* Free slabs in a row from `slab` on, as far as the arena goes. */
static uint64_t free_from(uint32_t mask, uint64_t slab)
{
	unsigned inside = (unsigned)(slab % SLABS_PER_ARENA);
	uint32_t rest = ~(mask >> inside);

	return rest != 0 ? lowest_bit(rest) : SLABS_PER_ARENA - inside;
}

int span_search_all(struct lane *lane, const struct span_want *want, uint64_t *ret_head)
{
	uint64_t known = (uint64_t)view_arena_high(lane->view) * SLABS_PER_ARENA;
	uint64_t head = 0, have = 0; /* slabs [head, head + have) are free */
	int r;

	while (range_fits(head, want->count, known)) {
		uint64_t slab = head + have;
		uint64_t more = free_from(free_mask(lane->view, slab / SLABS_PER_ARENA), slab);

		have += more;
		if (have < want->count && more != 0)
			continue;
		if (have >= want->count) {
			*ret_head = head;
			r = span_claim(lane, want, head);
			if (r != -EAGAIN)
				return r;
		}
		head = round_up(have >= want->count ? head + 1 : slab + 1, want->step);
		have = 0;
	}
	return -EAGAIN;
}
