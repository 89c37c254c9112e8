/*
 * heap_check.c - one function per numbered invariant of slab_layout.h, and the counters.
 *
 * Reads only, and only what is committed: slab words of arenas below the high-water mark, facts of
 * committed arenas, long facts whose bit is set. Works on read-only views.
 *
 * A violation seen while its slab changes hands is looked at again: it counts only if the slab word
 * and the violation both stay through several looks.
 *
 * Death: nothing is written.
 */
#include "heap/heap_check.h"

#include <errno.h>

#include "heap/arena.h"
#include "heap/debug.h"
#include "heap/heap.h"
#include "heap/large.h"
#include "heap/purge.h"
#include "heap/slab.h"

#define LOOKS 64u /* a transient state of a running peer is gone by then */

struct slab_view {
	struct shale_segment *view;
	uint64_t slab;
	uint64_t word;
	const struct bin_info *bin; /* of an owned, parked or orphan slab whose facts are dense */
	const struct sparse_fact *sparse; /* ... whose facts are sparse */
};

static uint64_t word_of(const struct slab_view *s)
{
	/* pairs: slab.word - the facts belong to the bin of this word. */
	return load_acquire(slab_word(s->view, s->slab));
}

static bool lane_in_use(struct shale_segment *view, uint32_t lane)
{
	return lane != 0 && lane < view_lane_high(view) &&
	       lane_word_active(load_relaxed(&view_lane(view, lane)->word)); /* looked at again */
}

static bool all_zero(const uint8_t *bytes, uint64_t size)
{
	for (uint64_t i = 0; i < size; i++)
		if (load_relaxed(bytes + i) != 0) /* a changing slab is looked at again */
			return false;
	return true;
}

static const uint8_t *short_facts(const struct slab_view *s)
{
	return view_at(s->view, s->view->short_facts_offset + s->slab * SHORT_FACTS_STRIDE);
}

static const uint8_t *long_facts(const struct slab_view *s)
{
	return view_at(s->view, s->view->long_facts_offset + s->slab * LONG_FACTS_STRIDE);
}

static bool long_facts_known(const struct slab_view *s)
{
	/* pairs: arena.long_facts - the facts are committed before the bit is set. */
	uint32_t bits = load_acquire(&slab_arena(s->view, s->slab)->long_committed);

	return bits >> (s->slab % SLABS_PER_ARENA) & 1;
}

static bool short_facts_known(const struct slab_view *s)
{
	/* pairs: facts.gone - facts that were given back are not looked at: that would fetch them. */
	uint32_t bits = load_acquire(&slab_arena(s->view, s->slab)->facts_gone);

	return !(bits >> (s->slab % SLABS_PER_ARENA) & 1);
}

/* -- the invariants: NULL if it holds, else what is wrong ---------------------------------------- */

static const char *h1_free_slab_has_zero_facts(const struct slab_view *s)
{
	if (slab_word_state(s->word) != SLAB_FREE)
		return NULL;
	if (short_facts_known(s) && !all_zero(short_facts(s), SHORT_FACTS_STRIDE))
		return "a free slab has short facts that are not zero";
	if (long_facts_known(s) && !all_zero(long_facts(s), LONG_FACTS_STRIDE))
		return "a free slab has long facts that are not zero";
	return NULL;
}

static bool is_shared_fact(uint8_t fact)
{
	return fact == SHARED_NONE || fact == SHARED_PUBLISHED || fact == SHARED_FREED;
}

static const char *h2_facts_have_known_values(const struct slab_view *s)
{
	const uint8_t *own;

	if (!s->bin)
		return NULL;
	own = slab_own_facts(s->view, s->bin, s->slab);
	for (uint32_t i = 0; i < s->bin->count; i++) {
		uint8_t mine = load_relaxed(own + i); /* one load, then tests */
		uint8_t others = load_relaxed(own + s->bin->facts_half + i);

		if (mine != OWN_FREE && mine != OWN_ALLOCATED && mine != OWN_PUBLISHED)
			return "a block's own fact has an unknown value";
		if (!is_shared_fact(others))
			return "a block's shared fact has an unknown value";
	}
	return NULL;
}

static const char *h3_free_block_is_not_shared(const struct slab_view *s)
{
	const uint8_t *own;

	if (!s->bin)
		return NULL;
	own = slab_own_facts(s->view, s->bin, s->slab);
	for (uint32_t i = 0; i < s->bin->count; i++)
		if (load_relaxed(own + i) == OWN_FREE && /* a collect is over at the next look */
		    load_relaxed(own + s->bin->facts_half + i) != SHARED_NONE)
			return "a free block has a shared fact";
	return NULL;
}

static const char *h4_no_facts_beyond_the_last_block(const struct slab_view *s)
{
	const uint8_t *own;

	if (!s->bin)
		return NULL;
	own = slab_own_facts(s->view, s->bin, s->slab);
	if (!all_zero(own + s->bin->count, s->bin->facts_half - s->bin->count) ||
	    !all_zero(own + s->bin->facts_half + s->bin->count, s->bin->facts_half - s->bin->count))
		return "facts beyond the last block are not zero";
	return NULL;
}

static const char *h5_body_is_covered_by_its_head(const struct slab_view *s)
{
	uint64_t head = slab_word_head(s->word);
	uint64_t word;

	if (slab_word_state(s->word) != SLAB_BODY)
		return NULL;
	if (head >= s->slab || !slab_known(s->view, head))
		return "a body names no slab before it";
	word = load_acquire(slab_word(s->view, head)); /* pairs: slab.word - then its length */
	if (slab_word_state(word) != SLAB_SPAN && slab_word_state(word) != SLAB_SPAN_CLAIM &&
	    slab_word_state(word) != SLAB_SPAN_CACHED)
		return "a body names a slab that heads no span";
	if (head + span_slab_count(s->view, head) <= s->slab)
		return "a body lies beyond the end of its span";
	return NULL;
}

static const char *h6_owner_is_a_lane_in_use(const struct slab_view *s)
{
	uint32_t lane = slab_word_lane(s->word);

	switch (slab_word_state(s->word)) {
	case SLAB_FREE:
	case SLAB_ORPHAN:
	case SLAB_BODY:
		return NULL;
	case SLAB_SPAN:
		if (lane == 0 && (s->word & SLAB_PUBLISHED))
			return NULL;
		break;
	case SLAB_OWNED:
	case SLAB_PARKED:
		if (!s->bin && !s->sparse)
			return "an owned or parked slab has an unknown bin";
		break;
	case SLAB_CLAIMED:
	case SLAB_SPAN_CLAIM:
	case SLAB_SPAN_CACHED:
		break;
	default:
		return "a slab word has an unknown state";
	}
	return lane_in_use(s->view, lane) ? NULL : "a slab belongs to a lane that is not in use";
}

static const char *h7_only_committed_arenas_have_slabs(const struct slab_view *s)
{
	if (slab_word_state(s->word) == SLAB_FREE || slab_word_state(s->word) == SLAB_CLAIMED ||
	    arena_committed(s->view, s->slab / SLABS_PER_ARENA))
		return NULL;
	return "a slab in use lies in an arena that is not committed";
}

static const char *h8_held_slab_has_a_lease(const struct slab_view *s)
{
	if (slab_word_state(s->word) == SLAB_BODY || !(s->word & SLAB_HELD))
		return NULL;
	if (!slab_word_let_go(s->word))
		return "a slab is held that is neither parked nor an orphan";
	/* relaxed: looked at again */
	if (load_relaxed(&slab_arena(s->view, s->slab)->lease) == 0)
		return "a slab is held without a lease";
	return NULL;
}

static const char *sparse_entry_wrong(const struct slab_view *s, unsigned i)
{
	const struct bin_info *bin = &bin_table[slab_word_bin(s->word)];
	const struct sparse_fact *entry = &s->sparse[i];
	/* relaxed: looked at again */
	uint8_t own = load_relaxed(&entry->own);

	if (own == OWN_FREE)
		return NULL;
	if ((own != OWN_ALLOCATED && own != OWN_PUBLISHED) ||
	    !is_shared_fact(load_relaxed(&entry->shared)))
		return "a sparse fact has an unknown value";
	if (entry->index >= bin->count)
		return "a sparse fact is about a block beyond the last";
	for (unsigned k = 0; k < i; k++)
		if (s->sparse[k].index == entry->index && s->sparse[k].own != OWN_FREE)
			return "two sparse facts are about one block";
	return NULL;
}

static const char *h9_sparse_facts_are_well_formed(const struct slab_view *s)
{
	uint32_t used = load_relaxed(&slab_arena(s->view, s->slab)->sparse_used); /* as below */
	const char *text = NULL;

	if (slab_word_state(s->word) == SLAB_BODY || !(s->word & SLAB_SPARSE))
		return NULL;
	if (!slab_word_let_go(s->word) || !s->sparse)
		return "a slab has sparse facts that is neither parked nor an orphan";
	if (!(used >> (s->slab % SLABS_PER_ARENA) & 1))
		return "the sparse facts of a slab are not marked as used";
	for (unsigned i = 0; i < SPARSE_FACTS && !text; i++)
		text = sparse_entry_wrong(s, i);
	return text;
}

static const struct invariant {
	const char *number;
	const char *(*test)(const struct slab_view *s);
	bool needs_facts; /* readable only while the arena is committed */
} invariants[] = {
	{"H1", h1_free_slab_has_zero_facts, true},
	{"H2", h2_facts_have_known_values, true},
	{"H3", h3_free_block_is_not_shared, true},
	{"H4", h4_no_facts_beyond_the_last_block, true},
	{"H5", h5_body_is_covered_by_its_head, false},
	{"H6", h6_owner_is_a_lane_in_use, false},
	{"H7", h7_only_committed_arenas_have_slabs, false},
	{"H8", h8_held_slab_has_a_lease, false},
	{"H9", h9_sparse_facts_are_well_formed, false},
};

static struct slab_view slab_look(struct shale_segment *view, uint64_t slab)
{
	struct slab_view s = {.view = view, .slab = slab};

	s.word = word_of(&s);
	if (slab_word_state(s.word) == SLAB_OWNED || slab_word_let_go(s.word))
		s.bin = &bin_table[slab_word_bin(s.word)];
	if (s.bin && s.bin->size != 0 && (s.word & SLAB_SPARSE)) {
		s.sparse = slab_arena(view, slab)->sparse[slab % SLABS_PER_ARENA];
		s.bin = NULL; /* the dense facts say nothing */
	}
	if (s.bin && (s.bin->size == 0 || (s.bin->facts_long && !long_facts_known(&s))))
		s.bin = NULL;
	return s;
}

/* Still wrong after many looks, or NULL. */
static const char *confirm(const struct invariant *invariant, struct shale_segment *view,
			   uint64_t slab)
{
	const char *text = NULL;

	for (unsigned look = 0; look < LOOKS; look++) {
		struct slab_view s = slab_look(view, slab);

		text = invariant->test(&s);
		if (!text)
			return NULL;
		os_cpu_relax();
	}
	return text;
}

static void check_slab(struct check_context *check, uint64_t slab, bool facts)
{
	for (unsigned i = 0; i < ARRAY_SIZE(invariants); i++) {
		const char *text;

		if (invariants[i].needs_facts && !facts)
			continue;
		text = confirm(&invariants[i], check->view, slab);
		if (text)
			check_report(check, invariants[i].number, slab_offset(check->view, slab),
				     text);
	}
}

void heap_check(struct check_context *check)
{
	uint64_t slabs = (uint64_t)view_arena_high(check->view) * SLABS_PER_ARENA;

	for (uint64_t slab = 0; slab < slabs; slab++)
		check_slab(check, slab, arena_committed(check->view, slab / SLABS_PER_ARENA));
	purge_check(check);
}

/* -- counters ------------------------------------------------------------------------------------ */

static bool lane_is_mine(struct shale_segment *view, uint32_t lane)
{
	uint64_t word = lane ? load_relaxed(&view_lane(view, lane)->word) : 0; /* statistics */

	/* a forked child that has not joined has no blocks, whatever its copy of the view says */
	return view->peer != 0 && load_relaxed(&view->attachment->attached) != 0 &&
	       lane_word_active(word) && lane_word_peer(word) == view->peer;
}

static void count_block(uint8_t own, uint8_t shared, uint32_t size, bool mine,
			struct shale_heap_figures *stat)
{
	bool published = own == OWN_PUBLISHED || shared == SHARED_PUBLISHED;

	if (own == OWN_FREE || shared == SHARED_FREED)
		return;
	stat->live_blocks++;
	stat->live_bytes += size;
	stat->published_blocks += published;
	stat->own_blocks += mine && !published;
}

static void count_blocks(const struct slab_view *s, struct shale_heap_figures *stat)
{
	const uint8_t *own = slab_own_facts(s->view, s->bin, s->slab);
	bool mine = lane_is_mine(s->view, slab_word_lane(s->word));

	for (uint32_t i = 0; i < s->bin->count; i++)
		/* statistics */
		count_block(load_relaxed(own + i), load_relaxed(own + s->bin->facts_half + i),
			    s->bin->size, mine, stat);
}

/* The same from the entries. */
static void count_sparse(const struct slab_view *s, struct shale_heap_figures *stat)
{
	bool mine = lane_is_mine(s->view, slab_word_lane(s->word));

	for (unsigned i = 0; i < SPARSE_FACTS; i++)
		/* statistics */
		count_block(load_relaxed(&s->sparse[i].own), load_relaxed(&s->sparse[i].shared),
			    bin_table[slab_word_bin(s->word)].size, mine, stat);
}

static void count_span(const struct slab_view *s, struct shale_heap_figures *stat)
{
	struct debug_card card;

	/* a guarded block that has been freed, and waits for its process to take the guards away */
	if (s->view->debug && guard_read_slab(s->view, s->slab, &card) && card.state == GUARD_FREED)
		return;
	stat->spans++;
	stat->live_blocks++;
	stat->live_bytes += span_slab_count(s->view, s->slab) * SLAB_SIZE;
	if (s->word & SLAB_PUBLISHED)
		stat->published_blocks++;
	else
		stat->own_blocks += lane_is_mine(s->view, slab_word_lane(s->word));
}

static void count_slab(struct shale_segment *view, uint64_t slab, struct shale_heap_figures *stat)
{
	struct slab_view s = slab_look(view, slab);

	stat->slabs_free += slab_word_state(s.word) == SLAB_FREE;
	stat->slabs_orphan += slab_word_state(s.word) == SLAB_ORPHAN;
	stat->slabs_owned +=
		slab_word_state(s.word) == SLAB_OWNED || slab_word_state(s.word) == SLAB_PARKED;
	if (s.bin)
		count_blocks(&s, stat);
	else if (s.sparse)
		count_sparse(&s, stat);
	else if (slab_word_state(s.word) == SLAB_SPAN)
		count_span(&s, stat);
}

int heap_stat_walk(struct shale_segment *view, struct shale_heap_figures *stat)
{
	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++) {
		if (!arena_committed(view, arena))
			continue;
		stat->committed_bytes += ARENA_SIZE;
		for (uint64_t i = 0; i < SLABS_PER_ARENA; i++)
			count_slab(view, arena * SLABS_PER_ARENA + i, stat);
	}
	stat->retained_bytes = stat->committed_bytes > stat->live_bytes
				       ? stat->committed_bytes - stat->live_bytes
				       : 0;
	stat->returned_bytes = load_relaxed(&view_hints(view)->returned_bytes); /* statistics */
	stat->purged_bytes = load_relaxed(&view_hints(view)->purged_bytes);
	stat->releases = load_relaxed(&view_hints(view)->releases);
	stat->keeper = load_relaxed(&view_hints(view)->keeper);
	return 0;
}

void heap_fill_segment_stat(struct shale_segment *view, struct shale_segment_figures *stat)
{
	uint64_t long_facts = arena_long_facts_bytes(view);

	stat->arenas_committed = (uint32_t)(arena_committed_bytes(view) / ARENA_SIZE);
	stat->committed_bytes += arena_committed_bytes(view) + long_facts;
	stat->metadata_bytes += long_facts;
}

int shale_heap_stat(struct shale_segment *segment, struct shale_heap_figures *ret_stat)
{
	struct shale_heap_figures stat = {.size = sizeof(stat)};
	int r;

	if (ret_stat->size != sizeof(stat))
		return -EINVAL;
	r = heap_stat_walk(segment, &stat);
	if (r == 0)
		*ret_stat = stat;
	return r;
}
