/*
 * slab.c - the slow path of an allocation: scan the lane's own slabs, adopt, or take a new one.
 *
 * When it begins, the lane has nothing of the bin cached, so a slab that is scanned to its end is
 * parked (parked.c): the lane comes back to it by its list, when there is a hint.
 *
 * Writes: slab words by CAS; own[] of slabs that the lane owns; the lane's private lists.
 * Invariant: SL1 `owned` is a memory aid: what it says is asked of the slab word before it is used; slabs
 *            may be missing from it, be in it twice, or belong to somebody else by now.
 * Progress:  lock-free; a CAS that fails means that somebody else took that slab.
 * Ordering:  slab.word (release when a slab changes hands, acquire when it is taken).
 * Death:     OWNED words of a dead lane are settled by recovery; a slab emptied and not yet FREE is
 *            swept there. Between adopting (CAS) and normalising nothing is handed out.
 */
#include "heap/slab.h"

#include <errno.h>
#include <stdlib.h>

#include "heap/arena.h"
#include "heap/facts.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/parked.h"
#include "heap/sparse.h"
#include "segment/recovery.h"

#define WALK_LIMIT 64u /* remembered slabs looked at before a new one is taken */

/* -- scanning ------------------------------------------------------------------------------ */

/* Blocks were freed in the current slab since its scan began. */
static bool scan_again(struct lane *lane, struct heap_bin *bin)
{
	struct heap_slab *slab = heap_slab(lane, bin->slab);

	if (!slab->freed)
		return false;
	slab->freed = 0;
	bin->scan_next = 0;
	bin->fresh = false;
	return true;
}

/* Scans on in the current slab until a free block is found; lets go of it when there is none. */
static bool scan_current(struct lane *lane, unsigned index)
{
	const struct shale_segment *view = lane->view;
	const struct bin_info *info = &bin_table[index];
	struct heap_bin *bin = heap_bin(lane, index);
	uint8_t *own;

	if (!bin->has_slab)
		return false;
	own = slab_own_facts(view, info, bin->slab);
	while (bin->scan_next < info->count || scan_again(lane, bin)) {
		uint32_t first = bin->scan_next;
		/* the LIFO is empty, or we would not be here: nothing is found a second time */
		uint64_t mask = facts_free_mask(own + first, info->count - first);

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
	slab_park(lane, index, bin->slab);
	return false;
}

/* Makes the slab the current one of its bin, after taking in what others freed in it. */
static bool scan_slab(struct lane *lane, unsigned index, uint64_t slab)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint8_t *hint = slab_local_hint(lane->view, slab);

	/* only this lane writes the hint; it is cleared before the scan that makes it true */
	store_relaxed(hint, (uint8_t)0);
	heap_slab(lane, slab)->freed = 0;
	(void)slab_collect(lane->view, slab, &bin_table[index]);
	bin->slab = slab;
	bin->scan_next = 0;
	bin->has_slab = true;
	bin->fresh = false;
	return scan_current(lane, index);
}

/* -- the list of slabs that we own or have parked ---------------------------------------------- */

/* Ours, OWNED or PARKED? A look. */
static bool slab_is_ours(const struct lane *lane, unsigned index, uint64_t slab)
{
	uint64_t low = load_relaxed(slab_word(lane->view, slab)) & SLAB_PAYLOAD_MASK;

	return low == slab_low(SLAB_OWNED, lane->index, index) ||
	       (low & ~(SLAB_HELD | SLAB_SPARSE)) == slab_low(SLAB_PARKED, lane->index, index);
}

static int compare_slabs(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Drops what is not ours any more, and what came back to us and is in the list twice. */
static void owned_tidy(struct lane *lane, unsigned index)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint32_t kept = 0;

	if (bin->owned_count > 1)
		qsort(bin->owned, bin->owned_count, sizeof(*bin->owned), compare_slabs);
	for (uint32_t i = 0; i < bin->owned_count; i++)
		if ((kept == 0 || bin->owned[kept - 1] != bin->owned[i]) &&
		    slab_is_ours(lane, index, bin->owned[i]))
			bin->owned[kept++] = bin->owned[i];
	bin->owned_count = kept;
}

void slab_remember(struct lane *lane, unsigned index, uint64_t slab)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint32_t room = bin->owned_room ? bin->owned_room * 2 : 8;
	uint64_t *grown;

	if (bin->owned_count == bin->owned_room)
		owned_tidy(lane, index);
	/* room is made before the list is full of what is ours, so that tidying pays */
	if (bin->owned_count >= bin->owned_room - bin->owned_room / 4) {
		grown = realloc(bin->owned, room * sizeof(*grown));
		if (grown) {
			bin->owned = grown;
			bin->owned_room = room;
		}
	}
	if (bin->owned_count < bin->owned_room)
		bin->owned[bin->owned_count++] = slab;
	/* else forgotten, not lost: the slab word still names us */
}

static void slab_forget(struct heap_bin *bin, uint32_t position)
{
	bin->owned[position] = bin->owned[--bin->owned_count];
}

static bool slab_has_hint(struct lane *lane, uint64_t slab)
{
	const struct shale_segment *view = lane->view;

	/* hints all of them: a lost one delays the reuse of a block */
	return heap_slab(lane, slab)->freed || load_relaxed(slab_local_hint(view, slab)) != 0 ||
	       load_relaxed(slab_remote_hint(view, slab)) != 0;
}

/* A remembered slab with a hint: true if a block was found in it. */
static bool walk_slab(struct lane *lane, unsigned index, uint32_t position)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint64_t slab = bin->owned[position];

	switch (slab_open(lane, index, slab)) {
	case SLAB_OPEN:
		return scan_slab(lane, index, slab);
	case SLAB_GONE:
		slab_forget(bin, position);
		break;
	case SLAB_BUSY:
		break;
	}
	return false;
}

/* Walks on through the remembered slabs of the bin, at most `limit` of them. */
static bool walk_owned(struct lane *lane, unsigned index, uint32_t limit)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint32_t steps = bin->owned_count < limit ? bin->owned_count : limit;

	while (steps-- > 0 && bin->owned_count > 0) {
		if (++bin->owned_cursor >= bin->owned_count)
			bin->owned_cursor = 0;
		if (slab_has_hint(lane, bin->owned[bin->owned_cursor]) &&
		    walk_slab(lane, index, bin->owned_cursor))
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

	/* a lane that was not set up has no caches */
	if (!base)
		return;
	for (struct heap_free_block *entry = base + 1; entry <= bin->top; entry++)
		if (entry->block < first || entry->block >= first + SLAB_SIZE)
			*++kept = *entry;
	bin->top = kept;
	if (bin->mask_block >= first && bin->mask_block < first + SLAB_SIZE)
		bin->mask = 0;
	if (bin->has_slab && bin->slab == slab)
		bin->has_slab = false;
}

/* Ours and open. */
static bool release_open(struct lane *lane, unsigned index, uint64_t slab, bool thorough)
{
	struct shale_segment *view = lane->view;
	struct heap_bin *bin = heap_bin(lane, index);
	uint64_t word;

	/* what a walk would have found by the hint that this clears, it finds by our own */
	if (thorough ? slab_collect_all(view, slab, &bin_table[index])
		     : slab_collect(view, slab, &bin_table[index]))
		store_relaxed(slab_local_hint(view, slab), (uint8_t)1);
	if (!slab_is_empty(view, slab, &bin_table[index]))
		return false;
	caches_without_slab(view, bin, slab);
	slab_normalise(view, slab, &bin_table[index]);
	/* nobody but the owner changes the word of an OWNED slab */
	word = load_relaxed(slab_word(view, slab));
	heap_slab_closes(lane, index, slab);
	store_relaxed(slab_local_hint(view, slab), (uint8_t)0); /* nothing to find */
	/* pairs: slab.word - the facts are zero before others may take the slab. */
	(void)cas_acq_rel(slab_word(view, slab), &word, slab_word_next(word, SLAB_FREE));
	arena_note_free(view, slab);
	return true;
}

/* Is a block of a parked slab not live? Its facts are where the bin says, or a wrong hint is set. */
static bool slab_has_room(const struct shale_segment *view, uint64_t slab,
			  const struct bin_info *bin)
{
	const uint8_t *own = slab_own_facts(view, bin, slab);
	const uint8_t *shared = own + bin->facts_half;
	uint32_t live = 0;

	for (uint32_t i = 0; i < bin->count; i += 8)
		live += (uint32_t)__builtin_popcountll(
			facts_live(facts_load(own + i), facts_load(shared + i)));
	return live < bin->count;
}

/* Gives the slab back if it is empty. True if it is not ours to remember (any more). */
static bool release_if_empty(struct lane *lane, unsigned index, uint64_t slab, bool thorough)
{
	uint64_t low = load_relaxed(slab_word(lane->view, slab)) & SLAB_PAYLOAD_MASK; /* a look */

	if (low == slab_low(SLAB_OWNED, lane->index, index))
		return release_open(lane, index, slab, thorough);
	/* a dead one was taken by its last freer, unless that was us and a hint tells */
	if (!thorough && slab_has_hint(lane, slab))
		slab_look_again(lane, slab);
	if (!slab_is_ours(lane, index, slab))
		return true;
	if (thorough && ((low & SLAB_SPARSE) || slab_has_room(lane->view, slab, &bin_table[index])))
		/* a walk finds it by this hint, and collects */
		store_relaxed(slab_remote_hint(lane->view, slab), (uint8_t)1);
	return false;
}

/* Nothing of the slab is cached any more; it is found again by its hint. */
static void close_slab(struct lane *lane, unsigned index, uint64_t slab)
{
	struct shale_segment *view = lane->view;
	uint64_t low = load_relaxed(slab_word(view, slab)) & SLAB_PAYLOAD_MASK; /* ours, or not */

	if (low != slab_low(SLAB_OWNED, lane->index, index))
		return;
	caches_without_slab(view, heap_bin(lane, index), slab);
	if (slab_has_room(view, slab, &bin_table[index]))
		store_relaxed(slab_local_hint(view, slab), (uint8_t)1); /* a hint of our own */
	slab_park(lane, index, slab);
}

void slab_close_all(struct lane *lane)
{
	for (unsigned index = 0; index < BIN_COUNT; index++) {
		struct heap_bin *bin = heap_bin(lane, index);

		for (uint32_t i = 0; i < bin->owned_count; i++)
			close_slab(lane, index, bin->owned[i]);
	}
}

/* -- orphans --------------------------------------------------------------------------------- */

void slab_orphans_changed(struct shale_segment *view)
{
	/* a hint: who misses it takes a new slab instead */
	(void)fetch_add_relaxed(&view_hints(view)->orphan_hint, 1u);
}

static bool adopt(struct lane *lane, unsigned index, uint64_t slab, uint64_t word)
{
	uint64_t owned = slab_word_next(word, slab_low(SLAB_OWNED, lane->index, index));

	if (word & SLAB_HELD)
		return false;
	if (word & SLAB_SPARSE)
		return sparse_expand(lane, slab, word) == 0;
	/* pairs: slab.word - the last owner's facts, swept by recovery, are visible to us. */
	return cas_acq_rel(slab_word(lane->view, slab), &word, owned);
}

static bool take_orphan(struct lane *lane, unsigned index, uint64_t slab, uint64_t word)
{
	struct shale_segment *view = lane->view;

	if (!adopt(lane, index, slab, word))
		return false;
	slab_normalise(view, slab, &bin_table[index]);
	heap_slab_opened(lane, index, slab);
	slab_remember(lane, index, slab);
	if (slab_recommit(view, slab) == 0)
		return true;
	slab_park(lane, index, slab);
	return false;
}

void slab_release_empty(struct lane *lane, bool thorough)
{
	if (thorough)
		(void)span_steal_cached(lane, true);
	slab_take_dead(lane, thorough);
	for (unsigned index = 0; index < BIN_COUNT; index++) {
		struct heap_bin *bin = heap_bin(lane, index);

		for (uint32_t i = bin->owned_count; i-- > 0;)
			if (release_if_empty(lane, index, bin->owned[i], thorough))
				slab_forget(bin, i);
	}
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
	bool fresh;
	int r = arena_take_slab(lane, &bin_table[index], commit, &slab);

	if (r < 0) {
		*ret_error = r;
		return false;
	}
	fresh = heap_lane(lane)->taken_fresh;
	heap_slab_opened(lane, index, slab);
	slab_remember(lane, index, slab);
	giveback_tick(lane);
	if (!scan_slab(lane, index, slab))
		return false;
	/* until it is scanned again, what the mask has was never handed out */
	heap_bin(lane, index)->fresh = fresh;
	return true;
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
	(void)span_steal_cached(lane, false);
	slab_release_empty(lane, false);
	if (walk_owned(lane, index, UINT32_MAX) || take_new(lane, index, true, ret_error))
		return true;
	if (*ret_error == -ENOMEM && giveback_settle(lane->view) &&
	    take_new(lane, index, true, ret_error))
		return true;
	return *ret_error == -ENOMEM && take_hidden(lane, index, ret_error);
}

/* The current slab has no more. */
static bool take_other(struct lane *lane, unsigned index, int *ret_error)
{
	(void)memory_look(lane);
	return walk_owned(lane, index, WALK_LIMIT) || adopt_any(lane, index) ||
	       take_new(lane, index, false, ret_error) || take_last_resort(lane, index, ret_error);
}

unsigned char *slab_alloc_slow(struct lane *lane, unsigned index, int *ret_error)
{
	struct heap_bin *bin = heap_bin(lane, index);
	uint64_t left = heap_lane(lane)->left_slab;
	unsigned first;

	if (unlikely(left != 0)) {
		heap_lane(lane)->left_slab = 0;
		slab_look_again(lane, left - 1);
	}
	if (!scan_current(lane, index) && !take_other(lane, index, ret_error))
		return NULL;
	first = lowest_bit(bin->mask);
	bin->mask &= bin->mask - 1;
	store_relaxed(bin->mask_own + first, (uint8_t)OWN_ALLOCATED); /* ours: heap.c */
	return bin->mask_block + (uint64_t)first * bin_table[index].size;
}
