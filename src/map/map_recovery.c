/*
 * map_recovery.c - what happens to what a dead lane was doing with maps, and to what it had retired.
 *
 * Owner:     the recoverer, who holds the dead peer's recover lock, acts with the dead lane's
 *            hazards and retired list; it needs no lane of its own.
 * Invariant: settling is idempotent: each step leaves a state from which settling again ends alike.
 * Progress:  waits for nobody; what the living still read stays retired, and is tried again later.
 * Ordering:  as for writers; towards the dead its own order of stores is kept (a killed thread
 *            leaves a prefix of its program order).
 * Lifetime:  a named block is not used again, so its bytes and facts can be asked.
 * Death:     of the recoverer: the next one starts over.
 *
 *   intent   decides                                     outcome
 *   PUT      old.state is REPLACED(new)                  slot moved on, old retired, new kept
 *            new is in the chain, or not LIVE            new kept
 *            else                                        new freed
 *   LINK     child is in the chain                       kept, else freed; new freed as above
 *   DELETE   state is DEAD(this lane, this intent)       slot emptied, record retired
 */
#include "map/map.h"

static uint64_t dead_word(const uint64_t *word)
{
	return load_relaxed(word); /* the dead one's store; we came after its lock was gone */
}

/* The gate shows the dead lane: finish for it. */
static int settle_gate(const struct map_hand *hand, struct bucket_shm *root)
{
	uint64_t gate = load_acquire(&root->gate); /* pairs: map.gate */

	return gate_lane(gate) == hand->index ? gate_finish(hand, root, gate) : 0;
}

/* A named block that is still live is read; any other is settled. */
static bool settle_is_live(const struct map_hand *hand, uint64_t ref)
{
	return ref != 0 && heap_block_state(hand->view, ref, NULL) > HEAP_BLOCK_FREE;
}

static struct record_shm *settle_record(const struct map_hand *hand, uint64_t ref)
{
	return settle_is_live(hand, ref) ? record_at(hand->view, ref) : NULL;
}

/* Frees a block that was named and has not become reachable; 0 or -EUCLEAN. */
static int settle_free(const struct map_hand *hand, uint64_t ref)
{
	int r = heap_free_for(hand->view, hand->index, ref);

	return r < 0 && r != -EALREADY ? view_damaged(hand->view) : 0;
}

static bool record_is_live(const struct record_shm *record)
{
	/* pairs: map.state */
	return state_of(load_acquire(&record->state)) == RECORD_LIVE;
}

/* The new record of a put: does the map have it? */
static int settle_new(const struct map_hand *hand, struct bucket_shm *root, uint64_t ref)
{
	const struct record_shm *record = settle_record(hand, ref);
	int r;

	/* dead or replaced: it was in the map, and whoever ended it retires it */
	if (record == NULL || !record_is_live(record))
		return 0;
	r = chain_holds(hand->view, root, SLOT_RECORD, ref);
	if (r != 0)
		return r < 0 ? r : 0;
	/* live before and after a walk that did not meet it: it never was in the map */
	return record_is_live(record) ? settle_free(hand, ref) : 0;
}

static int settle_put(const struct map_hand *hand, struct bucket_shm *root, uint64_t ref,
		      uint64_t old)
{
	const struct record_shm *record = settle_record(hand, old);
	int r;

	/* pairs: map.state */
	if (record == NULL || load_acquire(&record->state) != state_replaced(ref))
		return settle_new(hand, root, ref);
	r = chain_unlink(hand, root, old, ref);
	if (r == 0)
		retire_record(hand, old);
	return r;
}

static int settle_link(const struct map_hand *hand, struct bucket_shm *root, uint64_t ref,
		       uint64_t child)
{
	int r = 0;

	if (settle_is_live(hand, child)) {
		r = chain_holds(hand->view, root, SLOT_LINK, child);
		if (r == 0)
			r = settle_free(hand, child);
	}
	return r < 0 ? r : settle_new(hand, root, ref);
}

static int settle_delete(const struct map_hand *hand, struct bucket_shm *root, uint64_t ref,
			 uint64_t sequence)
{
	const struct record_shm *record = settle_record(hand, ref);
	int r;

	/* pairs: map.state */
	if (record == NULL || load_acquire(&record->state) != state_dead(hand->index, sequence))
		return 0;
	r = chain_unlink(hand, root, ref, 0);
	if (r == 0)
		retire_record(hand, ref);
	return r;
}

static int settle_intent(const struct map_hand *hand, uint64_t word)
{
	const struct intent_shm *intent = &hand->shm->intent;
	struct bucket_shm *root = bucket_at(hand->view, dead_word(&intent->argument[MAP_BUCKET]));
	uint64_t first = dead_word(&intent->block[0]);
	uint64_t second = dead_word(&intent->block[1]);
	int r;

	if (root == NULL)
		return view_damaged(hand->view);
	r = settle_gate(hand, root);
	if (r < 0)
		return r;
	switch (intent_word_kind(word)) {
	case INTENT_MAP_PUT:
		return settle_put(hand, root, first, second);
	case INTENT_MAP_LINK:
		return settle_link(hand, root, first, second);
	case INTENT_MAP_DELETE:
		return settle_delete(hand, root, second, word >> 16);
	default:
		return view_damaged(hand->view);
	}
}

/* Intent and hazards of one dead lane. An intent that damage keeps from being settled goes, too. */
static void settle_lane(const struct map_hand *hand)
{
	struct intent_shm *intent = &hand->shm->intent;
	uint64_t word = dead_word(&intent->word);
	unsigned kind = intent_word_kind(word);
	unsigned i;

	if (kind >= INTENT_MAP_FIRST && kind < INTENT_CHANNEL_FIRST) {
		settle_intent(hand, word); /* damage is noted by the view */
		/* pairs: lane.intent - what was named is settled before the name goes. */
		store_release(&intent->word, UINT64_C(0));
		order_for_death();
		/* relaxed: the names go last; the sweep of the slabs would keep what they name */
		store_relaxed(&intent->block[0], UINT64_C(0));
		store_relaxed(&intent->block[1], UINT64_C(0));
	}
	for (i = 0; i < LANE_HAZARDS; i++) {
		if (dead_word(&hand->shm->hazards[i]) != 0)
			hazard_clear(hand, i);
	}
}

static struct map_hand hand_of_dead(struct shale_segment *view, uint32_t lane)
{
	return (struct map_hand){view, NULL, view_lane(view, lane), lane};
}

/*
 * All lanes of a dead peer let go of what they read before one of them frees: otherwise two of them
 * would take each other for living readers.
 */
static void settle_peer(struct shale_segment *view, uint32_t peer)
{
	uint32_t high = view_lane_high(view);
	uint32_t lane;

	for (lane = 1; lane < high; lane++) {
		struct map_hand hand = hand_of_dead(view, lane);
		uint64_t word = dead_word(&hand.shm->word);

		if (lane_word_active(word) && lane_word_peer(word) == peer)
			settle_lane(&hand);
	}
}

int map_settle_lane(struct shale_segment *view, uint32_t lane)
{
	struct map_hand hand = hand_of_dead(view, lane);

	settle_lane(&hand);
	settle_peer(view, lane_word_peer(dead_word(&hand.shm->word)));
	return retire_drain(&hand) != 0;
}
