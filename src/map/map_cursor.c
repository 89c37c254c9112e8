/*
 * map_cursor.c - scans: every key once, in the order of hashes.
 *
 * The cursor holds the place of the entry given last: its hash and a second hash of its key, which
 * tells keys of equal hash apart. The next entry is the one with the smallest place above it. A
 * bucket holds a contiguous range of hashes, whatever the size of the table, so the order outlives a
 * resize, and an entry is neither skipped nor repeated when its record is replaced.
 *
 *   position      hash of the last entry
 *   reserved[0]   second hash of its key
 *   reserved[1]   0 not begun, 1 begun, 2 over
 *   reserved[2]   0
 *
 * Owner:     the caller owns the cursor, plain bytes that may be anything: every value is valid.
 * Progress:  as get: it repeats when what it reads changed under it; -EAGAIN after MAP_ATTEMPTS.
 * Ordering:  map.slot, map.validate
 * Death:     stores nothing to the segment.
 */
#include <string.h>

#include "map/map.h"

enum cursor_state { CURSOR_NEW = 0, CURSOR_BEGUN = 1, CURSOR_OVER = 2 };

struct place {
	uint64_t hash;
	uint64_t fold;
};

static bool place_less(const struct place *a, const struct place *b)
{
	return a->hash != b->hash ? a->hash < b->hash : a->fold < b->fold;
}

struct scan {
	const struct shale_map *map;
	bool begun;
	struct place last;
	bool has_best;
	struct place best;
	struct glimpse glimpse; /* of the best one */
};

/* The second hash is asked for only where the first one does not decide. */
static struct place scan_place(const struct scan *scan, const struct entry *entry)
{
	bool tie = (scan->begun && entry->hash == scan->last.hash) ||
		   (scan->has_best && entry->hash == scan->best.hash);

	return (struct place){entry->hash, tie ? entry_fold_key(entry) : 0};
}

/* A best without its second hash gets it when another entry of that hash turns up. */
static void scan_fold_best(struct scan *scan, uint64_t hash)
{
	if (scan->has_best && scan->best.hash == hash)
		scan->best.fold = entry_fold_key(&scan->glimpse.holder);
}

/* 0 taken or passed over; -EAGAIN it changed meanwhile */
static int scan_slot(struct scan *scan, uint64_t *slot, uint64_t word)
{
	struct glimpse glimpse;
	struct place place;

	if (slot_kind(word) != SLOT_RECORD)
		return 0;
	if (glimpse_load(scan->map->view, slot, word, &glimpse) == 0)
		return -EAGAIN;
	scan_fold_best(scan, glimpse.holder.hash);
	place = scan_place(scan, &glimpse.holder);
	if (!glimpse_valid(&glimpse))
		return -EAGAIN;
	if (!glimpse.present || (scan->begun && !place_less(&scan->last, &place)) ||
	    (scan->has_best && !place_less(&place, &scan->best)))
		return 0;
	scan->has_best = true;
	scan->best = place;
	scan->glimpse = glimpse;
	return 0;
}

/* The entry with the smallest place above the last one. 1, 0 none in this bucket, -errno */
static int scan_bucket(struct scan *scan, struct bucket_shm *root)
{
	struct chain chain = chain_start(scan->map->view, root);
	unsigned attempts = MAP_ATTEMPTS;
	uint64_t *slot;
	uint64_t word;
	int r;

	scan->has_best = false;
	while ((r = chain_next(&chain, &slot, &word)) > 0) {
		if (scan_slot(scan, slot, word) == 0)
			continue;
		if (attempts-- == 0)
			return view_damaged(scan->map->view);
		chain_again(&chain);
	}
	return r < 0 ? r : scan->has_best;
}

struct cursor_buffers {
	void *key;
	size_t key_size;
	void *value;
	size_t value_size;
};

/* Copies the best entry. 1; -EAGAIN it changed meanwhile */
static int scan_copy(struct scan *scan, const struct cursor_buffers *buffers)
{
	const struct entry *holder = &scan->glimpse.holder;
	const struct entry *value = &scan->glimpse.value;

	scan->best.fold = entry_fold_key(holder);
	entry_copy_key(holder, buffers->key, buffers->key_size);
	entry_copy_value(value, buffers->value, buffers->value_size);
	return glimpse_valid(&scan->glimpse) ? 1 : -EAGAIN;
}

/* The next entry from this bucket on. 1, 0 the map is at its end, -errno */
static int scan_next(struct scan *scan, uint64_t number, const struct cursor_buffers *buffers)
{
	const struct shale_map *map = scan->map;
	unsigned attempts = MAP_ATTEMPTS;

	while (number < UINT64_C(1) << map->bucket_bits) {
		struct bucket_shm *root = bucket_at(map->view, map_bucket_ref(map, number));
		int r = root == NULL ? view_damaged(map->view) : scan_bucket(scan, root);

		if (r < 0)
			return r;
		if (r == 0) {
			number++;
			continue;
		}
		if (scan_copy(scan, buffers) > 0)
			return 1;
		if (attempts-- == 0)
			return -EAGAIN;
	}
	return 0;
}

SHALE_API void shale_map_cursor_init(struct shale_map_cursor *cursor)
{
	memset(cursor, 0, sizeof(*cursor));
}

SHALE_API int shale_map_cursor_next(struct shale_map *map, struct shale_map_cursor *cursor,
				    void *key, size_t key_buffer_size, size_t *ret_key_size,
				    void *value, size_t value_buffer_size, size_t *ret_value_size)
{
	const struct cursor_buffers buffers = {key, key_buffer_size, value, value_buffer_size};
	struct scan scan = {
		.map = map,
		.begun = cursor->reserved[1] != CURSOR_NEW,
		.last = {cursor->position, cursor->reserved[0]},
	};
	uint64_t first = scan.begun ? map_bucket_number(map, cursor->position) : 0;
	size_t sizes[2]; /* for those that the caller does not want */
	int r;

	if (!bytes_given(key, key_buffer_size) || !bytes_given(value, value_buffer_size))
		return -EINVAL;
	if (ret_key_size == NULL)
		ret_key_size = &sizes[0];
	if (ret_value_size == NULL)
		ret_value_size = &sizes[1];
	if (cursor->reserved[1] >= CURSOR_OVER)
		return 0;
	r = scan_next(&scan, first, &buffers);
	if (r < 0)
		return r;
	if (r == 0) {
		cursor->reserved[1] = CURSOR_OVER;
		return 0;
	}
	*ret_key_size = scan.glimpse.holder.key_size;
	*ret_value_size = (size_t)scan.glimpse.value.value_size;
	if (*ret_key_size > key_buffer_size || *ret_value_size > value_buffer_size)
		return -EMSGSIZE;
	*cursor = (struct shale_map_cursor){scan.best.hash, {scan.best.fold, CURSOR_BEGUN, 0}};
	return 1;
}
