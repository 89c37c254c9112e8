/*
 * sparse.h - the facts of a slab with few live blocks, in its arena's entry instead of the dense areas.
 *
 * An entry is one 32-bit word and is changed by CAS: who comes late with an entry that has become
 * another block's fails at its index. The functions on entries do not look at the slab word; their
 * callers do so afterwards, and look for the facts again if it has changed.
 */
#ifndef SHALE_HEAP_SPARSE_H
#define SHALE_HEAP_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/slab.h"

union sparse_slot {
	struct sparse_fact fact;
	uint32_t word;
};

typedef uint32_t __attribute__((may_alias)) sparse_word;

static inline sparse_word *sparse_place(const struct shale_segment *view, uint64_t slab, unsigned k)
{
	return (sparse_word *)(void *)&slab_arena(view, slab)->sparse[slab % SLABS_PER_ARENA][k];
}

static inline struct sparse_fact sparse_load(const sparse_word *place)
{
	/* pairs: sparse.switch - what was stored here before the slab word changed is seen. */
	return (union sparse_slot){.word = load_seq_cst(place)}.fact;
}

static inline bool sparse_cas(sparse_word *place, struct sparse_fact from, struct sparse_fact to)
{
	uint32_t expected = (union sparse_slot){.fact = from}.word;

	/* pairs: sparse.switch - then the slab word is loaded again. */
	return cas_seq_cst(place, &expected, (union sparse_slot){.fact = to}.word);
}

static inline bool sparse_fact_live(struct sparse_fact fact)
{
	return fact.own != OWN_FREE && fact.shared != SHARED_FREED;
}

/* The entry of this block, or NULL: it is free. */
sparse_word *sparse_find(const struct shale_segment *view, uint64_t slab, uint32_t index,
			 struct sparse_fact *ret_fact);

/* The holder of the block frees it. -EALREADY: it is not live. */
int sparse_free(const struct shale_segment *view, uint64_t slab, uint32_t index);

/* The lane that parked the slab frees the block: no mark for a collect is left. -EALREADY. */
int sparse_free_own(const struct shale_segment *view, uint64_t slab, uint32_t index);

/* The holder publishes or unpublishes: 1 changed, 0 it was so. -EALREADY. */
int sparse_publish(const struct shale_segment *view, uint64_t slab, uint32_t index, bool publish);

/* The first live block at or after `from`, or UINT32_MAX. */
uint32_t sparse_next_live(const struct shale_segment *view, uint64_t slab, uint32_t from);

/* -- the lease of an arena ---------------------------------------------------------------------- */

/* False: somebody else has it. What the lane itself left unfinished is finished first. */
bool lease_take(struct lane *lane, uint64_t arena, enum lease_phase phase);
void lease_drop(struct shale_segment *view, uint64_t arena);
void lease_phase_set(struct lane *lane, uint64_t arena, enum lease_phase phase);

/* CAS of this very word to +HELD and back. The lease is the caller's, or a dead lane's. */
bool slab_hold(struct shale_segment *view, uint64_t slab, uint64_t word);
void slab_unhold(struct shale_segment *view, uint64_t slab);

/* -- converting (the slab is held by the caller) -------------------------------------------------- */

/* Fills the entries, switches the slab over. `facts` are what the dense ones said. */
void sparse_switch(struct shale_segment *view, uint64_t slab, const struct sparse_fact *facts);

/*
 * After the barrier: takes over what the dense facts have become since. `facts` as above; NULL: not
 * known (recovery).
 */
void sparse_transfer(struct shale_segment *view, uint64_t slab, const struct sparse_fact *facts);

/*
 * Reopens or adopts a SPARSE slab whose word was `word`: OWNED by the lane, with pages and dense facts.
 * -EAGAIN somebody else is at work in the arena, or the word has changed; -ENOMEM.
 */
int sparse_expand(struct lane *lane, uint64_t slab, uint64_t word);

/* -- a slab that changes hands ----------------------------------------------------------------- */

/*
 * What a slab needs before it is used: the pages that were punched, facts that are there and zero. The
 * caller has it CLAIMED or HELD, or OWNED with good facts. bin NULL: no facts (a span). -ENOMEM.
 */
int slab_make_whole(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);

/* The caller has the slab CLAIMED, nothing in it is live or named: its facts are zeroed, or gone. */
void slab_forget_facts(struct shale_segment *view, uint64_t slab);

/* Recovery: everything that the dead lane did under leases. 0 or -errno. */
int sparse_settle_lane(struct shale_segment *view, uint32_t lane);

#endif
