/*
 * maps.h - maps for tests: small handles on keys and values that are numbers or text.
 */
#ifndef SHALE_TESTS_LIB_MAPS_H
#define SHALE_TESTS_LIB_MAPS_H

#include <string.h>

#include <shale/map.h>

#include "heaps.h"

static inline struct shale_map *map_named(struct shale_segment *segment, const char *name,
					  uint64_t expected)
{
	struct shale_map_options options = {.size = sizeof(options), .expected_entries = expected};
	struct shale_map *map = NULL;

	ASSERT_OK(shale_map_open(segment, name, &options, &map));
	return map;
}

/* Text keys, text values; a value of NULL deletes nothing and is not allowed. */
static inline int put_text(struct shale_map *map, const char *key, const char *value)
{
	return shale_map_put(map, key, strlen(key), value, strlen(value));
}

static inline int insert_text(struct shale_map *map, const char *key, const char *value)
{
	return shale_map_insert(map, key, strlen(key), value, strlen(value));
}

static inline int delete_text(struct shale_map *map, const char *key)
{
	return shale_map_delete(map, key, strlen(key));
}

/* The value as text in `buffer` (NUL-terminated), or the error. */
static inline int get_text(struct shale_map *map, const char *key, char *buffer, size_t size)
{
	size_t got = 0;
	int r = shale_map_get(map, key, strlen(key), buffer, size - 1, &got);

	buffer[r == 0 ? got : 0] = '\0';
	return r;
}

static inline int put_u64(struct shale_map *map, uint64_t key, uint64_t value)
{
	return shale_map_put(map, &key, sizeof(key), &value, sizeof(value));
}

static inline int delete_u64(struct shale_map *map, uint64_t key)
{
	return shale_map_delete(map, &key, sizeof(key));
}

static inline int get_u64(struct shale_map *map, uint64_t key, uint64_t *ret_value)
{
	size_t got = 0;

	return shale_map_get(map, &key, sizeof(key), ret_value, sizeof(*ret_value), &got);
}

/*
 * A value that shows by itself whether it is whole: a number, and bytes that follow from it. Its
 * size follows from it, too, so that it is in the cell, in the record, or in a span of slabs.
 */
enum { SELF_MAX = 4096 };

static inline size_t self_size(uint64_t number, size_t most)
{
	return 8 + (size_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 40) % (most - 8);
}

static inline size_t self_fill(unsigned char *value, uint64_t number, size_t most)
{
	size_t size = self_size(number, most);

	memcpy(value, &number, sizeof(number));
	for (size_t i = sizeof(number); i < size; i++)
		value[i] = (unsigned char)(number + i * 131);
	return size;
}

static inline bool self_holds(const unsigned char *value, size_t size, size_t most)
{
	uint64_t number;

	if (size < sizeof(number))
		return false;
	memcpy(&number, value, sizeof(number));
	if (size != self_size(number, most))
		return false;
	for (size_t i = sizeof(number); i < size; i++)
		if (value[i] != (unsigned char)(number + i * 131))
			return false;
	return true;
}

#endif
