/* Opening maps: names, options, kinds, what stays when the handle goes, and where a map is full. */
#include <unistd.h>

#include "maps.h"

static struct shale_segment *small(void)
{
	return heap_segment(16u << 20, SHALE_PAGES_4K);
}

static int open_with(struct shale_segment *segment, const char *name,
		     struct shale_map_options options)
{
	struct shale_map *map = NULL;
	int r;

	options.size = options.size ? options.size : sizeof(options);
	r = shale_map_open(segment, name, &options, &map);
	if (r == 0)
		shale_map_close(map);
	return r;
}

TEST(map_open, names_and_options_are_checked)
{
	struct shale_segment *segment = small();
	struct shale_map *map = NULL;
	char name[60];

	memset(name, 'x', sizeof(name));
	name[48] = '\0';
	EXPECT_ERRNO(-EINVAL, shale_map_open(segment, name, NULL, &map));
	EXPECT_ERRNO(-EINVAL, shale_map_open(segment, "", NULL, &map));
	name[47] = '\0';
	EXPECT_EQ(open_with(segment, name, (struct shale_map_options){0}), 0);
	EXPECT_ERRNO(-EINVAL, open_with(segment, "a", (struct shale_map_options){.size = 4}));
	EXPECT_ERRNO(-EINVAL, open_with(segment, "a", (struct shale_map_options){.size = 4096}));
	EXPECT_ERRNO(-EINVAL, open_with(segment, "a", (struct shale_map_options){.flags = 4}));
	EXPECT_ERRNO(-EINVAL, open_with(segment, "a", (struct shale_map_options){.flags = 3}));
	EXPECT_ERRNO(-EINVAL, open_with(segment, "a",
					(struct shale_map_options){
						.expected_entries = (UINT64_C(1) << 32) + 1}));
	EXPECT_ERRNO(-ENOMEM,
		     open_with(segment, "a",
			       (struct shale_map_options){.expected_entries = UINT64_C(1) << 32}));
	EXPECT_ERRNO(-ENOENT, open_with(segment, "a",
					(struct shale_map_options){.flags = SHALE_MAP_MUST_EXIST}));
	EXPECT_EQ(open_with(segment, "a", (struct shale_map_options){.flags = SHALE_MAP_MUST_MAKE}),
		  0);
	EXPECT_ERRNO(-EEXIST, open_with(segment, "a",
					(struct shale_map_options){.flags = SHALE_MAP_MUST_MAKE}));
	EXPECT_EQ(
		open_with(segment, "a", (struct shale_map_options){.flags = SHALE_MAP_MUST_EXIST}),
		0);
	EXPECT_EQ(shale_root_publish(segment, "block", shale_alloc(segment, 200)), 0);
	EXPECT_ERRNO(-EPROTOTYPE, shale_map_open(segment, "block", NULL, &map));
	shale_map_close(NULL);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(map_open, maps_of_different_names_are_apart_and_outlive_their_handles)
{
	struct shale_segment *segment = small();
	struct shale_map *a = map_named(segment, "a", 100), *b = map_named(segment, "b", 1);
	struct shale_map *again;
	uint64_t value = 0;

	for (uint64_t i = 0; i < 40; i++) {
		ASSERT_EQ(put_u64(a, i, i * 2), 0);
		ASSERT_EQ(put_u64(b, i, i * 3), 0);
	}
	shale_map_close(a);
	shale_map_close(b);
	again = map_named(segment, "a", 7); /* the size of a map that is there is its own */
	EXPECT_EQ(shale_map_count(again), 40);
	EXPECT_EQ(get_u64(again, 9, &value), 0);
	EXPECT_EQ(value, 18);
	shale_map_close(again);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* A map that cannot take more says so, changes nothing, and works on. */
TEST(map_open, a_full_chain_answers_enospc)
{
	struct shale_segment *segment = small();
	struct shale_map *map = map_named(segment, "one", 1);
	struct shale_heap_figures full;
	uint64_t count = 0, value = 0;

	while (put_u64(map, count, count) == 0)
		count++;
	EXPECT_EQ(count, 49); /* seven buckets with a link each and one without */
	full = heap_counts(segment);
	EXPECT_ERRNO(-ENOSPC, put_u64(map, count, 1));
	EXPECT_EQ(heap_counts(segment).live_blocks, full.live_blocks);
	EXPECT_EQ(shale_map_count(map), count);
	EXPECT_EQ(put_u64(map, 3, 77), 1);
	EXPECT_EQ(get_u64(map, 3, &value), 0);
	EXPECT_EQ(value, 77);
	EXPECT_EQ(delete_u64(map, 5), 0);
	EXPECT_EQ(put_u64(map, count, 1), 0);
	EXPECT_ERRNO(-ENOSPC, put_u64(map, 5, 1));
	shale_map_close(map);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(map_open, a_heap_without_room_answers_enomem_and_keeps_what_it_has)
{
	static char big[100000];
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	struct shale_map *map = map_named(segment, "m", 1000);
	uint64_t count = 0, key = 0;
	size_t got;

	while (shale_map_put(map, &count, sizeof(count), big, sizeof(big)) == 0)
		count++;
	EXPECT_GT(count, 20);
	EXPECT_ERRNO(-ENOMEM, shale_map_put(map, &key, sizeof(key), big, sizeof(big)));
	EXPECT_EQ(shale_map_count(map), count);
	EXPECT_ERRNO(-EMSGSIZE, shale_map_get(map, &key, sizeof(key), NULL, 0, &got));
	EXPECT_EQ(delete_u64(map, 0), 0);
	EXPECT_EQ(shale_map_put(map, &key, sizeof(key), big, sizeof(big)), 0);
	shale_map_close(map);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(map_open, a_read_only_view_reads_and_refuses_to_write)
{
	struct shale_segment *segment = small(), *view = NULL;
	struct shale_map *map = map_named(segment, "m", 100), *reader = NULL;
	struct shale_attach_options options = {.size = sizeof(options), .read_only = true};
	struct shale_map_cursor cursor;
	size_t key_size, value_size;
	uint64_t key, value = 0;

	ASSERT_EQ(put_u64(map, 1, 11), 0);
	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), &options, &view));
	EXPECT_ERRNO(-EROFS, shale_map_open(view, "other", NULL, &reader));
	ASSERT_OK(shale_map_open(view, "m", NULL, &reader));
	EXPECT_EQ(get_u64(reader, 1, &value), 0);
	EXPECT_EQ(value, 11);
	EXPECT_EQ(shale_map_count(reader), 1);
	shale_map_cursor_init(&cursor);
	EXPECT_EQ(
		shale_map_cursor_next(reader, &cursor, &key, 8, &key_size, &value, 8, &value_size),
		1);
	EXPECT_EQ(key, 1);
	EXPECT_EQ(
		shale_map_cursor_next(reader, &cursor, &key, 8, &key_size, &value, 8, &value_size),
		0);
	EXPECT_ERRNO(-EROFS, put_u64(reader, 1, 12));
	EXPECT_ERRNO(-EROFS, delete_u64(reader, 1));
	EXPECT_ERRNO(-EROFS, insert_text(reader, "x", "y"));
	shale_map_close(reader);
	EXPECT_OK(shale_segment_detach(view));
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}
