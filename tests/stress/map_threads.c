/* Threads of one process race on few keys through one handle: every value stays whole. */
#include <pthread.h>

#include "maps.h"

enum { KEYS = 5, VALUE_MAX = 200, THREADS = 4 };

struct racer {
	struct shale_map *map;
	uint64_t random;
	unsigned rounds;
	pthread_t thread;
};

static void race_write(struct racer *racer, uint64_t key)
{
	unsigned char value[VALUE_MAX];
	uint64_t number = test_random_next(&racer->random);
	size_t size = self_fill(value, number, VALUE_MAX);

	switch (test_random_next(&racer->random) % 4) {
	case 0:
		(void)delete_u64(racer->map, key);
		break;
	case 1:
		(void)shale_map_insert(racer->map, &key, sizeof(key), value, size);
		break;
	default:
		EXPECT_OK(shale_map_put(racer->map, &key, sizeof(key), value, size));
	}
}

static void race_read(struct racer *racer, uint64_t key)
{
	unsigned char value[VALUE_MAX];
	size_t size = 0;
	int r = shale_map_get(racer->map, &key, sizeof(key), value, sizeof(value), &size);

	EXPECT_TRUE(r == -ENOENT || (r == 0 && self_holds(value, size, VALUE_MAX)));
}

static void race_scan(struct racer *racer)
{
	unsigned char value[VALUE_MAX];
	struct shale_map_cursor cursor;
	size_t key_size, size;
	unsigned count = 0;
	uint64_t key;

	shale_map_cursor_init(&cursor);
	while (shale_map_cursor_next(racer->map, &cursor, &key, sizeof(key), &key_size, value,
				     sizeof(value), &size) == 1) {
		EXPECT_TRUE(self_holds(value, size, VALUE_MAX));
		count++;
	}
	EXPECT_LE(count, KEYS);
}

static void *race(void *context)
{
	struct racer *racer = context;

	for (unsigned i = 0; i < racer->rounds; i++) {
		uint64_t key = test_random_next(&racer->random) % KEYS;

		race_write(racer, key);
		race_read(racer, key);
		if (i % 32 == 0)
			race_scan(racer);
	}
	return NULL;
}

TEST_TIMEOUT(map_threads, race_on_few_keys, 100)
{
	struct shale_segment *segment = heap_segment(16u << 20, SHALE_PAGES_4K);
	struct shale_map *map = map_named(segment, "m", 1);
	struct racer racers[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		racers[i] = (struct racer){.map = map,
					   .random = test_random_u64(),
					   .rounds = (unsigned)TEST_ROUNDS(3000, 200000)};
		ASSERT_EQ(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_join(racers[i].thread, NULL), 0);
	heap_expect_clean(segment);
	for (uint64_t key = 0; key < KEYS; key++)
		(void)delete_u64(map, key);
	EXPECT_EQ(shale_map_count(map), 0);
	heap_expect_clean(segment);
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}
