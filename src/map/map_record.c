/*
 * map_record.c - filling a record, and reading one that may be freed and used again meanwhile.
 *
 * Owner:     a record is written by the lane that made it, until it is linked; only `state` changes
 *            after that. A retired record is its retirer's: `incarnation` then links the overflow.
 * Ordering:  map.record    everything of a record / the loads of a reader
 *            map.validate  loads of a reader before its second look / the writer's first store
 * Lifetime:  heap memory is never unmapped: a reader without protection reads bytes that may be
 *            anything, bounds what it reads, and looks afterwards whether they were a record's.
 * Death:     a reader stores nothing; a half-filled record is unpublished memory of the dead.
 *
 * Bytes move in 8-byte atomic words, because reading may race with writing: what was read is used
 * only after the second look.
 */
#include <string.h>

#include "map/map.h"

/* Space behind `to` is filled up to 8 bytes. */
static void store_bytes(uint64_t *to, const void *from, uint64_t size)
{
	const unsigned char *bytes = from;
	uint64_t word;

	for (; size >= sizeof(word); size -= sizeof(word), bytes += sizeof(word)) {
		memcpy(&word, bytes, sizeof(word));
		/* pairs: map.validate - a reader of this byte also sees the new incarnation. */
		store_release(to++, word);
	}
	if (size == 0)
		return;
	word = 0;
	memcpy(&word, bytes, size);
	/* pairs: map.validate - as above */
	store_release(to, word);
}

static void load_bytes(void *to, const uint64_t *from, uint64_t size)
{
	unsigned char *bytes = to;
	uint64_t word;

	for (; size >= sizeof(word); size -= sizeof(word), bytes += sizeof(word)) {
		/* pairs: map.validate - the second look comes after this load. */
		word = load_acquire(from++);
		memcpy(bytes, &word, sizeof(word));
	}
	if (size == 0)
		return;
	/* pairs: map.validate - as above */
	word = load_acquire(from);
	memcpy(bytes, &word, size);
}

static bool same_bytes(const uint64_t *shared, const void *own, uint64_t size)
{
	const unsigned char *bytes = own;
	uint64_t word;

	for (; size >= sizeof(word); size -= sizeof(word), bytes += sizeof(word)) {
		/* pairs: map.validate - the second look comes after this load. */
		word = load_acquire(shared++);
		if (memcmp(bytes, &word, sizeof(word)) != 0)
			return false;
	}
	if (size == 0)
		return true;
	/* pairs: map.validate - as above */
	word = load_acquire(shared);
	return memcmp(bytes, &word, size) == 0;
}

static uint64_t *record_key(const struct record_shm *record)
{
	return (uint64_t *)((uintptr_t)record + sizeof(*record));
}

static uint64_t *record_value(const struct entry *entry)
{
	return record_key(entry->record) + record_key_bytes(entry->key_size) / sizeof(uint64_t);
}

void record_fill(struct record_shm *record, uint64_t incarnation, const struct map_key *key,
		 const void *value, uint64_t value_size)
{
	struct entry entry = {.record = record, .key_size = key->size};
	uint64_t cell = 0;

	if (value_size > 0 && value_size <= sizeof(cell))
		memcpy(&cell, value, value_size);
	/* A reader may have come here by an old slot word: no longer that record, from here on. */
	store_relaxed(&record->incarnation, UINT64_C(0)); /* ordered by the releases below */
	/* pairs: map.validate - a reader of any new field sees that the incarnation has changed. */
	store_release(&record->hash, key->hash);
	store_release(&record->state, state_live(1));   /* pairs: map.validate - as above */
	store_release(&record->cell, cell);             /* pairs: map.validate - as above */
	store_release(&record->key_size, key->size);    /* pairs: map.validate - as above */
	store_release(&record->expiry, 0u);             /* pairs: map.validate - as above */
	store_release(&record->value_size, value_size); /* pairs: map.validate - as above */
	store_bytes(record_key(record), key->data, key->size);
	if (value_size > sizeof(cell))
		store_bytes(record_value(&entry), value, value_size);
	/* pairs: map.record - a reader that finds it valid finds everything above. */
	store_release(&record->incarnation, incarnation);
}

struct record_shm *record_at(const struct shale_segment *view, uint64_t ref)
{
	if (ref % 16 != 0)
		return NULL;
	return heap_at(view, ref, sizeof(struct record_shm));
}

bool entry_load(const struct shale_segment *view, uint64_t ref, struct entry *ret_entry)
{
	struct entry entry = {.ref = ref};
	struct record_shm *record = record_at(view, ref);

	if (record == NULL)
		return false;
	entry.record = record;
	/* pairs: map.record - if it is the second look's too, the rest is this record's. */
	entry.incarnation = load_acquire(&record->incarnation);
	if (entry.incarnation % 2 == 0)
		return false;
	entry.hash = load_acquire(&record->hash);             /* pairs: map.validate */
	entry.state = load_acquire(&record->state);           /* pairs: map.validate */
	entry.cell = load_acquire(&record->cell);             /* pairs: map.validate */
	entry.key_size = load_acquire(&record->key_size);     /* pairs: map.validate */
	entry.value_size = load_acquire(&record->value_size); /* pairs: map.validate */
	if (entry.value_size > RECORD_VALUE_MAX ||
	    !view_in_heap(view, ref, record_bytes(entry.key_size, entry.value_size)))
		return false;
	*ret_entry = entry;
	return true;
}

bool entry_unchanged(const struct entry *entry)
{
	/* relaxed: the loads before were acquires and come first; nothing follows from this one */
	return load_relaxed(&entry->record->incarnation) == entry->incarnation;
}

bool entry_has_key(const struct entry *entry, const struct map_key *key)
{
	return entry->hash == key->hash && entry->key_size == key->size &&
	       same_bytes(record_key(entry->record), key->data, key->size);
}

void entry_copy_key(const struct entry *entry, void *buffer, size_t size)
{
	load_bytes(buffer, record_key(entry->record),
		   size < entry->key_size ? size : entry->key_size);
}

void entry_copy_value(const struct entry *entry, void *buffer, size_t size)
{
	uint64_t some = size < entry->value_size ? size : entry->value_size;

	if (some == 0)
		return;
	if (entry->value_size <= sizeof(entry->cell))
		memcpy(buffer, &entry->cell, some);
	else
		load_bytes(buffer, record_value(entry), some);
}

uint64_t entry_fold_key(const struct entry *entry)
{
	const uint64_t *word = record_key(entry->record);
	uint64_t bytes = record_key_bytes(entry->key_size);
	uint64_t fold = entry->key_size;

	for (; bytes > 0; bytes -= sizeof(*word)) {
		/* pairs: map.validate - the second look comes after this load. */
		fold = (fold ^ load_acquire(word++)) * UINT64_C(0x9e3779b97f4a7c15);
		fold ^= fold >> 29;
	}
	return fold;
}

int glimpse_load(const struct shale_segment *view, uint64_t *slot, uint64_t word,
		 struct glimpse *ret_glimpse)
{
	struct glimpse glimpse = {.slot = slot, .word = word};

	if (!entry_load(view, slot_ref(word), &glimpse.holder))
		return 0;
	glimpse.value = glimpse.holder;
	switch (state_of(glimpse.holder.state)) {
	case RECORD_LIVE:
		glimpse.present = true;
		break;
	case RECORD_DEAD:
		glimpse.present = false;
		break;
	case RECORD_REPLACED:
		/* As long as the slot shows the old record, the new one is live and linked by it. */
		if (!entry_load(view, state_next(glimpse.holder.state), &glimpse.value) ||
		    state_of(glimpse.value.state) != RECORD_LIVE)
			return 0;
		glimpse.present = true;
		break;
	default:
		return 0;
	}
	*ret_glimpse = glimpse;
	return 1;
}

bool glimpse_valid(const struct glimpse *glimpse)
{
	/* pairs: map.slot - the record was in the map then, and has been since we found it there. */
	return load_acquire(glimpse->slot) == glimpse->word && entry_unchanged(&glimpse->holder) &&
	       entry_unchanged(&glimpse->value);
}
