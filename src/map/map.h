/*
 * map.h - what the files of the map share, and what recovery and the checker call.
 *
 * Owner:     struct shale_map is private to the process and constant after open.
 * Ordering:  see docs/design/map.md, "Memory order"; each edge is named at its two ends.
 * Death:     map_settle_lane() brings whatever a dead lane was doing to one of its two ends.
 */
#ifndef SHALE_MAP_MAP_H
#define SHALE_MAP_MAP_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shale/map.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "heap/heap.h"
#include "map/map_layout.h"
#include "segment/lanes.h"
#include "segment/recovery.h"
#include "segment/view.h"

struct shale_map {
	struct shale_segment *view;
	uint64_t root;
	uint64_t table; /* checked: the whole table lies in the heap */
	unsigned bucket_bits;
};

/* Recovery step: settles the map's part of a dead lane. 0; 1 retired records are still in use. */
int map_settle_lane(struct shale_segment *view, uint32_t lane);
/* Check step: every map of the segment. */
void map_check(struct check_context *check);

/* Attempts of one operation, each of which needs somebody else's progress: more is damage. */
#define MAP_ATTEMPTS (1u << 20)
/* Failed copies after which a reader that has a lane protects the record first. */
#define MAP_OPTIMISTIC_ATTEMPTS 64u

/* Who acts: whose hazards are used. In recovery those of the dead lane, and lane is NULL. */
struct map_hand {
	struct shale_segment *view;
	struct lane *lane;
	struct lane_shm *shm;
	uint32_t index;
};

static inline struct map_hand map_hand_of(struct lane *lane)
{
	return (struct map_hand){lane->view, lane, lane->shm, lane->index};
}

struct map_key {
	const void *data;
	uint32_t size;
	uint64_t hash;
};

struct map_key map_key_make(const struct shale_map *map, const void *data, uint32_t size);
uint64_t map_bucket_number(const struct shale_map *map, uint64_t hash);
uint64_t map_bucket_ref(const struct shale_map *map, uint64_t number);
/* Reads and checks the root record at `root`. 0 or -EUCLEAN. */
int map_geometry(struct shale_segment *view, uint64_t root, struct shale_map *ret_map);

/*
 * map_gate.c: walking a chain, finishing a gate, taking a record out of its slot.
 */
struct chain {
	struct shale_segment *view;
	struct bucket_shm *bucket;
	unsigned depth;
	unsigned next; /* slot of `bucket` that comes next */
};

struct bucket_shm *bucket_at(const struct shale_segment *view, uint64_t ref);
struct chain chain_start(struct shale_segment *view, struct bucket_shm *root);
/* The next slot and its word, links followed. 1; 0 at the end; -EUCLEAN. */
int chain_next(struct chain *chain, uint64_t **ret_slot, uint64_t *ret_word);

/* The slot that chain_next() gave last is given again. */
static inline void chain_again(struct chain *chain)
{
	chain->next--;
}

/* The position of the slot that chain_next() gave last. */
static inline unsigned chain_position(const struct chain *chain)
{
	return chain->depth * BUCKET_SLOTS + chain->next - 1;
}

/* Is this word in the chain? 1, 0, -EUCLEAN. Only the ref and the kind are compared. */
int chain_holds(struct shale_segment *view, struct bucket_shm *root, enum slot_kind kind,
		uint64_t ref);

/* Finishes the operation that `gate` shows. 0 (it is over) or -EUCLEAN. */
int gate_finish(const struct map_hand *hand, struct bucket_shm *root, uint64_t gate);
/* Opens the gate, finishes: 1 done, 0 the gate was not `gate` any more, -EUCLEAN. */
int gate_pass(const struct map_hand *hand, struct bucket_shm *root, uint64_t gate, enum gate_op op,
	      unsigned position, uint64_t expected, uint64_t desired);
/*
 * Makes the slot of `record` point to `next`, or EMPTY for 0. The caller has seen the record in its
 * slot, and keeps it from being freed. 0 (somebody did it) or -EUCLEAN.
 */
int chain_unlink(const struct map_hand *hand, struct bucket_shm *root, uint64_t record,
		 uint64_t next);

/*
 * map_record.c: filling a record, and reading one that may be reused meanwhile.
 */
struct entry {
	struct record_shm *record;
	uint64_t ref;
	uint64_t incarnation;
	uint64_t hash;
	uint64_t state;
	uint64_t cell;
	uint64_t value_size;
	uint32_t key_size;
};

void record_fill(struct record_shm *record, uint64_t incarnation, const struct map_key *key,
		 const void *value, uint64_t value_size);
struct record_shm *record_at(const struct shale_segment *view, uint64_t ref);

/* Loads the header of the record at ref; false: it is none (now), or does not fit the heap. */
bool entry_load(const struct shale_segment *view, uint64_t ref, struct entry *ret_entry);
/* Is it still the same use of the block? Everything read before is then of one record. */
bool entry_unchanged(const struct entry *entry);
bool entry_has_key(const struct entry *entry, const struct map_key *key);
void entry_copy_key(const struct entry *entry, void *buffer, size_t size);
void entry_copy_value(const struct entry *entry, void *buffer, size_t size);
/* Tells keys of equal hash apart. */
uint64_t entry_fold_key(const struct entry *entry);

/*
 * What is bound through a slot word, read without storing anything. `holder` is the record in the
 * slot; `value` the record that has the value (another one while a replacement is under way).
 */
struct glimpse {
	uint64_t *slot;
	uint64_t word;
	struct entry holder;
	struct entry value;
	bool present; /* false: deleted */
};
/* 1 loaded; 0 it changed meanwhile: read the slot again. */
int glimpse_load(const struct shale_segment *view, uint64_t *slot, uint64_t word,
		 struct glimpse *ret_glimpse);
/* After everything of interest was read: was it all of one instant? */
bool glimpse_valid(const struct glimpse *glimpse);

/*
 * map_find.c: the protected search of writers.
 */
struct found {
	uint64_t gate; /* idle, read before the scan */
	/* the live record, if there is one; protected by MAP_HAZARD_FIND */
	struct entry entry;
	/* otherwise: the first empty slot */
	bool has_empty;
	uint64_t empty_word;
	unsigned empty_position;
	/* and the last slot of the chain */
	uint64_t last_word;
	uint64_t *last_slot;
	unsigned last_position;
};
/* 1 a live record; 0 no such key; -EUCLEAN. Helps everything that it meets half done. */
int map_find(const struct map_hand *hand, struct bucket_shm *root, const struct map_key *key,
	     unsigned bucket_bits, struct found *ret_found);

static inline void hazard_set(const struct map_hand *hand, unsigned hazard, uint64_t ref)
{
	/* pairs: map.hazard - whoever frees sees this, or we see that the slot has changed. */
	store_seq_cst(&hand->shm->hazards[hazard], ref);
}

static inline void hazard_clear(const struct map_hand *hand, unsigned hazard)
{
	/* pairs: map.hazard_end - our reads of the record end here; it may be freed after. */
	store_release(&hand->shm->hazards[hazard], UINT64_C(0));
}

/*
 * map_retire.c: records that left the map, until nobody can be reading them.
 */
/* Names the record in the hand's retired list, unless it is the one named last (recovery). */
void retire_record(const struct map_hand *hand, uint64_t ref);
/* Frees what nobody protects. Returns how many remain. */
unsigned retire_drain(const struct map_hand *hand);
/* retire_drain() when enough has gathered to be worth the look at every lane. */
void retire_drain_some(const struct map_hand *hand);

#endif
