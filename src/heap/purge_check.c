/*
 * purge_check.c - the invariants of leases, held slabs and sparse facts: PG1..PG4.
 *
 * Reads only the arena table. What is wrong counts if it stays wrong through many looks, with the slab's
 * word unchanged.
 *
 *   PG1 a HELD word is PARKED or ORPHAN, and somebody has leased its arena
 *   PG2 a SPARSE word is PARKED or ORPHAN, its entries count, and are well formed
 *   PG3 the entries of a FREE slab do not count
 *   PG4 a lease names a lane in use, and a phase that is known
 *
 * Death: nothing is written.
 */
#include "heap/purge.h"

#include "heap/slab.h"
#include "heap/sparse.h"

#define LOOKS 64u

static bool word_parked(uint64_t word)
{
	return slab_word_state(word) == SLAB_PARKED || slab_word_state(word) == SLAB_ORPHAN;
}

static bool has_flag(uint64_t word, uint64_t flag)
{
	/* the head of a BODY lies in these bits */
	return slab_word_state(word) != SLAB_BODY && (word & flag) != 0;
}

static const char *held_is_leased(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	if (!has_flag(word, SLAB_HELD))
		return NULL;
	if (!word_parked(word))
		return "a held slab is neither parked nor an orphan";
	/* pairs: arena.lease - taken before, dropped after the slab is held. */
	return load_acquire(&slab_arena(view, slab)->lease) ? NULL
							    : "a held slab's arena is not leased";
}

static const char *entry_is_well_formed(struct shale_segment *view, uint64_t slab,
					const struct bin_info *bin, unsigned k)
{
	struct sparse_fact fact = sparse_load(sparse_place(view, slab, k)), other;

	if (fact.own == OWN_FREE)
		return NULL;
	if ((fact.own != OWN_ALLOCATED && fact.own != OWN_PUBLISHED) || fact.shared > SHARED_FREED)
		return "a sparse fact has an unknown value";
	if (fact.index >= bin->count)
		return "a sparse fact lies beyond the last block";
	for (unsigned j = k + 1; j < SPARSE_FACTS; j++) {
		other = sparse_load(sparse_place(view, slab, j));
		if (other.own != OWN_FREE && other.index == fact.index)
			return "a block has two sparse facts";
	}
	return NULL;
}

static const char *sparse_is_well_formed(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	const char *text = NULL;
	uint32_t used;

	if (!has_flag(word, SLAB_SPARSE))
		return NULL;
	if (!word_parked(word))
		return "a slab with sparse facts is neither parked nor an orphan";
	used = load_relaxed(&slab_arena(view, slab)->sparse_used); /* looked at again */
	if (!(used >> (slab % SLABS_PER_ARENA) & 1))
		return "a slab's sparse facts do not count";
	for (unsigned k = 0; k < SPARSE_FACTS && !text; k++)
		text = entry_is_well_formed(view, slab, &bin_table[slab_word_bin(word)], k);
	return text;
}

static const char *free_has_no_sparse_facts(struct shale_segment *view, uint64_t slab,
					    uint64_t word)
{
	uint32_t used = load_relaxed(&slab_arena(view, slab)->sparse_used); /* looked at again */

	if (slab_word_state(word) != SLAB_FREE || !(used >> (slab % SLABS_PER_ARENA) & 1))
		return NULL;
	return "the sparse facts of a free slab count";
}

static const struct invariant {
	const char *number;
	const char *(*test)(struct shale_segment *view, uint64_t slab, uint64_t word);
} invariants[] = {
	{"PG1", held_is_leased},
	{"PG2", sparse_is_well_formed},
	{"PG3", free_has_no_sparse_facts},
};

/* Wrong at every look with one word, or NULL. */
static const char *confirm(const struct invariant *invariant, struct shale_segment *view,
			   uint64_t slab)
{
	/* pairs: slab.word - entries are complete before the word says that they count. */
	uint64_t first = load_acquire(slab_word(view, slab)), word = first;
	const char *text = NULL;

	for (unsigned look = 0; look < LOOKS; look++) {
		text = invariant->test(view, slab, word);
		word = load_acquire(slab_word(view, slab)); /* pairs: slab.word - as above */
		if (!text || word != first)
			return NULL;
		os_cpu_relax();
	}
	return text;
}

static void check_lease(struct check_context *check, uint64_t arena)
{
	uint64_t lease = 0;

	for (unsigned look = 0; look < LOOKS; look++) {
		uint32_t lane;

		/* pairs: arena.lease - a lane in use took it. */
		lease = load_acquire(&heap_arena(check->view, arena)->lease);
		lane = slab_word_lane(lease);
		if (lease == 0 ||
		    (lane != 0 && lane < view_lane_high(check->view) &&
		     lane_word_active(load_relaxed(&view_lane(check->view, lane)->word)) &&
		     (lease & SLAB_STATE_MASK) >= LEASE_CONVERT &&
		     (lease & SLAB_STATE_MASK) <= LEASE_PUNCH))
			return;
		os_cpu_relax();
	}
	check_report(check, "PG4", check->view->heap_offset + (arena << ARENA_SHIFT),
		     "an arena's lease names no lane in use, or no known phase");
}

void purge_check(struct check_context *check)
{
	for (uint64_t arena = 0, high = view_arena_high(check->view); arena < high; arena++) {
		check_lease(check, arena);
		for (uint64_t i = 0; i < SLABS_PER_ARENA * ARRAY_SIZE(invariants); i++) {
			uint64_t slab = arena * SLABS_PER_ARENA + i / ARRAY_SIZE(invariants);
			const struct invariant *invariant = &invariants[i % ARRAY_SIZE(invariants)];
			const char *text = confirm(invariant, check->view, slab);

			if (text)
				check_report(check, invariant->number,
					     slab_offset(check->view, slab), text);
		}
	}
}
