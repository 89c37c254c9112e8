/* Scans: every key once, whatever else comes and goes. */
#include <stdlib.h>

#include "maps.h"

VARIANT_SET(tables) = {{"one_chain", 1, NULL}, {"small", 10, NULL}, {"default", 0, NULL}};

static struct shale_segment *segment_of(void)
{
	return heap_segment(64u << 20, SHALE_PAGES_4K);
}

TEST_V(map_cursor, gives_every_key_once_and_then_ends, tables)
{
	enum { KEYS = 37 };
	struct shale_segment *segment = segment_of();
	struct shale_map *map = map_named(segment, "m", variant->value);
	unsigned seen[KEYS] = {0};
	struct shale_map_cursor cursor;
	size_t key_size, value_size;
	uint64_t key, value;

	shale_map_cursor_init(&cursor);
	EXPECT_EQ(shale_map_cursor_next(map, &cursor, &key, 8, &key_size, &value, 8, &value_size),
		  0);
	for (uint64_t i = 0; i < KEYS; i++)
		ASSERT_EQ(put_u64(map, i, i + 100), 0);
	EXPECT_EQ(shale_map_cursor_next(map, &cursor, &key, 8, &key_size, &value, 8, &value_size),
		  0);
	shale_map_cursor_init(&cursor);
	while (shale_map_cursor_next(map, &cursor, &key, 8, &key_size, &value, 8, &value_size) ==
	       1) {
		ASSERT_LT(key, KEYS);
		EXPECT_EQ(value, key + 100);
		EXPECT_EQ(key_size, 8);
		EXPECT_EQ(value_size, 8);
		seen[key]++;
	}
	for (unsigned i = 0; i < KEYS; i++)
		EXPECT_EQ(seen[i], 1);
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(map_cursor, a_small_buffer_keeps_the_cursor_where_it_is)
{
	struct shale_segment *segment = segment_of();
	struct shale_map *map = map_named(segment, "m", 1);
	struct shale_map_cursor cursor;
	size_t key_size = 0, value_size = 0;
	char key[8], value[32];

	ASSERT_EQ(put_text(map, "key", "0123456789"), 0);
	shale_map_cursor_init(&cursor);
	EXPECT_ERRNO(-EMSGSIZE,
		     shale_map_cursor_next(map, &cursor, NULL, 0, &key_size, NULL, 0, &value_size));
	EXPECT_EQ(key_size, 3);
	EXPECT_EQ(value_size, 10);
	EXPECT_ERRNO(-EMSGSIZE,
		     shale_map_cursor_next(map, &cursor, key, 3, &key_size, value, 9, &value_size));
	EXPECT_EQ(shale_map_cursor_next(map, &cursor, key, 3, &key_size, value, 10, &value_size),
		  1);
	EXPECT_MEM_EQ(key, "key", 3);
	EXPECT_MEM_EQ(value, "0123456789", 10);
	EXPECT_EQ(shale_map_cursor_next(map, &cursor, key, 3, &key_size, value, 10, &value_size),
		  0);
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}

/* Bytes that are no cursor at all do no harm. */
TEST(map_cursor, any_bytes_are_a_position)
{
	struct shale_segment *segment = segment_of();
	struct shale_map *map = map_named(segment, "m", 10);
	struct shale_map_cursor cursor;
	size_t key_size, value_size;
	uint64_t key, value;

	for (uint64_t i = 0; i < 20; i++)
		ASSERT_EQ(put_u64(map, i, i), 0);
	for (unsigned i = 0; i < 2000; i++) {
		int r;

		cursor.position = test_random_u64();
		cursor.reserved[0] = test_random_u64();
		cursor.reserved[1] = test_random_below(4);
		cursor.reserved[2] = test_random_u64();
		r = shale_map_cursor_next(map, &cursor, &key, 8, &key_size, &value, 8, &value_size);
		EXPECT_TRUE(r == 0 || r == 1);
	}
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}

/* Keys 0..19 stay; between any two steps of the scan others come, go, and change. */
TEST_V(map_cursor, what_stays_is_given_once_while_others_come_and_go, tables)
{
	enum { STAY = 12, ALL = 36 };
	struct shale_segment *segment = segment_of();
	struct shale_map *map = map_named(segment, "m", variant->value);

	for (uint64_t i = 0; i < STAY; i++)
		ASSERT_EQ(put_u64(map, i, i), 0);
	for (unsigned scan = 0; scan < 50; scan++) {
		unsigned seen[ALL] = {0};
		struct shale_map_cursor cursor;
		size_t key_size, value_size;
		uint64_t key, value;

		shale_map_cursor_init(&cursor);
		while (shale_map_cursor_next(map, &cursor, &key, 8, &key_size, &value, 8,
					     &value_size) == 1) {
			ASSERT_LT(key, ALL);
			seen[key]++;
			for (unsigned i = 0; i < 5; i++) {
				uint64_t other = STAY + test_random_below(ALL - STAY);

				if (test_random_below(2))
					ASSERT_OK(put_u64(map, other, i));
				else
					(void)delete_u64(map, other);
				ASSERT_EQ(put_u64(map, test_random_below(STAY), scan), 1);
			}
		}
		for (unsigned i = 0; i < STAY; i++)
			EXPECT_EQ(seen[i], 1);
		for (unsigned i = STAY; i < ALL; i++)
			EXPECT_LE(seen[i], 1); /* the order of hashes: nothing is passed twice */
	}
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}
