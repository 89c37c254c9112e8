/*
 * slab.c - the slow path of an allocation: scan the lane's own slabs, adopt, or take a new one.
 *
 * Writes: slab words by CAS; own[] of slabs that the lane owns; the lane's private lists.
 * Invariant: SL1 a slab in `owned` has a word OWNED by this lane (others may be missing from it: the
 *            list is a memory aid, the words are the truth).
 * Progress:  lock-free; a CAS that fails means that somebody else took that slab.
 * Ordering:  slab.word (release when a slab changes hands, acquire when it is taken).
 * Death:     OWNED words of a dead lane are settled by recovery; a slab emptied and not yet FREE is
 *            swept there. Between adopting (CAS) and normalising nothing is handed out.
 */
#include "heap/slab.h"

#include <errno.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "heap/arena.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "segment/recovery.h"

#define WALK_LIMIT 64u /* owned slabs looked at before a new one is taken */

/* -- scanning ------------------------------------------------------------------------------ */

/*
 * Bit i: own[i] == 0, for the 64 facts at own, which is a multiple of 64. They are the owner's alone,
 * and who calls is the owner: a wide load sees what one of each byte would.
 */
static uint64_t free_mask(const uint8_t *own)
{
	uint64_t mask = 0;

#ifdef __SSE2__
	for (unsigned i = 0; i < 4; i++) {
		__m128i facts = _mm_load_si128((const __m128i *)(const void *)own + i);
		int zero = _mm_movemask_epi8(_mm_cmpeq_epi8(facts, _mm_setzero_si128()));

		mask |= (uint64_t)(unsigned)zero << (16 * i);
	}
#else
	for (unsigned i = 0; i < 64; i++)
		mask |= (uint64_t)(load_relaxed(own + i) == OWN_FREE) << i; /* ours */
#endif
	return mask;
}

/* A fact that is no block's reads as free: `count` of the 64 are. */
static uint64_t mask_of(const uint8_t *own, uint32_t count)
{
	uint64_t mask = free_mask(own);

	return count < 64 ? mask & ((UINT64_C(1) << count) - 1) : mask;
}

/* Scans on in the current slab until a free block is found. */
static bool scan_current(struct lane *lane, unsigned index)
{
	const struct shale_segment *view = lane->view;
	const struct bin_info *info = &bin_table[index];
	struct heap_bin *bin = heap_bin(lane, index);
	uint8_t *own;

	if (!bin->has_slab)
		return false;
	own = slab_own_facts(view, info, bin->slab);
	while (bin->scan_next < info->count) {
		uint32_t first = bin->scan_next;
		/* the LIFO is empty, or we would not be here: nothing is found a second time */
		uint64_t mask = mask_of(own + first, info->count - first);

		bin->scan_next += 64;
		if (mask == 0)
			continue;
		bin->mask = mask;
		bin->mask_own = own + first;
		bin->mask_block = (unsigned char *)view_at(view, slab_offset(view, bin->slab)) +
				  (uint64_t)first * info->size;
		return true;
	}
	bin->has_slab = false;
	return false;
}

/* Makes the slab the current one of its bin, after taking in what others freed in it. */
static bool scan_slab(struct lane *lane, unsigned index, uint64_t slab)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint8_t *hint = slab_local_hint(lane->view, slab);

	/* only this lane writes the hint; it is cleared before the scan that makes it true */
	store_relaxed(hint, (uint8_t)0);
	(void)slab_collect(lane->view, slab, &bin_table[index]);
	bin->slab = slab;
	bin->scan_next = 0;
	bin->has_slab = true;
	return scan_current(lane, index);
}

/* -- the list of owned slabs ------------------------------------------------------------------ */

void slab_remember(struct lane *lane, unsigned index, uint64_t slab)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint32_t room = bin->owned_room ? bin->owned_room * 2 : 8;
	uint64_t *grown;

	if (bin->owned_count == bin->owned_room) {
		grown = realloc(bin->owned, room * sizeof(*grown));
		if (!grown)
			return; /* forgotten, not lost: the slab word still names us */
		bin->owned = grown;
		bin->owned_room = room;
	}
	bin->owned[bin->owned_count++] = slab;
}

static void slab_forget(struct heap_bin *bin, uint32_t position)
{
	bin->owned[position] = bin->owned[--bin->owned_count];
}

static bool slab_has_hint(const struct shale_segment *view, uint64_t slab)
{
	/* both are hints: a lost one delays the reuse of a block */
	return load_relaxed(slab_local_hint(view, slab)) != 0 ||
	       load_relaxed(slab_remote_hint(view, slab)) != 0;
}

/* Walks on through the owned slabs of the bin, at most `limit` of them. */
static bool walk_owned(struct lane *lane, unsigned index, uint32_t limit)
{
	struct heap_bin *bin = heap_bin(lane, index);

	for (uint32_t n = 0; n < bin->owned_count && n < limit; n++) {
		if (++bin->owned_cursor >= bin->owned_count)
			bin->owned_cursor = 0;
		if (slab_has_hint(lane->view, bin->owned[bin->owned_cursor]) &&
		    scan_slab(lane, index, bin->owned[bin->owned_cursor]))
			return true;
	}
	return false;
}

/* -- emptied slabs --------------------------------------------------------------------------- */

bool slab_is_empty(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	const uint8_t *own = slab_own_facts(view, bin, slab);

	for (uint32_t i = 0; i < bin->count; i++)
		if (load_relaxed(own + i) != OWN_FREE) /* we own the slab, or it is a check */
			return false;
	return true;
}

/* Clears what a cut-off collect may have left: shared[i] of free blocks (H3). */
void slab_normalise(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	uint8_t *own = slab_own_facts(view, bin, slab);
	uint8_t *shared = own + bin->facts_half;

	for (uint32_t i = 0; i < bin->count; i++)
		if (load_relaxed(own + i) == OWN_FREE && load_relaxed(shared + i) != SHARED_NONE)
			store_relaxed(shared + i, (uint8_t)SHARED_NONE); /* nobody holds it */
}

/* Blocks of a slab that goes must not be handed out from the caches. */
static void caches_without_slab(const struct shale_segment *view, struct heap_bin *bin,
				uint64_t slab)
{
	unsigned char *first = view_at(view, slab_offset(view, slab));
	struct heap_free_block *base = heap_lifo_base(bin), *kept = base;

	for (struct heap_free_block *entry = base + 1; base && entry <= bin->top; entry++)
		if (entry->block < first || entry->block >= first + SLAB_SIZE)
			*++kept = *entry;
	bin->top = kept;
	if (bin->mask_block >= first && bin->mask_block < first + SLAB_SIZE)
		bin->mask = 0;
	if (bin->has_slab && bin->slab == slab)
		bin->has_slab = false;
}

static bool release_if_empty(struct lane *lane, unsigned index, uint32_t position, bool thorough)
{
	struct shale_segment *view = lane->view;
	struct heap_bin *bin = heap_bin(lane, index);
	uint64_t slab = bin->owned[position];
	uint64_t word;

	/* the list is a memory aid: no slab goes that is not ours */
	if ((load_relaxed(slab_word(view, slab)) & SLAB_OWNER_MASK) != heap_lane(lane)->own_word)
		return false;
	/* what a walk would have found by the hint that this clears, it finds by our own */
	if (thorough ? slab_collect_all(view, slab, &bin_table[index])
		     : slab_collect(view, slab, &bin_table[index]))
		store_relaxed(slab_local_hint(view, slab), (uint8_t)1);
	if (!slab_is_empty(view, slab, &bin_table[index]))
		return false;
	caches_without_slab(view, bin, slab);
	slab_normalise(view, slab, &bin_table[index]);
	store_relaxed(slab_publish_hint(view, slab), (uint8_t)0); /* no block is held: ours */
	/* nobody but the owner changes the word of an OWNED slab */
	word = load_relaxed(slab_word(view, slab));
	slab_forget(bin, position);
	heap_slab_gone(lane, slab);
	/* pairs: slab.word - the facts are zero before others may take the slab. */
	(void)cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, SLAB_FREE));
	arena_note_free(view, slab);
	return true;
}

void slab_release_one(struct lane *lane, unsigned index, uint64_t slab)
{
	const struct heap_bin *bin = heap_bin(lane, index);

	for (uint32_t i = bin->owned_count; i-- > 0;)
		if (bin->owned[i] == slab) {
			(void)release_if_empty(lane, index, i, true);
			return;
		}
}

/* -- orphans --------------------------------------------------------------------------------- */

void slab_orphans_changed(struct shale_segment *view)
{
	/* a hint: who misses it takes a new slab instead */
	(void)fetch_add_relaxed(&view_hints(view)->orphan_hint, 1u);
}

static bool take_orphan(struct lane *lane, unsigned index, uint64_t slab, uint64_t word)
{
	struct shale_segment *view = lane->view;
	uint64_t owned = slab_word_next(word, slab_low(SLAB_OWNED, lane->index, index));

	/* pairs: slab.word - the last owner's facts, swept by recovery, are visible to us. */
	if (!cas_acq_rel(slab_word(view, slab), &word, owned))
		return false;
	slab_normalise(view, slab, &bin_table[index]);
	heap_slab_mine(lane, slab, index);
	slab_remember(lane, index, slab);
	return true;
}

/* Does nothing live in the orphan? A look: blocks of it may be freed, but none comes to life. */
static bool orphan_looks_dead(struct shale_segment *view, uint64_t slab, uint64_t word)
{
	const struct bin_info *bin = &bin_table[slab_word_bin(word)];
	const uint8_t *own;

	if (bin->size == 0)
		return false;
	own = slab_own_facts(view, bin, slab);
	for (uint32_t i = 0; i < bin->count; i++)
		/* relaxed: whoever adopts the slab looks again */
		if (load_relaxed(own + i) != OWN_FREE &&
		    load_relaxed(own + bin->facts_half + i) != SHARED_FREED)
			return false;
	return true;
}

/* An orphan is adopted by who allocates in its bin, which may be nobody: the empty ones go. */
static void adopt_dead_orphans(struct lane *lane, bool thorough)
{
	struct shale_segment *view = lane->view;
	uint32_t hint = load_relaxed(&view_hints(view)->orphan_hint); /* a hint */
	uint64_t slabs = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;

	if (!thorough && hint == heap_lane(lane)->orphans_swept)
		return;
	for (uint64_t slab = 0; slab < slabs; slab++) {
		/* pairs: slab.word - the facts that its last owner left. */
		uint64_t word = load_acquire(slab_word(view, slab));
		unsigned index = slab_word_bin(word);

		if (slab_word_state(word) == SLAB_ORPHAN && orphan_looks_dead(view, slab, word) &&
		    take_orphan(lane, index, slab, word))
			/* found by a walk if a name keeps it from being released */
			store_relaxed(slab_local_hint(view, slab), (uint8_t)1);
	}
	heap_lane(lane)->orphans_swept = hint;
}

void slab_release_empty(struct lane *lane, bool thorough)
{
	adopt_dead_orphans(lane, thorough);
	for (unsigned index = 0; index < BIN_COUNT; index++)
		for (uint32_t i = heap_bin(lane, index)->owned_count; i-- > 0;)
			(void)release_if_empty(lane, index, i, thorough);
}

/* Looks for an orphan of the bin, unless none has appeared since the last look in vain. */
static bool adopt_any(struct lane *lane, unsigned index)
{
	struct shale_segment *view = lane->view;
	struct heap_bin *bin = heap_bin(lane, index);
	uint32_t hint = load_relaxed(&view_hints(view)->orphan_hint); /* a hint */
	uint64_t slabs = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;

	if (hint == bin->orphans_seen)
		return false;
	for (uint64_t slab = 0; slab < slabs; slab++) {
		uint64_t word = load_relaxed(slab_word(view, slab)); /* the CAS decides */

		if (slab_word_state(word) == SLAB_ORPHAN && slab_word_bin(word) == index &&
		    take_orphan(lane, index, slab, word) && scan_slab(lane, index, slab))
			return true;
	}
	bin->orphans_seen = hint;
	return false;
}

/* -- taking ---------------------------------------------------------------------------------- */

static bool take_new(struct lane *lane, unsigned index, bool commit, int *ret_error)
{
	uint64_t slab;
	int r = arena_take_slab(lane, &bin_table[index], commit, &slab);

	if (r < 0) {
		*ret_error = r;
		return false;
	}
	heap_slab_mine(lane, slab, index);
	slab_remember(lane, index, slab);
	return scan_slab(lane, index, slab);
}

/* The kernel has no more: what lost hints hide, and what the dead hold. */
static bool take_hidden(struct lane *lane, unsigned index, int *ret_error)
{
	slab_release_empty(lane, true);
	if (walk_owned(lane, index, UINT32_MAX) || take_new(lane, index, true, ret_error))
		return true;
	if (recovery_run(lane->view) > 0 &&
	    (adopt_any(lane, index) || take_new(lane, index, true, ret_error)))
		return true;
	/* a free slab may lack only its facts: empty arenas but one make room for them */
	return giveback_empty(lane, 1) > 0 && take_new(lane, index, true, ret_error);
}

/* No slab is free in the committed arenas: look harder before asking the kernel. */
static bool take_last_resort(struct lane *lane, unsigned index, int *ret_error)
{
	slab_release_empty(lane, false);
	if (walk_owned(lane, index, UINT32_MAX) || take_new(lane, index, true, ret_error))
		return true;
	return *ret_error == -ENOMEM && take_hidden(lane, index, ret_error);
}

/* The current slab has no more. */
static bool take_other(struct lane *lane, unsigned index, int *ret_error)
{
	memory_look(lane);
	return walk_owned(lane, index, WALK_LIMIT) || adopt_any(lane, index) ||
	       take_new(lane, index, false, ret_error) || take_last_resort(lane, index, ret_error);
}

unsigned char *slab_alloc_slow(struct lane *lane, unsigned index, int *ret_error)
{
	struct heap_bin *bin = heap_bin(lane, index);
	unsigned first;

	if (!scan_current(lane, index) && !take_other(lane, index, ret_error))
		return NULL;
	first = lowest_bit(bin->mask);
	bin->mask &= bin->mask - 1;
	store_relaxed(bin->mask_own + first, (uint8_t)OWN_ALLOCATED); /* ours: heap.c */
	return bin->mask_block + (uint64_t)first * bin_table[index].size;
}
