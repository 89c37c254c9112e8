/*
 * map_gate.c - walking a chain of buckets, finishing a gate, taking a record out of its slot.
 *
 * Owner:     nobody; the gate names the lane whose intent has the arguments of the operation.
 * Invariant: G1  an EMPTY slot becomes a RECORD only through the gate, so a scan that found no key
 *                holds as long as the gate has not moved
 *            G2  a word EMPTY(stamp) is never in the same slot twice
 *            G3  a slot never changes under a gate that is pending on it, but by that gate, or
 *                by an unlink that began before it
 *            G4  a LINK never changes again
 * Progress:  lock-free: whoever meets a pending gate finishes it.
 * Ordering:  map.gate  arguments and record / helpers and later scans
 *            map.slot  what a slot shows / whoever reads it there
 * Lifetime:  buckets live as long as the map.
 * Death:     a pending gate of the dead is finished by the next writer, or by recovery.
 */
#include "map/map.h"

struct bucket_shm *bucket_at(const struct shale_segment *view, uint64_t ref)
{
	if (ref % 16 != 0)
		return NULL;
	return heap_at(view, ref, sizeof(struct bucket_shm));
}

struct chain chain_start(struct shale_segment *view, struct bucket_shm *root)
{
	return (struct chain){.view = view, .bucket = root};
}

static int chain_follow(struct chain *chain, uint64_t word)
{
	struct bucket_shm *child = bucket_at(chain->view, slot_ref(word));

	if (child == NULL || chain->next != BUCKET_SLOTS - 1 || ++chain->depth == CHAIN_MAX)
		return view_damaged(chain->view);
	chain->bucket = child;
	chain->next = 0;
	return 0;
}

int chain_next(struct chain *chain, uint64_t **ret_slot, uint64_t *ret_word)
{
	while (chain->next < BUCKET_SLOTS) {
		uint64_t *slot = &chain->bucket->slot[chain->next];
		/* pairs: map.slot - the record or child behind the word is filled. */
		uint64_t word = load_acquire(slot);
		int r;

		if (!slot_is_sane(word))
			return view_damaged(chain->view);
		if (slot_kind(word) != SLOT_LINK) {
			chain->next++;
			*ret_slot = slot;
			*ret_word = word;
			return 1;
		}
		r = chain_follow(chain, word);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The slot at a position, which exists since before the gate showed it. */
static uint64_t *chain_slot(struct shale_segment *view, struct bucket_shm *root, unsigned position)
{
	struct bucket_shm *bucket = root;
	unsigned depth;

	for (depth = position / BUCKET_SLOTS; depth > 0 && bucket != NULL; depth--) {
		/* pairs: map.slot - the child behind the word is filled. */
		uint64_t word = load_acquire(&bucket->slot[BUCKET_SLOTS - 1]);

		bucket = slot_kind(word) == SLOT_LINK ? bucket_at(view, slot_ref(word)) : NULL;
	}
	return bucket == NULL ? NULL : &bucket->slot[position % BUCKET_SLOTS];
}

/* Finds the record's slot; a record moves only down the chain, so one walk cannot miss it. */
static int chain_find(struct shale_segment *view, struct bucket_shm *root, uint64_t ref,
		      uint64_t **ret_slot, uint64_t *ret_word, unsigned *ret_position)
{
	struct chain chain = chain_start(view, root);
	int r;

	while ((r = chain_next(&chain, ret_slot, ret_word)) > 0) {
		if (slot_kind(*ret_word) == SLOT_RECORD && slot_ref(*ret_word) == ref) {
			*ret_position = chain_position(&chain);
			return 1;
		}
	}
	return r;
}

static int chain_holds_child(struct shale_segment *view, struct bucket_shm *root, uint64_t ref)
{
	struct bucket_shm *bucket = root;
	unsigned depth;

	for (depth = 0; depth < CHAIN_MAX; depth++) {
		/* pairs: map.slot - the child behind the word is filled. */
		uint64_t word = load_acquire(&bucket->slot[BUCKET_SLOTS - 1]);

		if (slot_kind(word) != SLOT_LINK)
			return 0;
		if (slot_ref(word) == ref)
			return 1;
		bucket = bucket_at(view, slot_ref(word));
		if (bucket == NULL)
			break;
	}
	return view_damaged(view);
}

int chain_holds(struct shale_segment *view, struct bucket_shm *root, enum slot_kind kind,
		uint64_t ref)
{
	uint64_t *slot;
	uint64_t word;
	unsigned position;

	if (kind == SLOT_LINK)
		return chain_holds_child(view, root, ref);
	return chain_find(view, root, ref, &slot, &word, &position);
}

/*
 * May the gate's CAS be tried? An EMPTY word never comes back, a record's does, if the block is
 * used again: so the record is kept from being freed. As long as the gate is ours or shown, the
 * maker of the link keeps it; after that, our own hazard does, which we set while it was shown.
 */
static bool gate_try(const struct map_hand *hand, enum gate_op op, const uint64_t *slot,
		     uint64_t expected)
{
	if (op == GATE_INSERT)
		return slot_kind(expected) == SLOT_EMPTY;
	hazard_set(hand, MAP_HAZARD_GATE, slot_ref(expected));
	/* pairs: map.hazard - not freed before we let go, if it is still there now. */
	return load_seq_cst(slot) == expected;
}

static int gate_complete(const struct map_hand *hand, struct bucket_shm *root, uint64_t gate)
{
	const struct intent_shm *intent = &view_lane(hand->view, gate_lane(gate))->intent;
	/* pairs: map.intent - arguments of a later operation come with a later gate. */
	uint64_t bucket = load_acquire(&intent->argument[MAP_BUCKET]);
	uint64_t expected = load_acquire(&intent->argument[MAP_EXPECTED]); /* pairs: map.intent */
	uint64_t desired = load_acquire(&intent->argument[MAP_DESIRED]);   /* pairs: map.intent */
	uint64_t *slot = chain_slot(hand->view, root, gate_position(gate));
	enum slot_kind kind = gate_op(gate) == GATE_INSERT ? SLOT_RECORD : SLOT_LINK;
	bool try;

	try = slot != NULL && gate_try(hand, gate_op(gate), slot, expected);
	/* pairs: map.gate - still shown, so the arguments are those of this operation. */
	if (load_seq_cst(&root->gate) == gate) {
		if (slot == NULL || bucket_at(hand->view, bucket) != root ||
		    slot_kind(desired) != kind || !slot_is_sane(desired)) {
			hazard_clear(hand, MAP_HAZARD_GATE);
			return view_damaged(hand->view);
		}
		if (try) {
			/* pairs: map.slot - whoever finds the word finds what is behind it. */
			cas_seq_cst(slot, &expected, desired);
		}
		/* pairs: map.gate - whoever sees it idle sees the slot. */
		cas_acq_rel(&root->gate, &gate, gate_idle_after(gate));
	}
	if (kind == SLOT_LINK)
		hazard_clear(hand, MAP_HAZARD_GATE);
	return 0;
}

int gate_finish(const struct map_hand *hand, struct bucket_shm *root, uint64_t gate)
{
	/* no such lane: damage, and slots beyond the mark may be holes */
	if (gate_lane(gate) >= view_lane_high(hand->view))
		return view_damaged(hand->view);
	return gate_complete(hand, root, gate);
}

int gate_pass(const struct map_hand *hand, struct bucket_shm *root, uint64_t gate, enum gate_op op,
	      unsigned position, uint64_t expected, uint64_t desired)
{
	struct intent_shm *intent = &hand->shm->intent;
	uint64_t pending = gate_pending(gate, hand->index, op, position);
	int r;

	if (gate_version(gate) == GATE_VERSION_MAX)
		return -ENOSPC;
	/* pairs: map.intent - released, so that a helper that sees it sees our last gate passed. */
	store_release(&intent->argument[MAP_EXPECTED], expected);
	store_release(&intent->argument[MAP_DESIRED], desired); /* pairs: map.intent */
	/* pairs: map.gate - arguments and record come before the gate that shows them. */
	if (!cas_acq_rel(&root->gate, &gate, pending))
		return 0;
	r = gate_finish(hand, root, pending);
	return r < 0 ? r : 1;
}

int chain_unlink(const struct map_hand *hand, struct bucket_shm *root, uint64_t record,
		 uint64_t next)
{
	unsigned attempt;

	for (attempt = 0; attempt < MAP_ATTEMPTS; attempt++) {
		/*
		 * First the gate, then the slot: the record's own insert was shown before its slot
		 * was filled, so we see it pending and finish it, or have a later version to stamp.
		 */
		uint64_t gate = load_acquire(&root->gate); /* pairs: map.gate */
		uint64_t *slot;
		uint64_t word;
		unsigned position;
		int r;

		r = chain_find(hand->view, root, record, &slot, &word, &position);
		if (r <= 0)
			return r;
		if (!gate_is_open(gate))
			return view_damaged(hand->view);
		if (gate_lane(gate) != 0 && gate_position(gate) == position) {
			r = gate_finish(hand, root, gate);
			if (r < 0)
				return r;
			continue;
		}
		/* pairs: map.slot - a scan that finds the slot changed finds `next` filled. */
		if (cas_seq_cst(slot, &word,
				next != 0 ? slot_with_ref(word, next)
					  : slot_empty(gate_version(gate))))
			return 0;
	}
	return view_damaged(hand->view);
}
