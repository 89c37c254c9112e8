/*
 * map_find.c - the protected search of writers.
 *
 * Owner:     the caller's lane: its hazard protects the record that is looked at.
 * Invariant: F1  a live record that is returned was in its slot while its state was loaded
 *            F2  "no such key" holds as long as the gate is the one returned
 * Progress:  lock-free: a scan starts over only after it has finished somebody's half-done step.
 * Ordering:  map.hazard  hazard then slot / slot emptied then hazards
 *            map.state   the replacement is filled / whoever follows REPLACED
 * Lifetime:  a protected record is not freed until hazard_clear().
 * Death:     the hazards of the dead stay until recovery; they keep at most three records.
 */
#include "map/map.h"

/* Protects the record of a slot word. false: the slot has changed. */
static bool find_protect(const struct map_hand *hand, const uint64_t *slot, uint64_t word)
{
	hazard_set(hand, MAP_HAZARD_FIND, slot_ref(word));
	/* pairs: map.hazard - still there, so whoever takes it out will see our hazard. */
	return load_seq_cst(slot) == word;
}

/* The record is not live any more: lead its slot on. 0: scan again; -EUCLEAN. */
static int find_help(const struct map_hand *hand, struct bucket_shm *root,
		     const struct entry *entry, uint64_t state)
{
	uint64_t next = 0;

	if (state_of(state) == RECORD_REPLACED) {
		next = state_next(state);
		if (next == entry->ref || record_at(hand->view, next) == NULL)
			return view_damaged(hand->view);
	}
	return chain_unlink(hand, root, entry->ref, next);
}

/* A slot whose tag matches. 1 it is the key, live; 2 another key; 0 start over; -EUCLEAN. */
static int find_look(const struct map_hand *hand, struct bucket_shm *root, uint64_t *slot,
		     uint64_t word, const struct map_key *key, struct entry *ret_entry)
{
	if (!find_protect(hand, slot, word))
		return 0;
	/*
	 * Retired meanwhile, its incarnation may be the link of a list. pairs: map.slot - whoever
	 * sees the link sees that the slot has changed.
	 */
	if (!entry_load(hand->view, slot_ref(word), ret_entry))
		return load_acquire(slot) == word ? view_damaged(hand->view) : 0;
	if (!entry_has_key(ret_entry, key))
		return 2;
	/* pairs: map.state - a replacement that it names is filled. */
	ret_entry->state = load_acquire(&ret_entry->record->state);
	switch (state_of(ret_entry->state)) {
	case RECORD_LIVE:
		return 1;
	case RECORD_DEAD:
	case RECORD_REPLACED:
		return find_help(hand, root, ret_entry, ret_entry->state);
	default:
		return view_damaged(hand->view);
	}
}

static void find_note(struct found *found, const struct chain *chain, uint64_t *slot, uint64_t word)
{
	found->last_slot = slot;
	found->last_word = word;
	found->last_position = chain_position(chain);
	if (slot_kind(word) != SLOT_EMPTY || found->has_empty)
		return;
	found->has_empty = true;
	found->empty_word = word;
	found->empty_position = chain_position(chain);
}

/* 1 found; 0 not there; -EAGAIN start over; -EUCLEAN */
static int find_scan(const struct map_hand *hand, struct bucket_shm *root,
		     const struct map_key *key, uint64_t matching, struct found *found)
{
	struct chain chain = chain_start(hand->view, root);
	uint64_t *slot;
	uint64_t word;
	int r;

	while ((r = chain_next(&chain, &slot, &word)) > 0) {
		find_note(found, &chain, slot, word);
		if ((word & ~SLOT_REF_MASK) != matching)
			continue;
		r = find_look(hand, root, slot, word, key, &found->entry);
		if (r == 0)
			return -EAGAIN;
		if (r != 2)
			return r;
	}
	return r;
}

int map_find(const struct map_hand *hand, struct bucket_shm *root, const struct map_key *key,
	     unsigned bucket_bits, struct found *ret_found)
{
	uint64_t matching = slot_of_hash(key->hash, bucket_bits);
	unsigned attempt;

	for (attempt = 0; attempt < MAP_ATTEMPTS; attempt++) {
		struct found found = {0};
		int r;

		/* pairs: map.gate - whatever was inserted before is in its slot when we scan. */
		found.gate = load_acquire(&root->gate);
		if (!gate_is_open(found.gate))
			return view_damaged(hand->view);
		if (gate_lane(found.gate) != 0) {
			r = gate_finish(hand, root, found.gate);
			if (r < 0)
				return r;
			continue;
		}
		r = find_scan(hand, root, key, matching, &found);
		if (r == -EAGAIN)
			continue;
		if (r >= 0)
			*ret_found = found;
		return r;
	}
	return view_damaged(hand->view);
}
