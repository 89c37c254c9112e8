/*
 * map_write.c - put, insert, delete.
 *
 *   put, key new     record filled -> intent -> published -> gate opened -> slot filled -> gate idle
 *   put, key there   .. -> intent names the old record -> old: LIVE -> REPLACED(new) -> slot moved on
 *                    -> old retired
 *   delete           intent names the record -> LIVE -> DEAD -> slot emptied -> retired
 *   link             child filled -> intent -> published -> gate opened -> last slot -> gate idle
 *
 * Owner:     the lane of the caller; its intent names what it has in hand.
 * Invariant: W1  a published record is linked, retired, or named by an intent
 *            W2  only the lane whose CAS ended a record's LIVE retires it
 * Progress:  lock-free.
 * Ordering:  map.intent, map.gate, map.state
 * Lifetime:  map_retire.c
 * Death:     map_recovery.c; between any two steps the intent says what to look at.
 *
 * Linearization: put of a new key and insert at the slot's CAS (be it a helper's); put of an old
 * key at the CAS of the old record's state; delete likewise; -EEXIST and -ENOENT at the load that
 * showed it.
 */
#include <string.h>

#include "map/map.h"

struct write {
	struct map_hand hand;
	const struct shale_map *map;
	struct map_key key;
	uint64_t bucket_ref;
	struct bucket_shm *root;
	uint64_t ref; /* of the new record */
	struct record_shm *record;
};

static void intent_block(const struct map_hand *hand, unsigned i, uint64_t ref)
{
	/* pairs: map.intent - a collector that sees the name sees what it protects. */
	store_release(&hand->shm->intent.block[i], ref);
}

static void intent_bucket(const struct map_hand *hand, uint64_t ref)
{
	/* pairs: map.intent - a helper that sees it sees our last gate passed. */
	store_release(&hand->shm->intent.argument[MAP_BUCKET], ref);
}

/* Everything named is settled. */
static void write_end(const struct map_hand *hand)
{
	intent_clear(hand->lane);
	intent_block(hand, 0, 0);
	intent_block(hand, 1, 0);
	hazard_clear(hand, MAP_HAZARD_FIND);
}

static int write_begin(const struct shale_map *map, const void *key, size_t key_size,
		       struct write *ret_write)
{
	struct write write = {.map = map};
	struct lane *lane;
	int r;

	if (key_size > UINT32_MAX)
		return -EINVAL;
	if (map->view->read_only)
		return -EROFS;
	r = lane_enter(map->view, &lane);
	if (r < 0)
		return r;
	write.hand = map_hand_of(lane);
	write.key = map_key_make(map, key, (uint32_t)key_size);
	write.bucket_ref = map_bucket_ref(map, map_bucket_number(map, write.key.hash));
	write.root = bucket_at(map->view, write.bucket_ref);
	if (write.root == NULL)
		return view_damaged(map->view);
	*ret_write = write;
	return 0;
}

/* Unique to this use of the block: lane, its generation, and the number of the next intent. */
static uint64_t write_incarnation(const struct map_hand *hand)
{
	uint64_t generation = load_relaxed(&hand->shm->word) >> 32; /* our own slot's */
	uint64_t sequence = hand->lane->intent_sequence + 1;

	return ((uint64_t)hand->index << 52) | ((generation & 0xffff) << 36) |
	       ((sequence & ((UINT64_C(1) << 35) - 1)) << 1) | 1;
}

static int write_record(struct write *write, const void *value, size_t value_size)
{
	const struct map_hand *hand = &write->hand;
	int r;

	if (value_size > hand->view->capacity_bytes)
		return -ENOMEM;
	r = heap_alloc_block(hand->lane, record_bytes(write->key.size, value_size), &write->ref);
	if (r < 0)
		return r;
	write->record = record_at(hand->view, write->ref);
	if (write->record == NULL)
		return view_damaged(hand->view);
	record_fill(write->record, write_incarnation(hand), &write->key, value, value_size);
	intent_block(hand, 0, write->ref);
	intent_block(hand, 1, 0);
	intent_bucket(hand, write->bucket_ref);
	intent_set(hand->lane, (enum intent_kind)INTENT_MAP_PUT);
	r = heap_publish_block(hand->view, hand->lane, write->ref);
	return r < 0 ? r : 0;
}

/*
 * The new record has found no place: it is named until it is free. In a damaged map it may have
 * found one, so there it is left alone.
 */
static void write_discard(const struct write *write, int error)
{
	if (write->ref != 0 && error != -EUCLEAN)
		heap_free_block(write->hand.view, write->hand.lane, write->ref);
	order_for_death();
	write_end(&write->hand);
}

/* 1 the old record has given way; 0 it was not live any more; -errno */
static int write_replace(const struct write *write, const struct entry *old)
{
	const struct map_hand *hand = &write->hand;
	uint64_t state = old->state;
	int r;

	/* relaxed: nobody reaches the new record before the CAS below */
	store_relaxed(&write->record->state, state_live_after(state));
	intent_block(hand, 1, old->ref);
	/* pairs: map.state - who follows to the new record finds it filled. */
	if (!cas_acq_rel(&old->record->state, &state, state_replaced(write->ref)))
		return 0;
	r = chain_unlink(hand, write->root, old->ref, write->ref);
	if (r < 0)
		return r;
	retire_record(hand, old->ref);
	return 1;
}

/* 1 linked; 0 somebody else passed the gate first; -errno */
static int write_insert(const struct write *write, const struct found *found)
{
	uint64_t word =
		slot_with_ref(slot_of_hash(write->key.hash, write->map->bucket_bits), write->ref);

	/* relaxed: as above; a replacement that did not come about may have left its version */
	store_relaxed(&write->record->state, state_live(1));
	intent_block(&write->hand, 1, 0);
	return gate_pass(&write->hand, write->root, found->gate, GATE_INSERT, found->empty_position,
			 found->empty_word, word);
}

static void child_fill(struct bucket_shm *child, uint64_t displaced)
{
	unsigned i;

	/* pairs: map.validate - who takes it for an old record sees that it changes. */
	store_release(&child->gate, UINT64_C(0));
	store_release(&child->slot[0], displaced); /* pairs: map.validate */
	for (i = 1; i < BUCKET_SLOTS; i++)
		store_release(&child->slot[i], slot_empty(0)); /* pairs: map.validate */
}

/* Allocates the child that displaces `word`, named and published. */
static int child_make(const struct write *write, uint64_t word, uint64_t *ret_child)
{
	const struct map_hand *hand = &write->hand;
	struct bucket_shm *bucket;
	uint64_t child;
	int r;

	r = heap_alloc_block(hand->lane, sizeof(struct bucket_shm), &child);
	if (r < 0)
		return r;
	bucket = bucket_at(hand->view, child);
	if (bucket == NULL)
		return view_damaged(hand->view);
	child_fill(bucket, word);
	intent_block(hand, 1, 0);
	intent_set(hand->lane, (enum intent_kind)INTENT_MAP_LINK);
	intent_block(hand, 1, child);
	order_for_death();
	r = heap_publish_block(hand->view, hand->lane, child);
	*ret_child = child;
	return r < 0 ? r : 0;
}

/* The link came about, or its child is freed; then the intent is that of a put again. */
static int child_settle(const struct write *write, uint64_t child)
{
	const struct map_hand *hand = &write->hand;
	int r = chain_holds(hand->view, write->root, SLOT_LINK, child);

	hazard_clear(hand, MAP_HAZARD_LINK);
	if (r < 0)
		return r;
	if (r == 0)
		heap_free_block(hand->view, hand->lane, child);
	order_for_death();
	intent_block(hand, 1, 0);
	order_for_death();
	intent_set(hand->lane, (enum intent_kind)INTENT_MAP_PUT);
	return 0;
}

/* Every slot is taken: hangs a child onto the last one. 0 look again; -errno */
static int write_link(const struct write *write, const struct found *found)
{
	const struct map_hand *hand = &write->hand;
	uint64_t child = 0;
	int r;

	if (found->last_position == CHAIN_MAX * BUCKET_SLOTS - 1 ||
	    gate_version(found->gate) == GATE_VERSION_MAX)
		return -ENOSPC;
	hazard_set(hand, MAP_HAZARD_LINK, slot_ref(found->last_word));
	/* pairs: map.hazard - the displaced word cannot come back once it has gone. */
	if (load_seq_cst(found->last_slot) != found->last_word)
		return 0;
	r = child_make(write, found->last_word, &child);
	if (r < 0)
		return r;
	r = gate_pass(hand, write->root, found->gate, GATE_LINK, found->last_position,
		      found->last_word, slot_link(child));
	return r < 0 ? r : child_settle(write, child);
}

/* 0 new, 1 replaced, -EEXIST, -errno */
static int write_place(const struct write *write, bool replace)
{
	unsigned attempt;

	for (attempt = 0; attempt < MAP_ATTEMPTS; attempt++) {
		struct found found;
		int r = map_find(&write->hand, write->root, &write->key, write->map->bucket_bits,
				 &found);

		if (r < 0)
			return r;
		if (r > 0) {
			r = replace ? write_replace(write, &found.entry) : -EEXIST;
			if (r != 0)
				return r;
		} else if (found.has_empty) {
			r = write_insert(write, &found);
			if (r != 0)
				return r < 0 ? r : 0;
		} else {
			r = write_link(write, &found);
			if (r < 0)
				return r;
		}
	}
	return view_damaged(write->hand.view);
}

static int map_write(struct shale_map *map, const void *key, size_t key_size, const void *value,
		     size_t value_size, bool replace)
{
	struct write write;
	int r;

	if (!bytes_given(key, key_size) || !bytes_given(value, value_size))
		return -EINVAL;
	r = write_begin(map, key, key_size, &write);
	if (r < 0)
		return r;
	r = write_record(&write, value, value_size);
	if (r == 0)
		r = write_place(&write, replace);
	hazard_clear(&write.hand, MAP_HAZARD_LINK);
	if (r < 0) {
		write_discard(&write, r);
		return r;
	}
	write_end(&write.hand);
	retire_drain_some(&write.hand);
	return r;
}

SHALE_API int shale_map_put(struct shale_map *map, const void *key, size_t key_size,
			    const void *value, size_t value_size)
{
	return map_write(map, key, key_size, value, value_size, true);
}

SHALE_API int shale_map_insert(struct shale_map *map, const void *key, size_t key_size,
			       const void *value, size_t value_size)
{
	size_t size;
	int r;

	if (map->view->read_only)
		return -EROFS;
	/* the usual refusal costs no memory */
	r = shale_map_get(map, key, key_size, NULL, 0, &size);
	if (r == 0 || r == -EMSGSIZE)
		return -EEXIST;
	if (r != -ENOENT)
		return r;
	return map_write(map, key, key_size, value, value_size, false);
}

/* 1 deleted by us; 0 it was not live any more; -errno */
static int delete_record(const struct write *write, const struct entry *entry)
{
	const struct map_hand *hand = &write->hand;
	uint64_t state = entry->state;
	int r;

	intent_block(hand, 0, 0);
	intent_block(hand, 1, entry->ref);
	intent_bucket(hand, write->bucket_ref);
	intent_set(hand->lane, (enum intent_kind)INTENT_MAP_DELETE);
	/* pairs: map.state - the loads of those who find it dead */
	if (!cas_acq_rel(&entry->record->state, &state,
			 state_dead(hand->index, hand->lane->intent_sequence)))
		return 0;
	r = chain_unlink(hand, write->root, entry->ref, 0);
	if (r < 0)
		return r;
	retire_record(hand, entry->ref);
	return 1;
}

static int delete_key(const struct write *write)
{
	unsigned attempt;

	for (attempt = 0; attempt < MAP_ATTEMPTS; attempt++) {
		struct found found;
		int r = map_find(&write->hand, write->root, &write->key, write->map->bucket_bits,
				 &found);

		if (r <= 0)
			return r < 0 ? r : -ENOENT;
		r = delete_record(write, &found.entry);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	return view_damaged(write->hand.view);
}

SHALE_API int shale_map_delete(struct shale_map *map, const void *key, size_t key_size)
{
	struct write write;
	int r;

	if (!bytes_given(key, key_size))
		return -EINVAL;
	r = write_begin(map, key, key_size, &write);
	if (r < 0)
		return r;
	r = delete_key(&write);
	write_end(&write.hand);
	if (r == 0)
		retire_drain_some(&write.hand);
	return r;
}
