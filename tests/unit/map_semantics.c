/* What a map says in one process: every answer of every call, and what it costs the heap. */
#include "maps.h"

FIXTURE(map)
{
	struct shale_segment *segment;
	struct shale_map *map;
};
FIXTURE_VARIANT(map)
{
	enum shale_pages pages;
	uint64_t expected; /* 1: everything in one chain */
};
FIXTURE_VARIANT_ADD(map, 4k){SHALE_PAGES_4K, 0};
FIXTURE_VARIANT_ADD(map, 2m){SHALE_PAGES_2M, 0};
FIXTURE_VARIANT_ADD(map, private){SHALE_PAGES_PRIVATE, 0};
FIXTURE_VARIANT_ADD(map, one_chain){SHALE_PAGES_4K, 1};

FIXTURE_SETUP(map)
{
	self->segment = heap_segment(64u << 20, variant->pages);
	self->map = map_named(self->segment, "m", variant->expected);
}

FIXTURE_TEARDOWN(map)
{
	shale_map_close(self->map);
	if (self->segment) {
		heap_expect_clean(self->segment);
		EXPECT_OK(shale_segment_detach(self->segment));
	}
}

TEST_F(map, put_get_replace_delete)
{
	char value[32];

	EXPECT_ERRNO(-ENOENT, get_text(self->map, "k", value, sizeof(value)));
	EXPECT_EQ(put_text(self->map, "k", "one"), 0);
	EXPECT_EQ(get_text(self->map, "k", value, sizeof(value)), 0);
	EXPECT_STR_EQ(value, "one");
	EXPECT_EQ(put_text(self->map, "k", "the second value"), 1);
	EXPECT_EQ(get_text(self->map, "k", value, sizeof(value)), 0);
	EXPECT_STR_EQ(value, "the second value");
	EXPECT_EQ(shale_map_count(self->map), 1);
	EXPECT_EQ(delete_text(self->map, "k"), 0);
	EXPECT_ERRNO(-ENOENT, delete_text(self->map, "k"));
	EXPECT_ERRNO(-ENOENT, get_text(self->map, "k", value, sizeof(value)));
	EXPECT_EQ(shale_map_count(self->map), 0);
	EXPECT_EQ(put_text(self->map, "k", "again"), 0);
	EXPECT_EQ(get_text(self->map, "k", value, sizeof(value)), 0);
	EXPECT_STR_EQ(value, "again");
}

TEST_F(map, insert_refuses_a_key_that_is_there)
{
	char value[32];

	EXPECT_EQ(insert_text(self->map, "k", "one"), 0);
	EXPECT_ERRNO(-EEXIST, insert_text(self->map, "k", "two"));
	EXPECT_EQ(get_text(self->map, "k", value, sizeof(value)), 0);
	EXPECT_STR_EQ(value, "one");
	EXPECT_EQ(delete_text(self->map, "k"), 0);
	EXPECT_EQ(insert_text(self->map, "k", "two"), 0);
	EXPECT_EQ(shale_map_count(self->map), 1);
}

/* Keys and values are bytes: none at all, zeroes inside, one a prefix of the other. */
TEST_F(map, every_size_from_nothing_up)
{
	static const char zero[40];
	char value[40];
	size_t got;

	for (size_t key = 0; key <= 20; key++) {
		EXPECT_EQ(shale_map_put(self->map, zero, key, zero, key * 2), 0);
		EXPECT_EQ(shale_map_put(self->map, zero, key, zero, key * 2), 1);
	}
	for (size_t key = 0; key <= 20; key++) {
		memset(value, 1, sizeof(value));
		EXPECT_EQ(shale_map_get(self->map, zero, key, value, sizeof(value), &got), 0);
		EXPECT_EQ(got, key * 2);
		EXPECT_MEM_EQ(value, zero, got);
		EXPECT_TRUE(got == sizeof(value) || value[got] == 1);
	}
	EXPECT_EQ(shale_map_count(self->map), 21);
	EXPECT_EQ(shale_map_get(self->map, NULL, 0, NULL, 0, &got), 0);
	EXPECT_EQ(got, 0);
	EXPECT_EQ(shale_map_delete(self->map, NULL, 0), 0);
	EXPECT_EQ(shale_map_count(self->map), 20);
}

TEST_F(map, a_small_buffer_gets_the_beginning_and_the_size)
{
	char value[8] = "........";
	size_t got = 0;

	EXPECT_EQ(put_text(self->map, "long", "0123456789abcdef"), 0);
	EXPECT_ERRNO(-EMSGSIZE, shale_map_get(self->map, "long", 4, value, 5, &got));
	EXPECT_EQ(got, 16);
	EXPECT_MEM_EQ(value, "01234...", 8);
	EXPECT_ERRNO(-EMSGSIZE, shale_map_get(self->map, "long", 4, NULL, 0, &got));
	EXPECT_EQ(put_text(self->map, "short", "0123456"), 0);
	EXPECT_ERRNO(-EMSGSIZE, shale_map_get(self->map, "short", 5, value, 3, &got));
	EXPECT_EQ(got, 7);
}

TEST_F(map, large_keys_and_values)
{
	static const size_t sizes[] = {9, 4000, 32768, 65536, 1 << 20, 5 << 20};
	static unsigned char bytes[5 << 20], back[5 << 20];
	size_t got;

	for (size_t i = 0; i < 5 << 20; i++)
		bytes[i] = (unsigned char)(i * 7 + (i >> 9));
	for (unsigned i = 0; i < 6; i++) {
		int r = shale_map_put(self->map, bytes, 100 + i, bytes, sizes[i]);

		ASSERT_EQ(r, 0);
		ASSERT_EQ(shale_map_put(self->map, bytes, sizes[i], &i, sizeof(i)), 0);
		ASSERT_EQ(shale_map_get(self->map, bytes, 100 + i, back, 5 << 20, &got), 0);
		ASSERT_EQ(got, sizes[i]);
		EXPECT_MEM_EQ(back, bytes, got);
	}
	for (unsigned i = 0; i < 6; i++) {
		unsigned j = 99;

		ASSERT_EQ(shale_map_get(self->map, bytes, sizes[i], &j, sizeof(j), &got), 0);
		EXPECT_EQ(i, j);
		EXPECT_EQ(shale_map_delete(self->map, bytes, sizes[i]), 0);
		EXPECT_EQ(shale_map_delete(self->map, bytes, 100 + i), 0);
	}
	EXPECT_EQ(shale_map_count(self->map), 0);
}

/* Against a plain array, over many keys: the same answers all the way. */
TEST_F(map, agrees_with_an_array)
{
	enum { KEYS = 40 };
	static uint64_t model[KEYS];
	uint64_t value;

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t key = test_random_below(KEYS);

		switch (test_random_below(4)) {
		case 0:
			ASSERT_EQ(put_u64(self->map, key, i + 1), model[key] != 0);
			model[key] = i + 1;
			break;
		case 1:
			ASSERT_EQ(delete_u64(self->map, key), model[key] ? 0 : -ENOENT);
			model[key] = 0;
			break;
		case 2:
			value = i + 1;
			ASSERT_EQ(shale_map_insert(self->map, &key, 8, &value, 8),
				  model[key] ? -EEXIST : 0);
			model[key] = model[key] ? model[key] : value;
			break;
		default:
			value = 0;
			ASSERT_EQ(get_u64(self->map, key, &value), model[key] ? 0 : -ENOENT);
			ASSERT_EQ(value, model[key]);
		}
	}
}

/* What was deleted or replaced is free again: churn needs no more than the entries do. */
TEST_F(map, churn_leaves_nothing_behind)
{
	struct shale_heap_figures before;

	for (uint64_t i = 0; i < 30; i++)
		ASSERT_EQ(put_u64(self->map, i, i), 0);
	for (uint64_t i = 0; i < 30; i++)
		ASSERT_EQ(delete_u64(self->map, i), 0);
	before = heap_counts(self->segment);
	for (unsigned round = 0; round < 200; round++) {
		for (uint64_t i = 0; i < 30; i++)
			ASSERT_EQ(put_u64(self->map, i, round), 0);
		for (uint64_t i = 0; i < 30; i++)
			ASSERT_EQ(put_u64(self->map, i, round), 1);
		for (uint64_t i = 0; i < 30; i++)
			ASSERT_EQ(delete_u64(self->map, i), 0);
	}
	EXPECT_EQ(heap_counts(self->segment).live_blocks, before.live_blocks);
	EXPECT_EQ(heap_counts(self->segment).live_bytes, before.live_bytes);
}

TEST_F(map, null_where_bytes_should_be_is_an_error_and_sizes_are_optional)
{
	struct shale_map_cursor cursor;
	char key[8], value[8];

	EXPECT_ERRNO(-EINVAL, shale_map_put(self->map, NULL, 1, "v", 1));
	EXPECT_ERRNO(-EINVAL, shale_map_put(self->map, "k", 1, NULL, 5));
	EXPECT_ERRNO(-EINVAL, shale_map_insert(self->map, "k", 1, NULL, 5));
	EXPECT_ERRNO(-EINVAL, shale_map_get(self->map, NULL, 1, value, 8, NULL));
	EXPECT_ERRNO(-EINVAL, shale_map_get(self->map, "k", 1, NULL, 8, NULL));
	EXPECT_ERRNO(-EINVAL, shale_map_delete(self->map, NULL, 1));
	EXPECT_ERRNO(-EINVAL, shale_map_open(self->segment, "m", NULL, NULL));
	EXPECT_EQ(shale_map_put(self->map, NULL, 0, NULL, 0), 0);
	EXPECT_EQ(shale_map_get(self->map, NULL, 0, NULL, 0, NULL), 0);
	EXPECT_EQ(shale_map_put(self->map, "k", 1, "v", 1), 0);
	EXPECT_ERRNO(-EMSGSIZE, shale_map_get(self->map, "k", 1, NULL, 0, NULL));
	EXPECT_EQ(shale_map_get(self->map, "k", 1, value, 8, NULL), 0);
	shale_map_cursor_init(&cursor);
	EXPECT_ERRNO(-EINVAL,
		     shale_map_cursor_next(self->map, &cursor, NULL, 8, NULL, value, 8, NULL));
	EXPECT_EQ(shale_map_cursor_next(self->map, &cursor, key, 8, NULL, value, 8, NULL), 1);
	EXPECT_EQ(shale_map_cursor_next(self->map, &cursor, key, 8, NULL, value, 8, NULL), 1);
	EXPECT_EQ(shale_map_cursor_next(self->map, &cursor, key, 8, NULL, value, 8, NULL), 0);
}
