/*
 * map.c - open, close, and the reads that store nothing: get and count.
 *
 * Owner:     the handle is private and constant; several threads may use it.
 * Invariant: the handle's table lies whole in the heap (checked once, at open).
 * Progress:  a reader without a lane repeats when what it reads changed under it, and gives up with
 *            -EAGAIN after MAP_ATTEMPTS; with a lane it protects the record instead (lock-free).
 * Ordering:  map.slot, map.validate (map_record.c)
 * Lifetime:  the map lives as long as its segment.
 * Death:     a reader leaves nothing; a death while opening leaves a whole map or none (roots).
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "map/map.h"

#define EXPECTED_DEFAULT UINT64_C(65536)
#define EXPECTED_MAX     (UINT64_C(1) << 32)
#define ENTRIES_A_BUCKET 4u
#define BUCKET_BITS_MAX  30u

struct map_key map_key_make(const struct shale_map *map, const void *data, uint32_t size)
{
	return (struct map_key){data, size,
				hash_bytes(size != 0 ? data : "", size, map->view->hash_seed)};
}

/* The highest bits choose, so that the order of hashes is an order of buckets in any table size. */
uint64_t map_bucket_number(const struct shale_map *map, uint64_t hash)
{
	return map->bucket_bits == 0 ? 0 : hash >> (64 - map->bucket_bits);
}

uint64_t map_bucket_ref(const struct shale_map *map, uint64_t number)
{
	return map->table + number * sizeof(struct bucket_shm);
}

static uint64_t table_bytes(unsigned bucket_bits)
{
	return sizeof(struct bucket_shm) << bucket_bits;
}

int map_geometry(struct shale_segment *view, uint64_t root, struct shale_map *ret_map)
{
	const struct map_shm *shm = heap_at(view, root, sizeof(*shm));
	struct shale_map map = {.view = view, .root = root};
	uint32_t kind;

	if (shm == NULL)
		return view_damaged(view);
	kind = load_relaxed(&shm->kind); /* constant since before the root could be found */
	map.bucket_bits = load_relaxed(&shm->bucket_bits); /* likewise */
	map.table = load_relaxed(&shm->table);             /* likewise */
	if (kind != MAP_BYTES || map.bucket_bits > BUCKET_BITS_MAX || map.table % 16 != 0 ||
	    !view_in_heap(view, map.table, table_bytes(map.bucket_bits)))
		return view_damaged(view);
	*ret_map = map;
	return 0;
}

static unsigned bucket_bits_for(uint64_t expected)
{
	uint64_t buckets = (expected + ENTRIES_A_BUCKET - 1) / ENTRIES_A_BUCKET;

	return buckets <= 1 ? 0 : log2_floor(buckets - 1) + 1;
}

/* root_init: the payload of a new map, with its table as companion. */
static int map_init(struct shale_segment *view, struct lane *lane, struct root_shm *record,
		    uint64_t *ret_companion, void *context)
{
	struct map_shm *shm = (struct map_shm *)record;
	const uint64_t *expected = context;
	uint64_t table;
	void *buckets;
	int r;

	memset((unsigned char *)shm + sizeof(*record), 0, sizeof(*shm) - sizeof(*record));
	shm->kind = MAP_BYTES;
	shm->bucket_bits = bucket_bits_for(*expected);
	r = heap_alloc_block(lane, table_bytes(shm->bucket_bits), &table);
	if (r < 0)
		return r;
	*ret_companion = table;
	buckets = heap_at(view, table, table_bytes(shm->bucket_bits));
	if (buckets == NULL)
		return view_damaged(view);
	memset(buckets, 0, table_bytes(shm->bucket_bits));
	shm->table = table;
	return 0;
}

struct open_options {
	uint64_t expected;
	uint32_t flags;
};

/* Members beyond the caller's size are 0; unknown ones must be. */
static int open_options_read(const struct shale_map_options *options,
			     struct open_options *ret_options)
{
	struct shale_map_options own = {0};

	if (options != NULL) {
		if (options->size < sizeof(size_t) || options->size > sizeof(own))
			return -EINVAL;
		memcpy(&own, options, options->size);
	}
	if (own.expected_entries == 0)
		own.expected_entries = EXPECTED_DEFAULT;
	if (own.expected_entries > EXPECTED_MAX ||
	    (own.flags & ~(SHALE_MAP_MUST_EXIST | SHALE_MAP_MUST_MAKE)) != 0 ||
	    own.flags == (SHALE_MAP_MUST_EXIST | SHALE_MAP_MUST_MAKE))
		return -EINVAL;
	*ret_options = (struct open_options){own.expected_entries, own.flags};
	return 0;
}

static int open_root(struct shale_segment *view, const char *name, struct open_options *options,
		     uint64_t *ret_root)
{
	bool only_find = view->read_only || (options->flags & SHALE_MAP_MUST_EXIST) != 0;
	struct lane *lane = NULL;
	bool made = false;
	int r;

	if (!only_find) {
		r = lane_enter(view, &lane);
		if (r < 0)
			return r;
	}
	r = root_open(view, lane, name, ROOT_MAP, sizeof(struct map_shm),
		      only_find ? NULL : map_init, &options->expected, ret_root, &made);
	if (r == -ENOENT && view->read_only && (options->flags & SHALE_MAP_MUST_EXIST) == 0)
		return -EROFS;
	if (r < 0)
		return r;
	return (options->flags & SHALE_MAP_MUST_MAKE) != 0 && !made ? -EEXIST : 0;
}

SHALE_API int shale_map_open(struct shale_segment *segment, const char *name,
			     const struct shale_map_options *options, struct shale_map **ret_map)
{
	struct open_options own = {0};
	struct shale_map *map;
	uint64_t root = 0;
	int r;

	r = ret_map == NULL ? -EINVAL : open_options_read(options, &own);
	if (r == 0)
		r = open_root(segment, name, &own, &root);
	if (r < 0)
		return r;
	map = malloc(sizeof(*map));
	if (map == NULL)
		return -ENOMEM;
	r = map_geometry(segment, root, map);
	if (r < 0) {
		free(map);
		return r;
	}
	*ret_map = map;
	return 0;
}

SHALE_API void shale_map_close(struct shale_map *map)
{
	free(map);
}

struct request {
	struct map_key key;
	void *buffer;
	size_t buffer_size;
};

static int request_answer(const struct request *request, uint64_t value_size,
			  size_t *ret_value_size)
{
	*ret_value_size = (size_t)value_size;
	return value_size > request->buffer_size ? -EMSGSIZE : 0;
}

/* One slot. 0 or -EMSGSIZE found; -ENOENT deleted; 1 not the key; -EAGAIN it changed */
static int get_slot(const struct shale_map *map, uint64_t *slot, uint64_t word,
		    const struct request *request, size_t *ret_value_size)
{
	struct glimpse glimpse;
	bool match;

	if (glimpse_load(map->view, slot, word, &glimpse) == 0)
		return -EAGAIN;
	match = entry_has_key(&glimpse.holder, &request->key);
	if (match && glimpse.present)
		entry_copy_value(&glimpse.value, request->buffer, request->buffer_size);
	if (!glimpse_valid(&glimpse))
		return -EAGAIN;
	if (!match)
		return 1;
	if (!glimpse.present)
		return -ENOENT;
	return request_answer(request, glimpse.value.value_size, ret_value_size);
}

/* A slot that stays, and a record that never holds still or never is one? */
static int get_gave_up(const struct shale_map *map, uint64_t *slot, uint64_t word)
{
	struct glimpse glimpse;

	/* pairs: map.slot */
	if (glimpse_load(map->view, slot, word, &glimpse) == 0 && load_acquire(slot) == word &&
	    map->view->read_only)
		return view_damaged(map->view);
	return -EAGAIN;
}

static int get_optimistic(const struct shale_map *map, const struct request *request,
			  unsigned attempts, bool last, size_t *ret_value_size)
{
	uint64_t ref = map_bucket_ref(map, map_bucket_number(map, request->key.hash));
	uint64_t matching = slot_of_hash(request->key.hash, map->bucket_bits);
	struct bucket_shm *root = bucket_at(map->view, ref);
	struct chain chain = chain_start(map->view, root);
	uint64_t *slot;
	uint64_t word;
	int r;

	if (root == NULL)
		return view_damaged(map->view);
	while ((r = chain_next(&chain, &slot, &word)) > 0) {
		if ((word & ~SLOT_REF_MASK) != matching)
			continue;
		r = get_slot(map, slot, word, request, ret_value_size);
		if (r == 1)
			continue;
		if (r != -EAGAIN)
			return r;
		if (attempts-- == 0)
			return last ? get_gave_up(map, slot, word) : -EAGAIN;
		chain_again(&chain);
	}
	return r < 0 ? r : -ENOENT;
}

/* The record would not hold still: keep it from being reused while we copy. */
static int get_protected(const struct shale_map *map, struct lane *lane,
			 const struct request *request, size_t *ret_value_size)
{
	struct map_hand hand = map_hand_of(lane);
	uint64_t ref = map_bucket_ref(map, map_bucket_number(map, request->key.hash));
	struct found found;
	int r;

	r = map_find(&hand, bucket_at(map->view, ref), &request->key, map->bucket_bits, &found);
	if (r > 0)
		entry_copy_value(&found.entry, request->buffer, request->buffer_size);
	hazard_clear(&hand, MAP_HAZARD_FIND);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	return request_answer(request, found.entry.value_size, ret_value_size);
}

SHALE_API int shale_map_get(struct shale_map *map, const void *key, size_t key_size, void *buffer,
			    size_t buffer_size, size_t *ret_value_size)
{
	struct request request = {.buffer = buffer, .buffer_size = buffer_size};
	struct lane *lane;
	size_t unwanted;
	int r;

	if (key_size > UINT32_MAX || !bytes_given(key, key_size) ||
	    !bytes_given(buffer, buffer_size))
		return -EINVAL;
	if (ret_value_size == NULL)
		ret_value_size = &unwanted;
	request.key = map_key_make(map, key, (uint32_t)key_size);
	r = get_optimistic(map, &request, MAP_OPTIMISTIC_ATTEMPTS, false, ret_value_size);
	if (r != -EAGAIN)
		return r;
	if (!map->view->read_only && lane_enter(map->view, &lane) == 0)
		return get_protected(map, lane, &request, ret_value_size);
	return get_optimistic(map, &request, MAP_ATTEMPTS, true, ret_value_size);
}

/* 1 there is an entry in this slot; 0 there is none; -EAGAIN */
static int count_slot(const struct shale_map *map, uint64_t *slot, uint64_t word)
{
	struct glimpse glimpse;

	if (slot_kind(word) != SLOT_RECORD)
		return 0;
	if (glimpse_load(map->view, slot, word, &glimpse) == 0 || !glimpse_valid(&glimpse))
		return -EAGAIN;
	return glimpse.present;
}

static int64_t count_chain(const struct shale_map *map, struct bucket_shm *root)
{
	struct chain chain = chain_start(map->view, root);
	unsigned attempts = MAP_ATTEMPTS;
	int64_t count = 0;
	uint64_t *slot;
	uint64_t word;
	int r;

	while ((r = chain_next(&chain, &slot, &word)) > 0) {
		r = count_slot(map, slot, word);
		if (r >= 0) {
			count += r;
			continue;
		}
		if (attempts-- == 0)
			return view_damaged(map->view);
		chain_again(&chain);
	}
	return r < 0 ? r : count;
}

SHALE_API int64_t shale_map_count(struct shale_map *map)
{
	uint64_t buckets = UINT64_C(1) << map->bucket_bits;
	int64_t count = 0;
	uint64_t i;

	for (i = 0; i < buckets; i++) {
		struct bucket_shm *root = bucket_at(map->view, map_bucket_ref(map, i));
		int64_t r = root == NULL ? view_damaged(map->view) : count_chain(map, root);

		if (r < 0)
			return r;
		count += r;
	}
	return count;
}
