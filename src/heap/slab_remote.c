/*
 * slab_remote.c - blocks freed outside the fast path, and how the owner takes back what others freed.
 *
 *   freer (holds block i)                     owner
 *   freeing = i                               hint = exchange(remote_hint, 0)
 *   old = exchange(shared[i], FREED)          if shared[i] == FREED (acquire) and i is not named:
 *   has the word changed? look again                  own[i] = 0
 *   freeing = 0                                       shared[i] = 0
 *   remote_hint = 1; the look of parked.c             ... only now may i be handed out
 *
 * pairs: slab.shared - the freer's last accesses to the block end before the owner reuses it.
 * pairs: slab.moved - facts move when the word changes: the exchange comes before the second look at the
 * word, and whoever moves them changes the word, then looks at the facts. So either the freer sees
 * another word, or its free is moved along. A free that has gone astray is done again where the facts are
 * now, if the block lives there: nobody can have reused it, because it is named.
 *
 * The owner of a parked slab clears own[i] by a plain store, without a locked instruction: who moves the
 * facts of a slab that another lane has parked makes every processor pass a barrier in between.
 *
 * The hint may be lost without harm: before memory runs out and in a trim the owner collects its
 * slabs whatever their hints say. A block that some lane names is left alone, so that recovery of that
 * lane can still tell from the facts whether the free has happened (rule N of docs/design/heap.md).
 *
 * Progress: the free is lock-free: it looks again only when somebody else has changed the slab's word. A
 *           collect is bounded by the blocks of a slab and the lanes.
 * Ordering: slab.shared, slab.moved, lane.freeing.
 * Death:    before the change of the fact the block lives and is named: recovery frees it. After it, the
 *           name goes. A collect cut off between its two stores leaves own == 0 and shared == FREED:
 *           free, and cleared by whoever owns the slab next (slab_normalise).
 */
#include "heap/block.h"

#include <errno.h>

#include "heap/facts.h"
#include "heap/giveback.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/memory_wait.h"
#include "heap/names.h"
#include "heap/parked.h"
#include "heap/slab.h"

#define FREES_PER_TICK 16u
#define FREE_TRIES     4096u /* a word that changes more often during one free is played with */

/* -- a free ------------------------------------------------------------------------------------ */

static bool word_stays(const struct shale_segment *view, const struct block_place *place)
{
	/* pairs: slab.moved - after the fact. */
	return load_seq_cst(slab_word(view, place->slab)) == place->word;
}

/* The facts of a dense slab that the calling lane has parked: own[] is its own to clear. */
static bool parked_by(const struct lane *lane, const struct block_place *place)
{
	return lane && slab_word_state(place->word) == SLAB_PARKED &&
	       slab_word_lane(place->word) == lane->index && !(place->word & SLAB_SPARSE);
}

/* The block was live when its facts were looked at, or SHARED_FREED. */
static uint8_t clear_own(const struct block_place *place)
{
	/* pairs: slab.shared - somebody else may have freed it. */
	uint8_t others = load_acquire(place->shared);

	if (others == SHARED_FREED)
		return others;
	if (others != SHARED_NONE) {
		/* an old "published" must not pass to the next holder; we hold the block now */
		store_relaxed(place->shared, (uint8_t)SHARED_NONE);
		order_for_death();
	}
	/* pairs: slab.shared - our accesses to the block are over; the name is seen before. */
	store_release(place->own, (uint8_t)OWN_FREE);
	/* and the word after it, as far as the compiler is concerned */
	order_for_death();
	return others;
}

/* One attempt: 0, -EALREADY, -EAGAIN the facts have moved. */
static int free_try(struct shale_segment *view, struct lane *lane, const struct block_place *place,
		    bool *freed)
{
	uint8_t others;

	/* relaxed: what it says counts only if the word has not changed */
	if (load_relaxed(place->own) == OWN_FREE)
		return word_stays(view, place) ? -EALREADY : -EAGAIN;
	others = parked_by(lane, place) ? clear_own(place) : block_set_shared(place, SHARED_FREED);
	if (others == SHARED_MOVED)
		return -EAGAIN;
	if (others == SHARED_FREED)
		return word_stays(view, place) ? -EALREADY : -EAGAIN;
	*freed = true;
	return word_stays(view, place) ? 0 : -EAGAIN;
}

/* Until the facts stand still. The block is named; freed: an attempt that went astray freed it. */
static int free_until_settled(struct shale_segment *view, struct lane *lane, uint64_t offset,
			      struct block_place *place, bool freed)
{
	int r = -EAGAIN;

	if (place->bin)
		r = free_try(view, lane, place, &freed);
	for (unsigned tries = 0; r == -EAGAIN && tries < FREE_TRIES; tries++) {
		r = block_find(view, offset, place);
		if (r == 0)
			r = place->bin ? free_try(view, lane, place, &freed) : -EALREADY;
	}
	if (r == -EAGAIN)
		return freed ? 0 : view_damaged(view);
	return freed ? 0 : r;
}

/* What others may want to know, and the slab if it was the last block. */
static void free_tell(struct shale_segment *view, struct lane *lane, uint32_t index,
		      const struct block_place *place)
{
	uint8_t *hint = parked_by(lane, place) ? slab_local_hint(view, place->slab)
					       : slab_remote_hint(view, place->slab);
	enum slab_state state = slab_word_state(place->word);

	/* a hint; a collect in between may have cleared it */
	if (load_relaxed(hint) == 0) {
		store_relaxed(hint, (uint8_t)1);
		memory_freed(view); /* the owner may wait for this one */
	}
	if (state != SLAB_PARKED && state != SLAB_ORPHAN)
		return;
	/* what it leaves may be worth purging */
	if (lane && ++heap_lane(lane)->frees % FREES_PER_TICK == 0)
		giveback_tick(lane);
	if (slab_look(view, index, place->slab, place->word) != SLAB_NAMED)
		return;
	if (lane)
		slab_look_later(lane, place->slab);
	else
		slab_orphans_changed(view);
}

static void look_at_left(struct lane *lane)
{
	uint64_t left = heap_lane(lane)->left_slab;

	if (left == 0)
		return;
	heap_lane(lane)->left_slab = 0;
	slab_look_again(lane, left - 1);
}

/*
 * The block is not the caller's to free, so it is not named: if the caller died with the name of a block
 * that has been handed out again meanwhile, recovery would free it.
 */
static bool is_free_already(const struct shale_segment *view, const struct block_place *place)
{
	/* relaxed: looked at only; what they say counts if the word has not changed */
	return (load_relaxed(place->own) == OWN_FREE ||
		load_relaxed(place->shared) == SHARED_FREED) &&
	       word_stays(view, place);
}

int block_free_named(struct shale_segment *view, struct lane *lane, uint32_t index,
		     struct block_place *place)
{
	uint64_t offset =
		slab_offset(view, place->slab) + (uint64_t)place->index * place->bin->size;
	struct lane_shm *shm = view_lane(view, index);
	int r;

	if (lane)
		look_at_left(lane);
	if (is_free_already(view, place))
		return -EALREADY;
	/* pairs: lane.freeing - named before the fact changes, which releases it. */
	store_release(&shm->freeing, offset);
	r = free_until_settled(view, lane, offset, place, false);
	/* pairs: lane.freeing - dropped before the look. */
	store_release(&shm->freeing, UINT64_C(0));
	if (r == 0)
		free_tell(view, lane, index, place);
	return r;
}

SHALE_COLD int block_free_astray(struct shale_segment *view, struct lane *lane, uint8_t before)
{
	uint64_t offset = load_relaxed(&lane->shm->freeing); /* our own */
	struct block_place place = {0};
	int r = free_until_settled(view, lane, offset, &place, before != SHARED_FREED);

	/* pairs: lane.freeing - dropped before the look. */
	store_release(&lane->shm->freeing, UINT64_C(0));
	if (r == 0 && place.bin)
		free_tell(view, lane, lane->index, &place);
	return r;
}

/* -- a collect --------------------------------------------------------------------------------- */

/* The names are read after the facts: a free that comes later is not looked at in this round. */
static bool collect_freed(struct shale_segment *view, uint64_t slab, const struct bin_info *bin,
			  const uint64_t *freed)
{
	uint8_t *own = slab_own_facts(view, bin, slab);
	uint8_t *shared = own + bin->facts_half;
	uint64_t first = slab_offset(view, slab);
	uint64_t names[NAMES_MAX];
	uint32_t count;
	bool whole = names_gather(view, first, first + SLAB_SIZE, names, &count);
	bool any = false;

	for (uint32_t i = 0; i < bin->count; i++) {
		if (freed[i / 64] == 0)
			i |= 63;
		if (!(freed[i / 64] >> (i % 64) & 1))
			continue;
		if (!whole || names_has(names, count, first + (uint64_t)i * bin->size)) {
			/*
			 * Come back: its free is not settled yet. Who waits for memory leaves the
			 * hint to the freer, who sets it when the name is gone, and wakes.
			 */
			if (!memory_wanted(view))
				store_relaxed(slab_remote_hint(view, slab), (uint8_t)1);
			continue;
		}
		store_relaxed(own + i, (uint8_t)OWN_FREE); /* the owner's fact first */
		order_for_death();
		store_relaxed(shared + i, (uint8_t)SHARED_NONE); /* nobody holds it now */
		any = true;
	}
	return any;
}

bool slab_collect_all(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	uint8_t *shared = slab_own_facts(view, bin, slab) + bin->facts_half;
	uint64_t freed[LONG_FACTS_BLOCKS / 64] = {0};

	/* the exchange keeps a freer's later store from being overwritten */
	(void)exchange_acq_rel(slab_remote_hint(view, slab), (uint8_t)0);
	return facts_freed(shared, bin->count, freed) && collect_freed(view, slab, bin, freed);
}

bool slab_collect(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	/* a hint: slab_collect_all() finds what a lost one hides */
	return load_relaxed(slab_remote_hint(view, slab)) != 0 && slab_collect_all(view, slab, bin);
}
