/*
 * map_retire.c - records that left the map, until nobody can be reading them.
 *
 * A record is retired once, by the lane that deleted or replaced it: into its retired[] entries,
 * and when these are full into a list through the records themselves (`incarnation` holds the next
 * ref: even, so no reader takes the record for valid), whose head is one of the last two entries.
 * When all single entries are in use by others, they go to the second list, so that what waits in
 * the first one is looked at in any case.
 *
 *   new -> entry, else MORE -> entry -> free
 *                       ^        '----> HELD (all entries in use, and MORE not empty)
 *                       '------ next drain ------'
 *
 * Owner:     the lane, and recovery when it is dead.
 * Invariant: R1  a record is named by its retirer from the intent on until it is freed
 *            R2  a record is freed only when no hazard and no intent of any lane names it
 *            R3  the head of a list may also be in an entry, or head both lists, for one step of a
 *                drain, and after a death until the next one; no other record is named twice
 * Progress:  wait-free but for the frees; cost is some looks at every lane that was ever used, one
 *            for each MAP_RETIRED records.
 * Ordering:  map.hazard, map.hazard_end
 * Lifetime:  a stopped lane keeps the few records that it names, and no others.
 * Death:     entries stay; recovery frees them. A death between a free and clearing its entry is
 *            seen by the next free as -EALREADY, because a named block is not used again.
 */
#include "map/map.h"

/* Batches of one drain: all that all lanes can name, and some. A list that a peer bent into a ring
 * ends here. */
#define RETIRE_ROUNDS 2048u

static uint64_t retired_load(const struct lane_shm *shm, unsigned i)
{
	/* relaxed: written by this lane, or by the dead one before recovery took its lock */
	return load_relaxed(&shm->retired[i]);
}

static void retired_store(struct lane_shm *shm, unsigned i, uint64_t ref)
{
	/* pairs: lane.retired - a collector that sees the block freed sees whether it is named. */
	store_release(&shm->retired[i], ref);
}

static bool retired_names(const struct lane_shm *shm, uint64_t ref)
{
	unsigned i;

	for (i = 0; i < LANE_RETIRED; i++)
		if (retired_load(shm, i) == ref)
			return true;
	return false;
}

void retire_record(const struct map_hand *hand, uint64_t ref)
{
	struct lane_shm *shm = hand->shm;
	struct record_shm *record = record_at(hand->view, ref);
	unsigned i;

	if (record == NULL || retired_names(shm, ref))
		return;
	for (i = 0; i < MAP_RETIRED; i++) {
		if (retired_load(shm, i) != 0)
			continue;
		retired_store(shm, i, ref);
		return;
	}
	/* pairs: map.validate - no reader takes the record for valid from here on. */
	store_release(&record->incarnation, retired_load(shm, MAP_RETIRED_MORE));
	retired_store(shm, MAP_RETIRED_MORE, ref);
}

/* Takes the head off the list. */
static void retire_advance(const struct map_hand *hand, uint64_t head)
{
	struct record_shm *record = record_at(hand->view, head);
	/* relaxed: the list is this lane's own */
	uint64_t next = record == NULL ? 0 : load_relaxed(&record->incarnation);

	if (next % 16 != 0 || next == head)
		next = 0;
	retired_store(hand->shm, MAP_RETIRED_MORE, next);
}

/* Moves the head of the list to a free entry. false: no list, or no free entry. */
static bool retire_refill(const struct map_hand *hand)
{
	uint64_t head = retired_load(hand->shm, MAP_RETIRED_MORE);
	unsigned i;

	if (head == 0)
		return false;
	for (i = 0; i < MAP_RETIRED; i++)
		if (retired_load(hand->shm, i) == head)
			break; /* a death cut the move in two */
	if (i == MAP_RETIRED) {
		for (i = 0; i < MAP_RETIRED && retired_load(hand->shm, i) != 0; i++)
			;
		if (i == MAP_RETIRED)
			return false;
		retired_store(hand->shm, i, head);
	}
	retire_advance(hand, head);
	return true;
}

static uint32_t retire_match(const struct lane_shm *shm, uint64_t ref)
{
	uint32_t match = 0;
	unsigned i;

	if (ref == 0)
		return 0;
	for (i = 0; i < MAP_RETIRED; i++)
		if (retired_load(shm, i) == ref)
			match |= UINT32_C(1) << i;
	return match;
}

/* Which of our entries does any lane protect? */
static uint32_t retire_protected(const struct map_hand *hand)
{
	uint32_t protected = 0;
	uint32_t high;
	uint32_t lane;
	unsigned i;

	/* pairs: map.hazard - our records left their slots before we look. */
	fence_seq_cst();
	high = view_lane_high(hand->view);
	for (lane = 1; lane < high; lane++) {
		const struct lane_shm *shm = view_lane(hand->view, lane);

		for (i = 0; i < LANE_HAZARDS; i++) {
			/* pairs: map.hazard - set before the slot was looked at again, or too late. */
			/* pairs: map.hazard_end - a reader that has let go has read all it will. */
			protected |= retire_match(hand->shm, load_seq_cst(&shm->hazards[i]));
		}
		/* pairs: lane.intent */
		if (load_acquire(&shm->intent.word) == 0)
			continue;
		for (i = 0; i < 2; i++) {
			/* pairs: map.intent */
			uint64_t ref = load_acquire(&shm->intent.block[i]);

			protected |= retire_match(hand->shm, ref);
		}
	}
	return protected;
}

static int retire_free(const struct map_hand *hand, uint64_t ref)
{
	return hand->lane != NULL ? heap_free_block(hand->view, hand->lane, ref)
				  : heap_free_for(hand->view, hand->index, ref);
}

static unsigned retire_drain_entries(const struct map_hand *hand)
{
	uint32_t protected = retire_protected(hand);
	unsigned remain = 0;
	unsigned i;

	for (i = 0; i < MAP_RETIRED; i++) {
		uint64_t ref = retired_load(hand->shm, i);
		int r;

		if (ref == 0)
			continue;
		if (protected & (UINT32_C(1) << i)) {
			remain++;
			continue;
		}
		r = retire_free(hand, ref);
		if (r < 0 && r != -EALREADY)
			view_damaged(hand->view);
		order_for_death();
		retired_store(hand->shm, i, 0);
	}
	return remain;
}

/* What a death between two steps of a move has left named twice. */
static void retire_mend(const struct map_hand *hand)
{
	uint64_t held = retired_load(hand->shm, MAP_RETIRED_HELD);
	unsigned i;

	if (held == 0)
		return;
	for (i = 0; i < MAP_RETIRED; i++)
		if (retired_load(hand->shm, i) == held)
			retired_store(hand->shm, i, 0);
	if (retired_load(hand->shm, MAP_RETIRED_MORE) == held)
		retired_store(hand->shm, MAP_RETIRED_HELD, 0);
}

/* The records that were found in use are looked at again. */
static void retire_turn(const struct map_hand *hand)
{
	uint64_t held = retired_load(hand->shm, MAP_RETIRED_HELD);

	if (held == 0 || retired_load(hand->shm, MAP_RETIRED_MORE) != 0)
		return;
	retired_store(hand->shm, MAP_RETIRED_MORE, held);
	order_for_death();
	retired_store(hand->shm, MAP_RETIRED_HELD, 0);
}

/* Everything in the entries is in use: makes room for what waits behind it. */
static void retire_hold(const struct map_hand *hand)
{
	unsigned i;

	for (i = 0; i < MAP_RETIRED; i++) {
		uint64_t ref = retired_load(hand->shm, i);
		struct record_shm *record = record_at(hand->view, ref);

		if (record != NULL) {
			/* pairs: map.validate - no reader takes the record for valid. */
			store_release(&record->incarnation,
				      retired_load(hand->shm, MAP_RETIRED_HELD));
			retired_store(hand->shm, MAP_RETIRED_HELD, ref);
			order_for_death();
		}
		retired_store(hand->shm, i, 0);
	}
}

unsigned retire_drain(const struct map_hand *hand)
{
	unsigned remain = 0;
	unsigned round;
	unsigned i;

	retire_mend(hand);
	retire_turn(hand);
	for (round = 0; round < RETIRE_ROUNDS; round++) {
		/* one more than there are entries: the head may have been in one already */
		for (i = 0; i <= MAP_RETIRED && retire_refill(hand); i++)
			;
		remain = retire_drain_entries(hand);
		if (retired_load(hand->shm, MAP_RETIRED_MORE) == 0)
			break;
		if (remain == MAP_RETIRED)
			retire_hold(hand);
	}
	return remain + (retired_load(hand->shm, MAP_RETIRED_MORE) != 0) +
	       (retired_load(hand->shm, MAP_RETIRED_HELD) != 0);
}

void retire_drain_some(const struct map_hand *hand)
{
	uint32_t high = view_lane_high(hand->view);
	uint32_t enough = high / 8 < MAP_RETIRED ? high / 8 : MAP_RETIRED - 1;

	/* entries fill from below: one that is taken up there says how many there are */
	if (retired_load(hand->shm, enough) != 0)
		retire_drain(hand);
}
