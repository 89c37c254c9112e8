/*
 * Ranking: classes, finding, repair, and that its work does not grow with the number of arenas.
 *
 * rank.c is compiled into this program a second time, under other names and counting the words that
 * it reads. 100,000 arenas are marked as committed in a sparse segment and have no memory: only the
 * arena table is touched.
 */
#define RANK_COUNT     1
#define rank_of_free   counted_rank_of_free
#define rank_with_room counted_rank_with_room
#define rank_free_mask counted_rank_free_mask
#define rank_update    counted_rank_update
#define rank_announce  counted_rank_announce
#define rank_set_node  counted_rank_set_node
#define rank_next      counted_rank_next
#define rank_bits      counted_rank_bits
#define rank_repair    counted_rank_repair
#include "../../src/heap/rank.c"

#include "heaps.h"

#define MANY 100000u

static struct shale_segment *segment_of(uint64_t arenas, uint64_t marked)
{
	struct shale_segment *segment = heap_segment(arenas * ARENA_SIZE, SHALE_PAGES_PRIVATE);

	for (uint64_t arena = 0; arena < marked; arena++)
		heap_arena(segment, arena)->state = ARENA_COMMITTED;
	view_hints(segment)->arena_high = (uint32_t)marked;
	return segment;
}

/* Gives the arena that many free slabs: the first ones. */
static void set_free(struct shale_segment *segment, uint64_t arena, unsigned free_slabs)
{
	for (unsigned i = 0; i < SLABS_PER_ARENA; i++)
		heap_arena(segment, arena)->word[i] = i < free_slabs ? SLAB_FREE : SLAB_OWNED;
	(void)rank_update(segment, arena);
}

/* The first arena of the lowest class from `rank` on, or UINT64_MAX. */
static uint64_t fullest(struct shale_segment *segment, unsigned rank)
{
	uint64_t arena;

	for (; rank <= RANK_EMPTY; rank++)
		if (rank_next(segment, rank, 0, 0, &arena))
			return arena;
	return UINT64_MAX;
}

TEST(rank, has_a_class_for_each_number_of_free_slabs)
{
	static const struct {
		unsigned first, last;
	} classes[] = {{1, 2}, {3, 4}, {5, 8}, {9, 16}, {17, 24}, {25, 31}, {32, 32}};

	EXPECT_EQ(rank_of_free(0), RANK_NOWHERE);
	for (unsigned i = 0; i < ARRAY_SIZE(classes); i++)
		for (unsigned n = classes[i].first; n <= classes[i].last; n++) {
			EXPECT_EQ(rank_of_free(n), i + 1);
			EXPECT_EQ(rank_with_room(n), i + 1);
		}
}

TEST(rank, finds_the_fullest_and_the_first_of_them)
{
	struct shale_segment *segment = segment_of(9000, 9000);

	EXPECT_EQ(fullest(segment, RANK_FULLEST), UINT64_MAX);
	set_free(segment, 8999, 32);
	EXPECT_EQ(fullest(segment, RANK_FULLEST), 8999);
	set_free(segment, 4097, 17);
	EXPECT_EQ(fullest(segment, RANK_FULLEST), 4097);
	set_free(segment, 4096, 24);
	EXPECT_EQ(fullest(segment, RANK_FULLEST), 4096);
	set_free(segment, 70, 1);
	EXPECT_EQ(fullest(segment, RANK_FULLEST), 70);
	EXPECT_EQ(fullest(segment, 2), 4096);
	set_free(segment, 70, 0);
	set_free(segment, 4096, 0);
	EXPECT_EQ(fullest(segment, RANK_FULLEST), 4097);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(rank, goes_through_a_class_in_order)
{
	struct shale_segment *segment = segment_of(20000, 20000);
	uint64_t arena, from = 0, expected = 3;

	for (uint64_t i = 3; i < 20000; i += 61)
		set_free(segment, i, 4);
	for (; rank_next(segment, 2, from, 0, &arena); from = arena + 1, expected += 61)
		ASSERT_EQ(arena, expected);
	EXPECT_GE(expected, 20000);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(rank, follows_the_state_of_an_arena)
{
	struct shale_segment *segment = segment_of(10, 10);
	uint64_t arena;

	EXPECT_EQ(rank_update(segment, 3), RANK_EMPTY);
	heap_arena(segment, 3)->state = ARENA_RETURNING;
	EXPECT_EQ(rank_update(segment, 3), RANK_NOWHERE);
	EXPECT_EQ(fullest(segment, RANK_FULLEST), UINT64_MAX);
	heap_arena(segment, 3)->state = ARENA_NONE;
	EXPECT_EQ(rank_update(segment, 3), RANK_UNCOMMITTED);
	EXPECT_TRUE(rank_next(segment, RANK_UNCOMMITTED, 0, 0, &arena));
	EXPECT_EQ(arena, 3);
	EXPECT_EQ(rank_bits(segment, RANK_UNCOMMITTED, 0), 8);
	EXPECT_OK(shale_segment_detach(segment));
}

/* What lies above the mark is not in memory: a bit there, by a lying peer or a death, is not followed. */
TEST(rank, does_not_look_above_the_mark)
{
	struct shale_segment *segment = segment_of(10000, 130);
	uint64_t arena;

	view_hints(segment)->rank_top[1] = UINT64_MAX;
	heap_arena(segment, 0)->rank_supergroups[1] = UINT64_MAX;
	heap_arena(segment, 0)->rank_groups[1] = UINT64_MAX;
	heap_arena(segment, 128)->rank_arenas[1] = ~UINT64_C(3);
	EXPECT_FALSE(rank_next(segment, 1, 0, 0, &arena));
	heap_arena(segment, 128)->rank_arenas[1] = UINT64_MAX;
	EXPECT_TRUE(rank_next(segment, 1, 0, 0, &arena));
	EXPECT_EQ(arena, 128);
	EXPECT_TRUE(rank_next(segment, 1, 129, 0, &arena));
	EXPECT_FALSE(rank_next(segment, 1, 130, 0, &arena));
	EXPECT_EQ(rank_bits(segment, 1, 128), 3);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(rank, clears_bits_that_lead_nowhere)
{
	struct shale_segment *segment = segment_of(9000, 9000);
	uint64_t arena;

	view_hints(segment)->rank_top[1] = 1;
	heap_arena(segment, 0)->rank_supergroups[1] = 7;
	heap_arena(segment, 4096)->rank_groups[1] = UINT64_MAX;
	EXPECT_FALSE(rank_next(segment, 1, 0, 0, &arena));
	EXPECT_EQ(heap_arena(segment, 4096)->rank_groups[1], 0);
	EXPECT_EQ(heap_arena(segment, 0)->rank_supergroups[1], 0);
	EXPECT_EQ(view_hints(segment)->rank_top[1], 0);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(rank, repairs_bits_that_say_too_little)
{
	struct shale_segment *segment = segment_of(9000, 9000);

	for (uint64_t arena = 0; arena < 9000; arena++)
		set_free(segment, arena, 0);
	set_free(segment, 8000, 5);
	heap_arena(segment, 0)->rank_supergroups[3] = 0;
	EXPECT_EQ(fullest(segment, RANK_FULLEST), UINT64_MAX);
	rank_repair(segment);
	EXPECT_EQ(fullest(segment, RANK_FULLEST), 8000);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(rank, looks_on_one_node_only)
{
	struct shale_segment *segment = segment_of(9000, 9000);
	uint64_t arena;

	for (uint64_t i = 0; i < 9000; i += 100) {
		heap_arena(segment, i)->node = i < 5000 ? 1 : 2;
		rank_set_node(segment, i, i < 5000 ? 1 : 2);
		set_free(segment, i, 1);
	}
	EXPECT_TRUE(rank_next(segment, 1, 0, 1, &arena));
	EXPECT_EQ(arena, 0);
	EXPECT_TRUE(rank_next(segment, 1, 0, 2, &arena));
	EXPECT_EQ(arena, 5000);
	EXPECT_FALSE(rank_next(segment, 1, 0, 3, &arena));
	EXPECT_TRUE(rank_next(segment, 1, 4950, 0, &arena));
	EXPECT_EQ(arena, 5000);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- work ---------------------------------------------------------------------------------------- */

/*
 * 100,000 arenas, full; slab by slab they become free, one slab of each arena after the other, so
 * that each free changes another arena, far from the last, and all of them walk through all classes
 * together. After each free the fullest is looked for, as an allocation would.
 */
static uint64_t looks_to_empty(uint64_t arenas)
{
	struct shale_segment *segment = segment_of(arenas, arenas);

	for (uint64_t arena = 0; arena < arenas; arena++)
		set_free(segment, arena, 0);
	rank_looks = 0;
	for (unsigned slab = 0; slab < SLABS_PER_ARENA; slab++)
		for (uint64_t i = 0; i < arenas; i++) {
			/* 7919 is a prime: all of them, in an order without neighbours */
			uint64_t arena = i * 7919 % arenas;

			heap_arena(segment, arena)->word[slab] = SLAB_FREE;
			(void)rank_update(segment, arena);
			if (fullest(segment, RANK_FULLEST) == UINT64_MAX)
				TEST_FAIL("nothing found after %u of slab %u", (unsigned)i, slab);
		}
	EXPECT_EQ(fullest(segment, RANK_FULLEST), 0);
	EXPECT_FALSE(fullest(segment, RANK_FULLEST) == UINT64_MAX);
	for (unsigned rank = RANK_FULLEST; rank < RANK_EMPTY; rank++) {
		uint64_t arena;

		EXPECT_FALSE(rank_next(segment, rank, 0, 0, &arena));
	}
	EXPECT_OK(shale_segment_detach(segment));
	return rank_looks;
}

TEST(rank, takes_linear_time_for_100000_arenas_in_the_worst_order)
{
	uint64_t few = looks_to_empty(MANY / 100);
	uint64_t many = looks_to_empty(MANY);

	TEST_LOG("words looked at for each slab that became free: %.1f and %.1f",
		 (double)few / (MANY / 100 * SLABS_PER_ARENA),
		 (double)many / (MANY * (double)SLABS_PER_ARENA));
	EXPECT_LE(many, few * 100 * 12 / 10);
	EXPECT_LE(many, MANY * UINT64_C(32) * SLABS_PER_ARENA);
}
