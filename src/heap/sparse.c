/*
 * sparse.c - facts that move: from the dense areas to the arena's entry and back.
 *
 *   sparse[slab][k]:  | index (16) | own (8) | shared (8) |   own == 0: not used
 *
 * Owner:     entries are filled by the holder of the arena's lease while it holds the slab; from the
 *            switch on each fact is changed by who may change the dense one, by CAS.
 * Invariant: H8, H9 (heap_check.c), PG1, PG2 (purge_check.c).
 * Progress:  a CAS on an entry fails when its block's facts have changed: at most a few times.
 * Ordering:  sparse.switch (both columns are in docs/design/purge.md), slab.word, facts.gone.
 * Death:     the lease names the doer, its phase says what may have been done;
 *            sparse_settle_lane() finishes it.
 */
#include "heap/sparse.h"

#include <errno.h>

#include "heap/arena.h"
#include "heap/facts.h"
#include "heap/heap.h"
#include "heap/parked.h"

/* -- entries ----------------------------------------------------------------------------------- */

struct sparse_fact *sparse_find(const struct shale_segment *view, uint64_t slab, uint32_t index)
{
	for (unsigned k = 0; k < SPARSE_FACTS; k++) {
		struct sparse_fact *entry = sparse_entry(view, slab, k), fact = sparse_load(entry);

		if (fact.own != OWN_FREE && fact.index == index)
			return entry;
	}
	return NULL;
}

bool sparse_any_live(const struct shale_segment *view, uint64_t slab)
{
	for (unsigned k = 0; k < SPARSE_FACTS; k++)
		if (sparse_fact_live(sparse_load(sparse_entry(view, slab, k))))
			return true;
	return false;
}

static void sparse_store(struct sparse_fact *entry, struct sparse_fact fact)
{
	sparse_word *word = (void *)entry;

	/* relaxed: the slab is ours, and its word says that the entries do not count */
	store_relaxed(word, (union sparse_slot){.fact = fact}.word);
}

static void sparse_clear(struct shale_segment *view, uint64_t slab)
{
	uint32_t bit = UINT32_C(1) << (slab % SLABS_PER_ARENA);

	/* the slab is ours: nobody looks for facts here */
	(void)fetch_and_acq_rel(&slab_arena(view, slab)->sparse_used, ~bit);
	for (unsigned k = 0; k < SPARSE_FACTS; k++)
		sparse_store(sparse_entry(view, slab, k), (struct sparse_fact){0});
}

static bool sparse_is_used(const struct shale_segment *view, uint64_t slab)
{
	/* the slab is ours, or a dead lane's: nobody moves its bit */
	return load_relaxed(&slab_arena(view, slab)->sparse_used) >> (slab % SLABS_PER_ARENA) & 1;
}

/* -- leases ------------------------------------------------------------------------------------ */

static int settle_arena_lease(struct shale_segment *view, uint32_t lane, uint64_t arena);

static uint64_t lease_word(uint32_t lane, enum lease_phase phase)
{
	return (uint64_t)phase | ((uint64_t)lane << SLAB_LANE_SHIFT);
}

bool lease_take(struct lane *lane, uint64_t arena, enum lease_phase phase)
{
	uint64_t *lease = &heap_arena(lane->view, arena)->lease;
	uint64_t nobody = load_relaxed(lease); /* the CAS decides */

	/* ours: a purge that could not get its barrier */
	if (slab_word_lane(nobody) == lane->index &&
	    settle_arena_lease(lane->view, lane->index, arena) == 0)
		nobody = 0;
	/* pairs: arena.pin - the lease is taken before the pins are read. */
	return nobody == 0 && cas_seq_cst(lease, &nobody, lease_word(lane->index, phase));
}

void lease_phase_set(struct lane *lane, uint64_t arena, enum lease_phase phase)
{
	/* pairs: arena.lease - what the last phase did is complete. */
	store_release(&heap_arena(lane->view, arena)->lease, lease_word(lane->index, phase));
}

void lease_drop(struct shale_segment *view, uint64_t arena)
{
	/* pairs: arena.lease - nothing is held any more. */
	store_release(&heap_arena(view, arena)->lease, UINT64_C(0));
}

bool slab_hold(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	uint64_t held = slab_word_next(word, (word & SLAB_PAYLOAD_MASK) | SLAB_HELD);

	/* pairs: slab.word - from here on nobody reopens, adopts or takes it. */
	return cas_seq_cst(slab_word(view, slab), &word, held);
}

void slab_unhold(struct shale_segment *view, uint32_t lane, uint64_t slab)
{
	uint64_t word = load_relaxed(slab_word(view, slab)), after; /* the CAS decides */

	/* repeats only when recovery has made an orphan of it */
	do {
		if (!slab_word_let_go(word) || !(word & SLAB_HELD))
			return;
		after = slab_word_next(word, word & SLAB_PAYLOAD_MASK & ~SLAB_HELD);
		/* pairs: slab.word - holes and entries are complete. pairs: slab.moved - then the look. */
	} while (!cas_seq_cst(slab_word(view, slab), &word, after));
	/* who freed the last block while it was held has left it to us */
	if (slab_look(view, lane, slab, after) == SLAB_NAMED)
		slab_orphans_changed(view);
}

/* -- dense to sparse ----------------------------------------------------------------------------- */

void sparse_switch(struct shale_segment *view, uint64_t slab, const struct sparse_fact *facts)
{
	uint64_t word = load_relaxed(slab_word(view, slab)); /* held by us */

	for (unsigned k = 0; k < SPARSE_FACTS; k++)
		sparse_store(sparse_entry(view, slab, k), facts[k]);
	(void)fetch_or_acq_rel(&slab_arena(view, slab)->sparse_used,
			       UINT32_C(1) << (slab % SLABS_PER_ARENA));
	/* pairs: sparse.switch - who changed a dense fact and still finds the old word is seen after it. */
	(void)cas_seq_cst(slab_word(view, slab), &word,
			  slab_word_next(word, (word & SLAB_PAYLOAD_MASK) | SLAB_SPARSE));
}

/* What the entry is to say when the dense facts say `own` and `shared`. */
static struct sparse_fact fact_joined(struct sparse_fact fact, uint8_t own, uint8_t shared)
{
	if (own == OWN_FREE)
		return (struct sparse_fact){.index = fact.index};
	if (shared > fact.shared)
		fact.shared = shared; /* free is more than published is more than nothing */
	return fact;
}

/* Takes over what the dense facts of one block say by now. `seen`: the entry as it was filled. */
static void transfer_entry(struct sparse_fact *place, const struct sparse_fact *seen, uint8_t own,
			   uint8_t shared)
{
	struct sparse_fact fact, to;

	if (seen && own != OWN_FREE && shared != SHARED_FREED) {
		/* a publish, or one taken back: only if nothing has come after it in the entry */
		to = *seen;
		to.shared = shared;
		if (shared != seen->shared)
			(void)sparse_cas(place, *seen, to);
		return;
	}
	/* repeats only when the holder of the block changed its fact */
	do {
		fact = sparse_load(place);
		to = fact_joined(fact, own, shared);
		if (fact.own == OWN_FREE || (to.own == fact.own && to.shared == fact.shared))
			return;
	} while (!sparse_cas(place, fact, to));
}

static const struct bin_info *bin_of_slab(struct shale_segment *view, uint64_t slab)
{
	/* held by us, or by a dead lane: its bin stays */
	const struct bin_info *bin = &bin_table[slab_word_bin(load_relaxed(slab_word(view, slab)))];

	return bin->size ? bin : NULL;
}

void sparse_transfer(struct shale_segment *view, uint64_t slab, const struct sparse_fact *facts)
{
	const struct bin_info *bin = bin_of_slab(view, slab);
	const uint8_t *own = bin ? slab_own_facts(view, bin, slab) : NULL;

	for (unsigned k = 0; own && k < SPARSE_FACTS; k++) {
		uint32_t index = sparse_load(sparse_entry(view, slab, k)).index;

		if (index < bin->count)
			/* pairs: sparse.switch - read after the slab word has changed. */
			transfer_entry(sparse_entry(view, slab, k), facts ? &facts[k] : NULL,
				       load_seq_cst(own + index),
				       load_seq_cst(own + bin->facts_half + index));
	}
}

/* -- sparse to dense ----------------------------------------------------------------------------- */

/* The slab is OWNED by now, or of a dead owner: what the entry says more than `seen` is said there. */
static void merge_entry(uint8_t *shared, const struct sparse_fact *seen, struct sparse_fact fact)
{
	uint8_t before = seen ? seen->shared : (uint8_t)SHARED_NONE;

	if (fact.shared == SHARED_FREED)
		/* pairs: slab.shared - the freer's accesses are over. */
		store_release(shared, (uint8_t)SHARED_FREED);
	else if (fact.shared != before)
		/* only if its holder has not come back to it here */
		(void)cas_seq_cst(shared, &before, fact.shared);
}

static void sparse_merge(struct shale_segment *view, uint64_t slab, const struct sparse_fact *seen)
{
	const struct bin_info *bin = bin_of_slab(view, slab);
	uint8_t *own = bin ? slab_own_facts(view, bin, slab) : NULL;

	for (unsigned k = 0; own && k < SPARSE_FACTS; k++) {
		struct sparse_fact fact = sparse_load(sparse_entry(view, slab, k));

		if (fact.own != OWN_FREE && fact.index < bin->count)
			merge_entry(own + bin->facts_half + fact.index, seen ? &seen[k] : NULL,
				    fact);
	}
	/* a hint: whoever owns the slab is to collect */
	store_relaxed(slab_remote_hint(view, slab), (uint8_t)1);
	sparse_clear(view, slab);
}

static void expand_fill(struct shale_segment *view, uint64_t slab, const struct bin_info *bin,
			struct sparse_fact *ret_seen)
{
	uint8_t *own = slab_own_facts(view, bin, slab);

	facts_zero(own, 2u * bin->facts_half);
	for (unsigned k = 0; k < SPARSE_FACTS; k++) {
		struct sparse_fact fact = sparse_load(sparse_entry(view, slab, k));

		ret_seen[k] = fact;
		if (fact.own == OWN_FREE || fact.index >= bin->count)
			continue;
		/* relaxed: read by others after the CAS on the word */
		store_relaxed(own + fact.index, fact.own);
		store_relaxed(own + bin->facts_half + fact.index, fact.shared);
	}
}

static int expand_held(struct lane *lane, uint64_t slab)
{
	struct shale_segment *view = lane->view;
	const struct bin_info *bin = bin_of_slab(view, slab);
	struct sparse_fact seen[SPARSE_FACTS];
	uint64_t word;
	int r = bin ? slab_make_whole(view, slab, bin) : view_damaged(view);

	if (r < 0)
		return r;
	expand_fill(view, slab, bin, seen);
	word = load_relaxed(slab_word(view, slab)); /* held by us; ours, or nobody's */
	/* pairs: sparse.switch - a fact that was changed in an entry before this is merged below. */
	if (!cas_seq_cst(
		    slab_word(view, slab), &word,
		    slab_word_next(word, slab_low(SLAB_OWNED, lane->index, slab_word_bin(word)))))
		return -EAGAIN;
	sparse_merge(view, slab, seen);
	return 0;
}

int sparse_expand(struct lane *lane, uint64_t slab, uint64_t word)
{
	uint64_t arena = slab / SLABS_PER_ARENA;
	int r = -EAGAIN;

	if (!lease_take(lane, arena, LEASE_PUNCH))
		return -EAGAIN;
	if (slab_hold(lane->view, slab, word)) {
		r = expand_held(lane, slab);
		if (r < 0)
			slab_unhold(lane->view, lane->index, slab);
	}
	lease_drop(lane->view, arena);
	return r;
}

/* -- a slab that changes hands ----------------------------------------------------------------- */

static int short_facts_back(struct shale_segment *view, uint64_t slab)
{
	struct arena_shm *arena = slab_arena(view, slab);
	uint64_t place = view->short_facts_offset + slab * SHORT_FACTS_STRIDE;
	uint32_t bit = UINT32_C(1) << (slab % SLABS_PER_ARENA);
	int r;

	/* pairs: facts.gone - set before the punch by a holder of this slab; now it is ours. */
	if (!(load_acquire(&arena->facts_gone) & bit))
		return 0;
	r = view_commit(view, place, SHORT_FACTS_STRIDE);
	if (r < 0)
		return r;
	facts_zero(view_at(view, place), SHORT_FACTS_STRIDE);
	/* pairs: facts.gone - whoever sees the bit off may read the facts. */
	(void)fetch_and_acq_rel(&arena->facts_gone, ~bit);
	return 0;
}

int slab_make_whole(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	uint32_t *fresh = &slab_arena(view, slab)->fresh;
	uint32_t bit = UINT32_C(1) << (slab % SLABS_PER_ARENA);
	int r = slab_recommit(view, slab);

	/* the bit is ours with the slab; who wants to know looks before */
	if (load_relaxed(fresh) & bit)
		(void)fetch_and_relaxed(fresh, ~bit);

	if (r < 0 || !bin)
		return r;
	return bin->facts_long ? arena_commit_long_facts(view, slab) : short_facts_back(view, slab);
}

void slab_forget_facts(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	const struct arena_shm *arena = slab_arena(view, slab);
	/* pairs: facts.gone, arena.long_facts - what is not there is zeroed when it is committed. */
	uint32_t there = bin->facts_long ? load_acquire(&arena->long_committed)
					 : ~load_acquire(&arena->facts_gone);
	uint8_t *own = slab_own_facts(view, bin, slab);

	if (there >> (slab % SLABS_PER_ARENA) & 1) {
		facts_zero(own, bin->count);
		facts_zero(own + bin->facts_half, bin->count);
	}
	if (sparse_is_used(view, slab))
		sparse_clear(view, slab);
}

/* -- recovery ----------------------------------------------------------------------------------- */

static int settle_held(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word,
		       bool converting, bool *barrier_done)
{
	int r = 0;

	if (converting && (word & SLAB_SPARSE)) {
		if (slab_word_state(word) == SLAB_PARKED && !*barrier_done) {
			r = os_membarrier_global();
			if (r < 0)
				return r;
			*barrier_done = true;
		}
		sparse_transfer(view, slab, NULL);
	} else if (converting) {
		sparse_clear(view, slab);
	}
	slab_unhold(view, lane, slab);
	return 0;
}

static int settle_leased_slab(struct shale_segment *view, uint32_t lane, uint64_t slab,
			      bool converting, bool *barrier_done)
{
	/* pairs: slab.word - what its dead holder did before it. */
	uint64_t word = load_acquire(slab_word(view, slab));
	enum slab_state state = slab_word_state(word);

	if (slab_word_let_go(word) && (word & SLAB_HELD))
		return settle_held(view, lane, slab, word, converting, barrier_done);
	if (state == SLAB_OWNED && slab_word_lane(word) == lane && sparse_is_used(view, slab))
		sparse_merge(view, slab, NULL);
	return 0;
}

static int settle_arena_lease(struct shale_segment *view, uint32_t lane, uint64_t arena)
{
	/* pairs: arena.lease - the phase tells what was complete. */
	uint64_t lease = load_acquire(&heap_arena(view, arena)->lease);
	bool converting = (lease & SLAB_STATE_MASK) == LEASE_CONVERT;
	bool barrier_done = false;
	int r = 0;

	if (lease == 0 || slab_word_lane(lease) != lane)
		return 0;
	for (uint64_t i = 0; i < SLABS_PER_ARENA && r == 0; i++)
		r = settle_leased_slab(view, lane, arena * SLABS_PER_ARENA + i, converting,
				       &barrier_done);
	if (r == 0)
		lease_drop(view, arena);
	return r;
}

int sparse_settle_lane(struct shale_segment *view, uint32_t lane)
{
	int error = 0;

	for (uint64_t arena = 0, high = view_arena_high(view); arena < high; arena++) {
		int r = settle_arena_lease(view, lane, arena);

		error = error ? error : r;
	}
	return error;
}
