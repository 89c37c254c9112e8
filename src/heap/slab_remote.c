/*
 * slab_remote.c - blocks freed by someone who does not own their slab, and how the owner takes them
 * back.
 *
 *   freer (holds block i)                     owner
 *   remote_hint = 1                           hint = exchange(remote_hint, 0)
 *   shared[i] = FREED          (release)      if shared[i] == FREED (acquire) and i is not named:
 *   remote_hint = 1                                   own[i] = 0
 *                                                     shared[i] = 0
 *                                                     ... only now may i be handed out
 *
 * pairs: slab.shared - the freer's last accesses to the block end before the owner reuses it.
 *
 * The hint may be lost without harm: before memory runs out and in a trim the owner collects its
 * slabs whatever their hints say. A block
 * that some lane's intent or retired list names is left alone, so that recovery of that lane can
 * still tell from the facts whether the free has happened (rule N of docs/design/death.md).
 *
 * Progress: the free is wait-free; a collect is bounded by the blocks of a slab and the lanes.
 * Death:    the free is one store. A collect cut off between its two stores leaves own == 0 and
 *           shared == FREED: free, and cleared by whoever owns the slab next (slab_normalise).
 */
#include "heap/block.h"

#include <errno.h>

#include "heap/heap.h"
#include "heap/memory_wait.h"
#include "heap/slab.h"

/* Since its owner's last look nobody else had freed a block there: the owner may wait for this one. */
static SHALE_COLD void block_freed_first(struct shale_segment *view, uint8_t *hint)
{
	store_relaxed(hint, (uint8_t)1);
	memory_freed(view);
}

int block_free_remote(struct shale_segment *view, const struct block_place *place)
{
	uint8_t *hint = slab_remote_hint(view, place->slab);
	bool first;

	/* we hold the block: nobody else moves its facts, unless this is a double free */
	if (load_relaxed(place->own) == OWN_FREE || load_relaxed(place->shared) == SHARED_FREED)
		return -EALREADY;
	first = load_relaxed(hint) == 0; /* a hint */
	/* set before as well: an owner that frees the block again is to look at shared[] */
	if (first)
		store_relaxed(hint, (uint8_t)1);
	/* pairs: slab.shared - our accesses to the block are over. */
	store_release(place->shared, (uint8_t)SHARED_FREED);
	/* a hint; a collect in between may have cleared it */
	if (first || load_relaxed(hint) == 0)
		block_freed_first(view, hint);
	if (slab_word_state(place->word) == SLAB_ORPHAN)
		slab_orphans_changed(view);
	return 0;
}

static bool names_in_range(uint64_t name, uint64_t first, uint64_t end)
{
	return name >= first && name < end;
}

/*
 * Calls back for every block in [first, end) that some lane names. The names are read after the
 * fact that made the caller ask, and a name outlives the free that it is about.
 */
static bool lane_names(const struct lane_shm *lane, uint64_t first, uint64_t end,
		       uint64_t *ret_names, uint32_t *count, uint32_t room)
{
	uint64_t names[2 + LANE_RETIRED];
	uint32_t n = 0;

	for (unsigned i = 0; i < 2; i++)
		/* pairs: lane.intent - named before the free that we have seen. */
		names[n++] = load_acquire(&lane->intent.block[i]);
	for (unsigned i = 0; i < LANE_RETIRED; i++)
		/* pairs: lane.retired - named before the free that we have seen. */
		names[n++] = load_acquire(&lane->retired[i]);
	for (uint32_t i = 0; i < n; i++) {
		if (!names_in_range(names[i], first, end))
			continue;
		if (*count == room)
			return false;
		ret_names[(*count)++] = names[i];
	}
	return true;
}

#define NAMES_MAX 64u

/* Every name in the range, or false if there are more than fit: then nothing may be collected. */
static bool names_gather(const struct shale_segment *view, uint64_t first, uint64_t end,
			 uint64_t *ret_names, uint32_t *ret_count)
{
	uint32_t high = view_lane_high(view);

	*ret_count = 0;
	for (uint32_t lane = 1; lane < high; lane++)
		if (!lane_names(view_lane(view, lane), first, end, ret_names, ret_count, NAMES_MAX))
			return false;
	return true;
}

bool heap_block_named(struct shale_segment *view, uint64_t offset)
{
	uint64_t names[NAMES_MAX];
	uint32_t count;

	return !names_gather(view, offset, offset + 1, names, &count) || count != 0;
}

static bool is_named(const uint64_t *names, uint32_t count, uint64_t offset)
{
	for (uint32_t i = 0; i < count; i++)
		if (names[i] == offset)
			return true;
	return false;
}

/* Which blocks of the slab others have freed, one bit each. */
static bool freed_gather(const struct bin_info *bin, const uint8_t *shared, uint64_t *ret_freed)
{
	bool any = false;

	for (uint32_t i = 0; i < bin->count; i++) {
		/* pairs: slab.shared - the freer's accesses are over. */
		if (load_acquire(shared + i) != SHARED_FREED)
			continue;
		ret_freed[i / 64] |= UINT64_C(1) << (i % 64);
		any = true;
	}
	return any;
}

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
		if (!(freed[i / 64] >> (i % 64) & 1))
			continue;
		if (!whole || is_named(names, count, first + (uint64_t)i * bin->size)) {
			/* come back: its free is not settled yet */
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
	return freed_gather(bin, shared, freed) && collect_freed(view, slab, bin, freed);
}

bool slab_collect(struct shale_segment *view, uint64_t slab, const struct bin_info *bin)
{
	/* a hint: slab_collect_all() finds what a lost one hides */
	return load_relaxed(slab_remote_hint(view, slab)) != 0 && slab_collect_all(view, slab, bin);
}
