/*
 * A peer that writes anything anywhere into a map: others may get any answer, but no signal, no hang,
 * and nothing outside the segment. Each scene changes bytes of buckets, records or the root, and then
 * calls everything.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "map/map.h"
#include "maps.h"

enum { KEYS = 20 };

struct victim {
	struct shale_segment *segment;
	struct shale_map *map;
	unsigned char *base;
};

static struct victim victim_make(uint64_t expected)
{
	struct victim victim = {.segment = heap_segment(4u << 20, SHALE_PAGES_4K)};

	victim.base = shale_segment_base(victim.segment);
	victim.map = map_named(victim.segment, "m", expected);
	for (uint64_t i = 0; i < KEYS; i++)
		ASSERT_EQ(put_u64(victim.map, i, i), 0);
	ASSERT_EQ(put_text(victim.map, "a longer key", "a longer value than a cell holds"), 0);
	return victim;
}

static void call_everything(struct victim *victim)
{
	struct shale_map_cursor cursor;
	size_t key_size, value_size;
	char key[64], value[64];
	unsigned seen = 0;

	for (uint64_t i = 0; i < KEYS + 2; i++) {
		uint64_t number;

		(void)get_u64(victim->map, i, &number);
		(void)put_u64(victim->map, i, i + 1);
		if (i % 3 == 0)
			(void)delete_u64(victim->map, i);
	}
	(void)get_text(victim->map, "a longer key", value, sizeof(value));
	(void)put_text(victim->map, "a longer key", "another");
	(void)shale_map_count(victim->map);
	shale_map_cursor_init(&cursor);
	while (shale_map_cursor_next(victim->map, &cursor, key, sizeof(key), &key_size, value,
				     sizeof(value), &value_size) == 1 &&
	       seen++ < 10000)
		;
	(void)shale_check(victim->segment, NULL, NULL);
	(void)shale_recover(victim->segment);
}

/* In a process of its own, that must end by itself. */
static void expect_survives(struct victim *victim, const char *what, uint64_t offset)
{
	pid_t pid = test_fork();
	int status = 0;

	ASSERT_SYS(pid);
	if (pid == 0) {
		call_everything(victim);
		_exit(0);
	}
	if (test_reap(pid, 20000, &status) < 0) {
		kill(pid, 9);
		waitpid(pid, &status, 0);
		TEST_FAIL("%s at %llu: hangs", what, (unsigned long long)offset);
	} else if (status != 0) {
		TEST_FAIL("%s at %llu: status 0x%x", what, (unsigned long long)offset,
			  (unsigned)status);
	}
}

static uint64_t any_ref(struct victim *victim)
{
	static const uint64_t special[] = {0, 16, UINT64_MAX, UINT64_C(1) << 44, 4096};

	switch (test_random_below(3)) {
	case 0:
		return special[test_random_below(5)];
	case 1:
		return victim->map->table + test_random_below(4096) * 16;
	default:
		return test_random_u64();
	}
}

/* A word that could be meant, or one that could not. */
static uint64_t any_word(struct victim *victim)
{
	switch (test_random_below(6)) {
	case 0:
		return test_random_u64();
	case 1:
		return slot_with_ref(test_random_below(8), any_ref(victim));
	case 2:
		return slot_link(victim->map->table); /* a chain that goes round */
	case 3:
		return gate_pending(test_random_below(100) << 22, (uint32_t)test_random_below(9),
				    (enum gate_op)test_random_below(2),
				    (unsigned)test_random_below(64));
	case 4:
		return any_ref(victim) | test_random_below(4);
	default:
		return test_random_below(16);
	}
}

/* The heap's part that holds anything: table, children, records, roots' records. */
static uint64_t any_place(struct victim *victim)
{
	struct bucket_shm *bucket = bucket_at(victim->segment, victim->map->table);
	uint64_t word = bucket->slot[test_random_below(BUCKET_SLOTS)];

	switch (test_random_below(4)) {
	case 0:
		return victim->map->table + test_random_below(8) * 8;
	case 1:
		if (slot_kind(word) != SLOT_EMPTY)
			return slot_ref(word) + test_random_below(8) * 8;
		return victim->map->table + test_random_below(8) * 8;
	case 2:
		return victim->map->root + 64 + test_random_below(8) * 8;
	default:
		return view_lane(victim->segment, 1 + (uint32_t)test_random_below(2)) == NULL
			       ? 0
			       : victim->segment->lanes_offset + 512 + test_random_below(128) * 8;
	}
}

static void mutate_word(struct victim *victim)
{
	uint64_t place = any_place(victim);
	uint64_t word = any_word(victim);

	if (range_fits(place, sizeof(word), victim->segment->file_size))
		memcpy(victim->base + place, &word, sizeof(word));
}

/* Every byte of the first bucket and of one record, to a few values each. */
TEST_TIMEOUT(map_mutation, every_byte_of_a_bucket_and_of_a_record, 110)
{
	static const unsigned char values[] = {0, 1, 0x80, 0xff};
	unsigned step = (unsigned)TEST_ROUNDS(3, 1);

	for (unsigned byte = (unsigned)test_random_below(step); byte < 128; byte += step) {
		for (unsigned i = 0; i < sizeof(values); i++) {
			struct victim victim = victim_make(1);
			struct bucket_shm *bucket = bucket_at(victim.segment, victim.map->table);
			unsigned char *place =
				byte < 64 ? (unsigned char *)bucket + byte
					  : victim.base + slot_ref(bucket->slot[2]) + byte - 64;

			*place = values[i] == 1 ? (unsigned char)(*place ^ 1) : values[i];
			expect_survives(&victim, "byte", byte);
			shale_map_close(victim.map);
			ASSERT_OK(shale_segment_detach(victim.segment));
		}
	}
}

TEST_TIMEOUT(map_mutation, words_of_chance_anywhere, 110)
{
	unsigned rounds = (unsigned)TEST_ROUNDS(300, 20000);

	for (unsigned round = 0; round < rounds; round++) {
		struct victim victim = victim_make(round % 2 ? 1 : 100);
		unsigned words = 1 + (unsigned)test_random_below(4);

		for (unsigned i = 0; i < words; i++)
			mutate_word(&victim);
		expect_survives(&victim, "words, round", round);
		shale_map_close(victim.map);
		(void)shale_segment_detach(victim.segment);
	}
}

/* The last version of a gate: no insert any more, everything else works. */
TEST(map_mutation, the_last_version_of_a_gate)
{
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	struct shale_map *map = map_named(segment, "m", 1);
	struct bucket_shm *bucket = bucket_at(segment, map->table);
	uint64_t value = 0;

	ASSERT_EQ(put_u64(map, 1, 1), 0);
	bucket->gate = (GATE_VERSION_MAX - 1) << GATE_VERSION_SHIFT;
	EXPECT_EQ(put_u64(map, 2, 2), 0);
	EXPECT_ERRNO(-ENOSPC, put_u64(map, 3, 3));
	EXPECT_EQ(put_u64(map, 1, 11), 1);
	EXPECT_EQ(delete_u64(map, 2), 0);
	EXPECT_ERRNO(-ENOSPC, put_u64(map, 2, 2));
	EXPECT_EQ(get_u64(map, 1, &value), 0);
	EXPECT_EQ(value, 11);
	EXPECT_EQ(delete_u64(map, 1), 0);
	heap_expect_clean(segment);
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}
