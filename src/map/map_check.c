/*
 * map_check.c - the numbered invariants of a map, one function each.
 *
 *   M1  a map's root names a table that is a published block and large enough
 *   M2  a gate is open, and idle or pending for a lane in use whose intent names its bucket
 *   M3  a chain has at most 8 buckets; children are published blocks, linked from last slots
 *   M4  a record is a published block that holds its key and value, and is valid
 *   M5  a record's hash is that of its key, and its bucket and slot word are those of the hash
 *   M6  a record in a slot is live, unless its lane is in the middle of ending it
 *   M7  no key is there twice
 *   M8  a stamp is not newer than its gate's version
 *
 * Owner:     the caller; nothing is written to the segment.
 * Invariant: a finding is reported only if the words it rests on were the same before and after,
 *            several times in a row; while peers work, transient states are left alone.
 * Ordering:  map.slot, map.gate
 * Death:     nothing to repair.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "map/map.h"

#define CHECK_ATTEMPTS 3u
#define CHAIN_SLOTS    (CHAIN_MAX * BUCKET_SLOTS)

struct chain_check {
	struct check_context *check;
	const struct shale_map *map;
	struct bucket_shm *root;
	uint64_t root_ref;
	uint64_t number;
	unsigned count;
	struct glimpse seen[CHAIN_SLOTS];
};

static void chain_report(const struct chain_check *chain, const char *invariant, const char *text)
{
	check_report(chain->check, invariant, chain->root_ref, text);
}

static bool check_published(struct shale_segment *view, uint64_t ref, uint64_t size)
{
	uint64_t usable = 0;

	return heap_block_state(view, ref, &usable) == HEAP_BLOCK_PUBLISHED && usable >= size;
}

/* Is some lane in the middle of a map operation? */
static bool check_busy(struct shale_segment *view)
{
	uint32_t high = view_lane_high(view);
	uint32_t lane;

	for (lane = 1; lane < high; lane++) {
		uint64_t word =
			load_acquire(&view_lane(view, lane)->intent.word); /* pairs: lane.intent */
		unsigned kind = intent_word_kind(word);

		if (kind >= INTENT_MAP_FIRST && kind < INTENT_CHANNEL_FIRST)
			return true;
	}
	return false;
}

/* M2 */
static void check_gate(const struct chain_check *chain)
{
	unsigned attempt;

	for (attempt = 0; attempt < CHECK_ATTEMPTS; attempt++) {
		uint64_t gate = load_acquire(&chain->root->gate); /* pairs: map.gate */
		const struct lane_shm *lane = view_lane(chain->map->view, gate_lane(gate));
		uint64_t bucket =
			load_acquire(&lane->intent.argument[MAP_BUCKET]); /* pairs: map.intent */

		if (gate_is_open(gate) &&
		    (gate_lane(gate) == 0 ||
		     (lane_word_active(load_relaxed(&lane->word)) && bucket == chain->root_ref)))
			return;
	}
	chain_report(chain, "M2", "a gate is neither idle nor that of a lane at work here");
}

/* M3: the buckets behind the root */
static void check_children(const struct chain_check *chain)
{
	const struct bucket_shm *bucket = chain->root;
	unsigned depth;

	for (depth = 1; depth <= CHAIN_MAX; depth++) {
		/* pairs: map.slot */
		uint64_t word = load_acquire(&bucket->slot[BUCKET_SLOTS - 1]);

		if (slot_kind(word) != SLOT_LINK)
			return;
		if (!check_published(chain->map->view, slot_ref(word), sizeof(*bucket)))
			break;
		bucket = bucket_at(chain->map->view, slot_ref(word));
		if (bucket == NULL)
			break;
	}
	chain_report(chain, "M3", "a chain is too long, or a child is not a published block");
}

/* Hash of the key in the segment; the record is quiet, or the finding is dropped later. */
static uint64_t check_hash(const struct chain_check *chain, const struct entry *entry)
{
	uint64_t hash = 0;
	void *key = malloc(entry->key_size + 1u);

	if (key == NULL)
		return entry->hash; /* not checked: no memory */
	entry_copy_key(entry, key, entry->key_size);
	hash = hash_bytes(key, entry->key_size, chain->map->view->hash_seed);
	free(key);
	return hash;
}

/* M4, M5, M6 of a record that was loaded: what is wrong, or NULL */
static const char *check_record(const struct chain_check *chain, const struct glimpse *glimpse,
				const char **ret_text)
{
	const struct entry *entry = &glimpse->holder;

	*ret_text = "a record is not a published block of its size";
	if (!check_published(chain->map->view, entry->ref,
			     record_bytes(entry->key_size, entry->value_size)))
		return "M4";
	*ret_text = "a hash, tag or bucket is not that of the key";
	if (check_hash(chain, entry) != entry->hash ||
	    map_bucket_number(chain->map, entry->hash) != chain->number ||
	    (glimpse->word & ~SLOT_REF_MASK) != slot_of_hash(entry->hash, chain->map->bucket_bits))
		return "M5";
	*ret_text = "a record that is not live is in a slot, and nobody is at work";
	if (state_of(entry->state) != RECORD_LIVE && !check_busy(chain->map->view))
		return "M6";
	return NULL;
}

static bool check_record_slot(struct chain_check *chain, uint64_t *slot, uint64_t word)
{
	const char *text = "a slot shows no valid record";
	const char *invariant = "M4";
	unsigned attempt;

	for (attempt = 0; attempt < CHECK_ATTEMPTS; attempt++) {
		struct glimpse glimpse;

		if (glimpse_load(chain->map->view, slot, word, &glimpse) == 0)
			continue;
		invariant = check_record(chain, &glimpse, &text);
		if (invariant != NULL)
			continue;
		if (glimpse.present && chain->count < CHAIN_SLOTS)
			chain->seen[chain->count++] = glimpse;
		return true;
	}
	/* pairs: map.slot - a slot that has changed was somebody's work. */
	if (load_acquire(slot) != word)
		return false;
	chain_report(chain, invariant, text);
	return true;
}

/* M3, M4, M5, M6, M8 of every slot */
static void check_slots(struct chain_check *chain)
{
	struct chain walk = chain_start(chain->map->view, chain->root);
	unsigned attempts = MAP_ATTEMPTS;
	uint64_t *slot;
	uint64_t word;
	int r;

	chain->count = 0;
	while ((r = chain_next(&walk, &slot, &word)) > 0) {
		/* pairs: map.gate */
		if (slot_kind(word) == SLOT_EMPTY &&
		    gate_version(word) > gate_version(load_acquire(&chain->root->gate)))
			chain_report(chain, "M8", "a stamp is newer than its gate");
		if (slot_kind(word) != SLOT_RECORD || check_record_slot(chain, slot, word))
			continue;
		if (attempts-- == 0)
			break;
		chain_again(&walk);
	}
	if (r < 0)
		chain_report(chain, "M3", "a chain cannot be walked");
}

static bool check_same_key(const struct entry *a, const struct entry *b)
{
	bool same = false;
	void *key;

	if (a->hash != b->hash || a->key_size != b->key_size || a->ref == b->ref)
		return false;
	key = malloc(a->key_size + 1u);
	if (key == NULL)
		return false;
	entry_copy_key(a, key, a->key_size);
	same = entry_has_key(b, &(struct map_key){key, a->key_size, a->hash});
	free(key);
	return same;
}

/* M7 */
static void check_duplicates(const struct chain_check *chain)
{
	unsigned i;
	unsigned j;

	for (i = 0; i < chain->count; i++) {
		for (j = i + 1; j < chain->count; j++) {
			if (check_same_key(&chain->seen[i].holder, &chain->seen[j].holder) &&
			    glimpse_valid(&chain->seen[i]) && glimpse_valid(&chain->seen[j]))
				chain_report(chain, "M7", "a key is there twice");
		}
	}
}

static void check_chain(struct check_context *check, const struct shale_map *map, uint64_t number)
{
	struct chain_check chain = {
		.check = check,
		.map = map,
		.root_ref = map_bucket_ref(map, number),
		.number = number,
	};

	chain.root = bucket_at(map->view, chain.root_ref);
	if (chain.root == NULL)
		return;
	check_gate(&chain);
	check_children(&chain);
	check_slots(&chain);
	check_duplicates(&chain);
}

static int check_map(struct shale_segment *view, uint64_t offset, const struct root_shm *record,
		     void *context)
{
	struct check_context *check = context;
	struct shale_map map;
	uint64_t number;

	if (load_relaxed(&record->kind) != ROOT_MAP) /* constant */
		return 0;
	if (map_geometry(view, offset, &map) < 0 ||
	    !check_published(view, map.table, sizeof(struct bucket_shm) << map.bucket_bits)) {
		check_report(check, "M1", offset, "the root of a map names no table");
		return 0;
	}
	for (number = 0; number < UINT64_C(1) << map.bucket_bits; number++)
		check_chain(check, &map, number);
	return 0;
}

void map_check(struct check_context *check)
{
	root_walk(check->view, check_map, check);
}
