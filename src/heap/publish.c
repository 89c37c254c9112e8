/*
 * publish.c - from "mine" to "shared": the published fact, and placing a ref so that a death in the
 * middle leaves either both or nothing.
 *
 * publish_at, in the order of its stores:      a death after it leaves
 *   intent: block, place, fresh                 nothing to do: the block is unpublished, it is swept
 *   facts: published                            place does not hold the ref: recovery frees it
 *   place: expected -> ref           (CAS)      place holds the ref: it stays
 *   intent cleared                              done
 * Whoever takes the ref out of the place first moves the status of a pending intent about it to
 * DONE (take_at), so that recovery does not take "taken already" for "never placed". A taker
 * announces itself by an intent of its own, for the publisher that dies while it is looking.
 *
 * Owner:    own[] the slab's lane, shared[] the holder of the block, the place whoever has the CAS.
 * Ordering: heap.place (release CAS by the publisher, acquire by whoever follows the ref).
 * Progress: publish is wait-free; publish_at is one attempt; take_at retries when the word changes.
 * Death:    above; heap_recovery.c repairs. A taker killed after its CAS leaves a published block
 *           that nothing refers to: who needs more hands over by a channel.
 */
#include "heap/publish.h"

#include <errno.h>

#include <shale/heap.h>

#include "heap/block.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/slab.h"

/* -- the fact ---------------------------------------------------------------------------------- */

static int span_publish(struct shale_segment *view, const struct block_place *place)
{
	uint64_t word = place->word;
	uint64_t low = (word & SLAB_PAYLOAD_MASK) | SLAB_PUBLISHED;

	if (word & SLAB_PUBLISHED)
		return 0;
	/* pairs: slab.word - the holder alone publishes; a failed CAS is a misuse or a free */
	return cas_acq_rel(slab_word(view, place->slab), &word, slab_word_next(word, low))
		       ? 1
		       : -EALREADY;
}

static bool owned_by(struct lane *lane, const struct block_place *place)
{
	return lane && (place->word & SLAB_OWNER_MASK) == heap_lane(lane)->own_word;
}

#define FACT_TRIES 4096u /* a word that changes more often meanwhile is played with */

/* Sets the shared fact of a block that we hold, until it is where the word says. -EALREADY: freed. */
static int set_shared(struct shale_segment *view, uint64_t offset, struct block_place *place,
		      enum shared_fact value)
{
	int r = 0;

	for (unsigned tries = 0; r == 0 && tries < FACT_TRIES; tries++) {
		uint8_t before = block_set_shared(place, value);

		/* pairs: slab.moved - after the fact. */
		if (load_seq_cst(slab_word(view, place->slab)) == place->word)
			return before == SHARED_FREED ? -EALREADY : 0;
		/* somebody moves the facts: where are they now? */
		r = block_find(view, offset, place);
		if (r == 0 && !place->bin)
			return -EALREADY;
	}
	return r < 0 ? r : view_damaged(view);
}

/* In an open slab of the calling lane: nobody moves its facts, and own[] is ours to write. */
static int publish_own(const struct block_place *place)
{
	uint8_t own = load_relaxed(place->own); /* we hold the block */
	uint8_t shared = load_relaxed(place->shared);

	if (own == OWN_FREE || shared == SHARED_FREED)
		return -EALREADY;
	if (own == OWN_PUBLISHED || shared == SHARED_PUBLISHED)
		return 0;
	/* only the owner writes own[] */
	store_relaxed(place->own, (uint8_t)OWN_PUBLISHED);
	return 1;
}

int heap_publish_block(struct shale_segment *view, struct lane *lane, uint64_t offset)
{
	struct block_place place;
	int r = block_find(view, offset, &place);

	if (r < 0)
		return r;
	if (!place.bin)
		return span_publish(view, &place);
	if (owned_by(lane, &place))
		return publish_own(&place);
	r = heap_block_state(view, offset, NULL);
	if (r != HEAP_BLOCK_LIVE)
		return r == HEAP_BLOCK_PUBLISHED ? 0 : -EALREADY;
	r = set_shared(view, offset, &place, SHARED_PUBLISHED);
	return r < 0 ? r : 1;
}

/* Takes back a publish that led to nothing; the caller still holds the block. */
static void unpublish_block(struct shale_segment *view, struct lane *lane, uint64_t offset)
{
	struct block_place place;
	uint64_t word;

	if (block_find(view, offset, &place) < 0)
		return;
	if (!place.bin) {
		word = place.word;
		(void)cas_acq_rel(slab_word(view, place.slab), &word,
				  slab_word_next(word, word & SLAB_PAYLOAD_MASK & ~SLAB_PUBLISHED));
	} else if (owned_by(lane, &place)) {
		store_relaxed(place.own, (uint8_t)OWN_ALLOCATED); /* only the owner writes it */
	} else {
		(void)set_shared(view, offset, &place, SHARED_NONE);
	}
}

/* -- placing ----------------------------------------------------------------------------------- */

uint64_t *publish_place(const struct shale_segment *view, uint64_t offset)
{
	bool in_roots = offset >= view->roots_offset &&
			range_fits(offset, 8, view->roots_offset + ROOT_COUNT * sizeof(uint64_t));

	if (offset % 8 != 0 || !(in_roots || view_in_heap(view, offset, 8)))
		return NULL;
	return view_at(view, offset);
}

static int publish_pair(struct shale_segment *view, struct lane *lane, uint64_t offset,
			uint64_t companion)
{
	int r = heap_publish_block(view, lane, offset);

	if (r >= 0 && companion != 0)
		r = heap_publish_block(view, lane, companion);
	return r;
}

static bool is_fresh(struct shale_segment *view, uint64_t offset)
{
	return offset != 0 && heap_block_state(view, offset, NULL) == HEAP_BLOCK_LIVE;
}

int heap_publish_at(struct shale_segment *view, struct lane *lane, uint64_t offset,
		    uint64_t companion, uint64_t place, uint64_t expected)
{
	struct intent_shm *intent = &lane->shm->intent;
	uint64_t *word = publish_place(view, place);
	bool fresh = is_fresh(view, offset), companion_fresh = is_fresh(view, companion);
	int r;

	if (!word || heap_block_state(view, offset, NULL) < HEAP_BLOCK_LIVE)
		return -EINVAL;
	/* the intent is ours; its word, stored last, makes it count */
	store_relaxed(&intent->block[0], offset);
	store_relaxed(&intent->block[1], companion);
	/* pairs: map.intent - a helper of our last gate that sees one of them sees the gate passed. */
	store_release(&intent->argument[0], place);
	store_release(&intent->argument[1], (uint64_t)fresh);           /* pairs: map.intent */
	store_release(&intent->argument[2], (uint64_t)companion_fresh); /* pairs: map.intent */
	intent_set(lane, INTENT_PUBLISH_AT);
	r = publish_pair(view, lane, offset, companion);
	if (r >= 0) {
		/* pairs: heap.place - the block's bytes are visible to whoever follows the ref. */
		r = cas_acq_rel(word, &expected, offset) ? 0 : -EAGAIN;
	}
	if (r < 0 && fresh)
		unpublish_block(view, lane, offset);
	if (r < 0 && companion_fresh)
		unpublish_block(view, lane, companion);
	intent_clear(lane);
	return r == -EALREADY ? -EINVAL : r;
}

int shale_publish_at(struct shale_segment *segment, void *ptr, uint64_t *location,
		     uint64_t expected)
{
	uint64_t offset = view_offset_of(segment, ptr);
	uint64_t place = view_offset_of(segment, location);
	uint64_t around;
	struct lane *lane;
	int r = lane_enter(segment, &lane);

	if (r < 0)
		return r;
	/* a place that goes with its allocator would take along what it holds */
	if (heap_block_around(segment, place, &around) < 0 ||
	    heap_block_state(segment, around, NULL) != HEAP_BLOCK_PUBLISHED)
		return -EINVAL;
	return heap_publish_at(segment, lane, offset, 0, place, expected);
}

/* -- taking ------------------------------------------------------------------------------------ */

static bool intent_is_about(const struct intent_shm *intent, enum intent_kind kind, uint64_t offset,
			    uint64_t place, uint64_t *ret_word)
{
	/* pairs: lane.intent - the arguments were stored before the word. */
	*ret_word = load_acquire(&intent->word);
	return intent_word_kind(*ret_word) == (unsigned)kind &&
	       load_relaxed(&intent->block[0]) == offset &&
	       (place == 0 || load_relaxed(&intent->argument[0]) == place);
}

/*
 * Publishers of this ref at this place (0: at any) have succeeded: so tell whoever recovers them.
 */
static void settle_publishers(struct shale_segment *view, uint64_t offset, uint64_t place)
{
	uint64_t word;

	for (uint32_t i = 1, high = view_lane_high(view); i < high; i++) {
		struct intent_shm *intent = &view_lane(view, i)->intent;

		if (intent_is_about(intent, INTENT_PUBLISH_AT, offset, place, &word))
			/* pairs: lane.intent - the sequence in the word makes a late CAS fail. */
			(void)cas_acq_rel(&intent->word, &word, word | PUBLISH_DONE);
	}
}

/* -- keeping what was placed --------------------------------------------------------------------- */

int shale_publish(struct shale_segment *segment, void *ptr)
{
	uint64_t offset = view_offset_of(segment, ptr);
	struct lane *lane;
	int r = lane_enter(segment, &lane);

	if (r == 0)
		r = heap_publish_block(segment, lane, offset);
	/* who placed it may still be in publish_at: its death must not free what we keep */
	if (r == 0)
		settle_publishers(segment, offset, 0);
	return r == -EALREADY ? -EINVAL : r < 0 ? r : 0;
}

#define TAKE_TRIES 1000000u /* a word that changes more often than this is played with */

/* -- taking a ref out --------------------------------------------------------------------------- */

bool publish_is_being_taken(struct shale_segment *view, uint64_t offset, uint64_t place)
{
	uint64_t word;

	for (uint32_t i = 1, high = view_lane_high(view); i < high; i++)
		if (intent_is_about(&view_lane(view, i)->intent, INTENT_TAKE_AT, offset, place,
				    &word))
			return true;
	return false;
}

static bool take_once(struct shale_segment *view, struct lane *lane, uint64_t *word,
		      uint64_t offset, uint64_t place)
{
	struct intent_shm *intent = &lane->shm->intent;
	bool taken;

	/* ours, as in publish_at */
	store_relaxed(&intent->block[0], offset);
	/* pairs: map.intent - as there */
	store_release(&intent->argument[0], place);
	intent_set(lane, INTENT_TAKE_AT);
	settle_publishers(view, offset, place);
	/* pairs: heap.place - the publisher's bytes are visible to us. */
	taken = cas_acq_rel(word, &offset, UINT64_C(0));
	if (taken)
		settle_publishers(view, load_relaxed(&intent->block[0]), place); /* ours */
	intent_clear(lane);
	return taken;
}

int shale_take_at(struct shale_segment *segment, uint64_t *location, void **ret_ptr)
{
	uint64_t place = view_offset_of(segment, location);
	struct lane *lane;
	uint64_t offset;
	unsigned tries = 0;
	int r = lane_enter(segment, &lane);

	if (r < 0)
		return r;
	if (place % 8 != 0 || !view_in_heap(segment, place, 8))
		return -EINVAL;
	do {
		if (tries++ == TAKE_TRIES)
			return -EAGAIN;
		/* pairs: heap.place - the block behind the ref is complete. */
		offset = load_acquire(location);
		if (offset == 0)
			return -ENOENT;
		if (heap_block_state(segment, offset, NULL) < HEAP_BLOCK_LIVE) {
			/* taken and freed meanwhile, or no ref at all */
			if (load_acquire(location) == offset)
				return -EINVAL;
			continue;
		}
		/* repeats only when another peer changed the word */
	} while (!take_once(segment, lane, location, offset, place));
	*ret_ptr = view_at(segment, offset);
	return 0;
}
