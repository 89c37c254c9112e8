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

/* A fact as one integer, in the machine's own order of bytes. */
union sparse_slot {
	struct sparse_fact fact;
	uint32_t word;
};

typedef uint32_t __attribute__((may_alias)) sparse_word;

static inline struct sparse_fact *sparse_entry(const struct shale_segment *view, uint64_t slab,
					       unsigned k)
{
	return &slab_arena(view, slab)->sparse[slab % SLABS_PER_ARENA][k];
}

static inline struct sparse_fact sparse_load(const struct sparse_fact *entry)
{
	const sparse_word *word = (const void *)entry;

	/* pairs: slab.shared - as a dense fact. pairs: sparse.switch - after the slab's word changed. */
	return (union sparse_slot){.word = load_seq_cst(word)}.fact;
}

static inline bool sparse_cas(struct sparse_fact *entry, struct sparse_fact from,
			      struct sparse_fact to)
{
	uint32_t expected = (union sparse_slot){.fact = from}.word;
	sparse_word *word = (void *)entry;

	/* pairs: slab.moved - then the slab's word is loaded again. */
	return cas_seq_cst(word, &expected, (union sparse_slot){.fact = to}.word);
}

static inline bool sparse_fact_live(struct sparse_fact fact)
{
	return fact.own != OWN_FREE && fact.shared != SHARED_FREED;
}

/* The entry of this block, or NULL: it is free. */
struct sparse_fact *sparse_find(const struct shale_segment *view, uint64_t slab, uint32_t index);

/* Does a block of the slab live? */
bool sparse_any_live(const struct shale_segment *view, uint64_t slab);

/* -- the lease of an arena ---------------------------------------------------------------------- */

/* False: somebody else has it. What the lane itself left unfinished is finished first. */
bool lease_take(struct lane *lane, uint64_t arena, enum lease_phase phase);
void lease_drop(struct shale_segment *view, uint64_t arena);
void lease_phase_set(struct lane *lane, uint64_t arena, enum lease_phase phase);

/* CAS of this very word to +HELD and back. The lease is the caller's, or a dead lane's. */
bool slab_hold(struct shale_segment *view, uint64_t slab, uint64_t word);

/* ... and takes the slab for `lane` if its last block was freed meanwhile. */
void slab_unhold(struct shale_segment *view, uint32_t lane, uint64_t slab);

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

/*
 * The caller has the slab CLAIMED, it was of this bin, nothing in it is live or named: its facts are
 * zeroed, unless they are gone.
 */
void slab_forget_facts(struct shale_segment *view, uint64_t slab, const struct bin_info *bin);

/* Recovery: everything that the dead lane did under leases. 0 or -errno. */
int sparse_settle_lane(struct shale_segment *view, uint32_t lane);

#endif
