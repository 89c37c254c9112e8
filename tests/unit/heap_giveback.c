/* When empty arenas go back: decay by a clock that the test sets, the kept one, trim, pins, maps. */
#include <string.h>
#include <sys/mman.h>

#include <shale/map.h>

#include "heap/giveback.h"
#include "heap/heap_lane.h"
#include "heap/pin.h"
#include "heap/slab.h"
#include "heap/span_cache.h"
#include "heaps.h"

#define ARENA ((size_t)ARENA_SIZE)

static struct lane *lane_of(struct shale_segment *segment)
{
	struct lane *lane = NULL;

	ASSERT_OK(lane_enter(segment, &lane));
	ASSERT_OK(heap_setup_lane(lane));
	return lane;
}

static uint64_t committed(struct shale_segment *segment)
{
	return heap_counts(segment).committed_bytes;
}

/* A segment with `count` empty committed arenas, stamped at `ms`. */
static struct shale_segment *with_empty(enum shale_pages pages, unsigned count, uint32_t ms)
{
	struct shale_segment *segment = heap_segment(64u << 20, pages);
	void *block;

	giveback_test_clock(ms);
	block = shale_alloc(segment, count * ARENA);
	ASSERT_NOT_NULL(block);
	memset(block, 1, count * ARENA);
	ASSERT_OK(shale_free(segment, block));
	(void)span_steal_cached(lane_of(segment), true);
	ASSERT_EQ(committed(segment), count * ARENA);
	for (unsigned i = 0; i < count; i++)
		giveback_note_empty(segment, i);
	return segment;
}

static struct giveback_done decay(struct shale_segment *segment)
{
	struct giveback_wish wish = {.decay_ms = GIVEBACK_DECAY_MS, .keep = 1};
	struct giveback_done done;

	giveback_arenas(lane_of(segment), &wish, &done);
	heap_expect_clean(segment);
	return done;
}

VARIANT_SET(page_kinds) = {{"4k", SHALE_PAGES_4K, NULL},
			   {"thp", SHALE_PAGES_THP, NULL},
			   {"2m", SHALE_PAGES_2M, NULL},
			   {"private", SHALE_PAGES_PRIVATE, NULL}};

TEST_V(heap_giveback, arenas_go_within_a_quarter_of_the_decay_time_but_one, page_kinds)
{
	struct shale_segment *segment = with_empty((enum shale_pages)variant->value, 16, 5000);
	struct giveback_done done = decay(segment);
	uint64_t gone = 0;
	unsigned steps = 0;

	EXPECT_EQ(done.arenas, 0);
	EXPECT_GE(done.next_ms, 750);
	for (uint32_t ms = 5740; ms <= 6250; ms += 10) {
		giveback_test_clock(ms);
		done = decay(segment);
		steps += done.arenas > 0;
		gone += done.arenas;
		EXPECT_EQ(done.error, 0);
		EXPECT_TRUE(ms >= 5750 || gone == 0);
	}
	EXPECT_EQ(gone, 15);
	EXPECT_GT(steps, 4); /* not all at the same instant */
	EXPECT_EQ(done.next_ms, GIVEBACK_NEVER);
	EXPECT_EQ(committed(segment), ARENA);
	EXPECT_EQ(heap_counts(segment).returned_bytes, 15 * ARENA);
	EXPECT_EQ(heap_counts(segment).releases, 15);
	giveback_test_clock(1u << 30);
	EXPECT_EQ(decay(segment).arenas, 0);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_giveback, next_says_when_the_first_one_goes)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 8, 1000);
	uint32_t next = decay(segment).next_ms;

	ASSERT_LE(next, 1250);
	giveback_test_clock(1000 + next - 1);
	EXPECT_EQ(decay(segment).arenas, 0);
	giveback_test_clock(1000 + next);
	EXPECT_GE(decay(segment).arenas, 1);
	EXPECT_OK(shale_segment_detach(segment));
}

/* The low 32 bits of the clock come around after 49 days. */
TEST(heap_giveback, the_clock_may_wrap)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 4, UINT32_MAX - 100);

	EXPECT_EQ(decay(segment).arenas, 0);
	giveback_test_clock(600);
	EXPECT_EQ(decay(segment).arenas, 0);
	giveback_test_clock(1200);
	EXPECT_EQ(decay(segment).arenas, 3);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_giveback, an_arena_of_unknown_age_starts_now)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 4, 1000);

	for (unsigned i = 0; i < 4; i++)
		heap_arena(segment, i)->empty_since_ms = 0;
	giveback_test_clock(9000);
	EXPECT_EQ(decay(segment).arenas, 0);
	giveback_test_clock(10251);
	EXPECT_EQ(decay(segment).arenas, 3);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_giveback, a_tick_is_rare_and_does_little)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 12, 1000);
	struct lane *lane = lane_of(segment);

	giveback_test_clock(3000);
	giveback_tick(lane);
	EXPECT_EQ(committed(segment), (12 - GIVEBACK_TICK_MAX) * ARENA);
	giveback_test_clock(3000 + GIVEBACK_TICK_MS - 1);
	giveback_tick(lane);
	EXPECT_EQ(committed(segment), (12 - GIVEBACK_TICK_MAX) * ARENA);
	for (unsigned i = 1; i < 12; i++) {
		giveback_test_clock(3000 + i * GIVEBACK_TICK_MS);
		giveback_tick(lane);
	}
	EXPECT_EQ(committed(segment), ARENA);
	EXPECT_OK(shale_segment_detach(segment));
}

/* With a keeper somewhere the callers give it twice the time. */
TEST(heap_giveback, ticks_leave_it_to_a_keeper_at_first)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 4, 1000);
	struct lane *lane = lane_of(segment);

	store_relaxed(&view_hints(segment)->keeper, 77u);
	giveback_test_clock(2400);
	giveback_tick(lane);
	EXPECT_EQ(committed(segment), 4 * ARENA);
	giveback_test_clock(3600);
	giveback_tick(lane);
	EXPECT_EQ(committed(segment), ARENA);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- the real clock: nothing decays while it is in use ----------------------------------------------- */

enum { ROUNDS = 10000 };

/* One arena's worth in blocks of one size; sizes above 32 KiB are spans. */
static void fill_and_free(struct shale_segment *segment, size_t size)
{
	static void *blocks[ARENA_SIZE / 1024];
	unsigned count = (unsigned)(ARENA / size);

	for (unsigned i = 0; i < count; i++) {
		blocks[i] = shale_alloc(segment, size);
		ASSERT_NOT_NULL(blocks[i]);
	}
	for (unsigned i = 0; i < count; i++)
		ASSERT_OK(shale_free(segment, blocks[i]));
}

VARIANT_SET(sizes) = {{"1k", 1024, NULL},
		      {"32k", 32768, NULL},
		      {"64k", 65536, NULL},
		      {"1m", 1 << 20, NULL},
		      {"2m", 2 << 20, NULL}};

TEST_V_TIMEOUT(heap_giveback, one_arena_again_and_again_is_not_released, sizes, 120)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);

	for (unsigned i = 0; i < ROUNDS; i++)
		fill_and_free(segment, (size_t)variant->value);
	EXPECT_LE(heap_counts(segment).releases, 1);
	EXPECT_LE(committed(segment), 3 * ARENA);
	EXPECT_OK(shale_segment_detach(segment));
}

/* The same with the cache taken apart each time, and the clock running at 100 ms a round. */
TEST_V_TIMEOUT(heap_giveback, one_arena_emptied_each_time_is_not_released, sizes, 120)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);

	for (unsigned i = 0; i < ROUNDS; i++) {
		giveback_test_clock(100 + 100 * i);
		fill_and_free(segment, (size_t)variant->value);
		slab_release_empty(lane_of(segment), false);
		giveback_tick(lane_of(segment));
	}
	EXPECT_LE(heap_counts(segment).releases, 1);
	EXPECT_LE(committed(segment), 3 * ARENA);
	EXPECT_OK(shale_segment_detach(segment));
}

/* Nobody has a keeper, one thread goes on working a little: a burst goes back through its ticks. */
TEST(heap_giveback, ticks_alone_give_a_burst_back)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	uint32_t ms = 1000;

	giveback_test_clock(ms);
	fill_and_free(segment, 1024);
	ASSERT_OK(shale_free(segment, shale_alloc(segment, 100u << 20)));
	EXPECT_GE(committed(segment), 50 * ARENA);
	for (; ms < 4000; ms += 20) {
		giveback_test_clock(ms);
		fill_and_free(segment, 32768);
		slab_release_empty(lane_of(segment), false);
	}
	EXPECT_LE(committed(segment), 4 * ARENA);
	EXPECT_GE(heap_counts(segment).releases, 46);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- pins -------------------------------------------------------------------------------------- */

TEST_V(heap_giveback, a_pinned_arena_stays_whatever_is_asked, page_kinds)
{
	struct shale_segment *segment = with_empty((enum shale_pages)variant->value, 6, 1000);
	unsigned char *base = view_at(segment, segment->heap_offset);

	/* the end of arena 1, all of 2, the first byte of 3 */
	ASSERT_OK(shale_pin(segment, base + 2 * ARENA - 1, ARENA + 2));
	EXPECT_GE(shale_trim(segment, 0), (int64_t)(3 * ARENA));
	heap_expect_clean(segment);
	EXPECT_EQ(committed(segment), 3 * ARENA);
	EXPECT_EQ(base[2 * ARENA], 1);
	EXPECT_ERRNO(-ENOENT, shale_unpin(segment, base, ARENA));
	ASSERT_OK(shale_unpin(segment, base + 2 * ARENA - 1, ARENA + 2));
	EXPECT_ERRNO(-ENOENT, shale_unpin(segment, base + 2 * ARENA - 1, ARENA + 2));
	EXPECT_GE(shale_trim(segment, 0), (int64_t)(3 * ARENA));
	EXPECT_EQ(committed(segment), 0);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_giveback, pins_that_make_no_sense_are_refused)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 2, 1000);
	unsigned char *base = view_at(segment, segment->heap_offset);
	unsigned char elsewhere;

	EXPECT_ERRNO(-EINVAL, shale_pin(segment, base, 0));
	EXPECT_ERRNO(-EINVAL, shale_pin(segment, &elsewhere, 1));
	EXPECT_ERRNO(-EINVAL, shale_pin(segment, NULL, 1));
	EXPECT_ERRNO(-EINVAL, shale_pin(segment, base - 1, 2));
	EXPECT_ERRNO(-EINVAL, shale_pin(segment, base, SIZE_MAX));
	EXPECT_ERRNO(-EINVAL, shale_pin(segment, base, 3 * ARENA)); /* not committed */
	EXPECT_GE(shale_trim(segment, 0), (int64_t)(2 * ARENA));
	EXPECT_ERRNO(-EINVAL, shale_pin(segment, base, 1));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_giveback, pins_add_up_and_are_eight_a_lane)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 2, 1000);
	unsigned char *base = view_at(segment, segment->heap_offset);

	for (unsigned i = 0; i < LANE_PINS; i++)
		ASSERT_OK(shale_pin(segment, base, 1));
	EXPECT_ERRNO(-ENOSPC, shale_pin(segment, base, 1));
	for (unsigned i = 0; i < LANE_PINS; i++) {
		EXPECT_TRUE(arena_is_pinned(segment, 0));
		EXPECT_FALSE(arena_is_pinned(segment, 1));
		ASSERT_OK(shale_unpin(segment, base, 1));
	}
	EXPECT_FALSE(arena_is_pinned(segment, 0));
	EXPECT_OK(shale_segment_detach(segment));
}

/* Somebody is giving the arena back and does not come to an end. */
TEST(heap_giveback, a_pin_does_not_wait_for_ever)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 2, 1000);
	unsigned char *base = view_at(segment, segment->heap_offset);
	struct arena_shm *arena = heap_arena(segment, 0);
	uint64_t state = arena->state;

	store_seq_cst(&arena->state, ARENA_RETURNING | UINT64_C(1) << 12);
	EXPECT_ERRNO(-EBUSY, shale_pin(segment, base, 1));
	EXPECT_FALSE(arena_is_pinned(segment, 0));
	store_seq_cst(&arena->state, state);
	store_seq_cst(&arena->lease, UINT64_C(1) << 12 | 1);
	EXPECT_ERRNO(-EBUSY, shale_pin(segment, base, 1));
	store_seq_cst(&arena->lease, UINT64_C(0));
	EXPECT_OK(shale_pin(segment, base, 1));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_giveback, pins_of_a_forked_child_go_with_it)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_4K, 3, 1000);
	unsigned char *base = view_at(segment, segment->heap_offset);
	pid_t child = test_fork();

	if (child == 0) {
		ASSERT_OK(shale_pin(segment, base, 1));
		/* the other two; all three after its death */
		EXPECT_GE(shale_trim(segment, 0), (int64_t)(2 * ARENA));
		EXPECT_EQ(committed(segment), ARENA);
		test_child_exit();
	}
	test_join(child, 10000);
	EXPECT_GE(shale_trim(segment, 0), 0);
	EXPECT_EQ(committed(segment), ARENA);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_GE(shale_trim(segment, 0), (int64_t)ARENA);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- huge pages ---------------------------------------------------------------------------------- */

TEST_V(heap_giveback, on_hugetlb_nothing_goes_unasked_once_there_is_a_map, page_kinds)
{
	struct shale_segment *segment = with_empty((enum shale_pages)variant->value, 8, 1000);
	bool stays = variant->value == SHALE_PAGES_2M;
	struct shale_map *map = NULL;
	uint64_t before;

	ASSERT_OK(shale_map_open(segment, "map", NULL, &map));
	before = committed(segment);
	giveback_test_clock(9000);
	EXPECT_EQ(decay(segment).arenas > 0, !stays);
	EXPECT_EQ(committed(segment) == before, stays);
	shale_map_close(map);
	EXPECT_GE(shale_trim(segment, 0), 0);
	EXPECT_LT(committed(segment), before);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- private memory ------------------------------------------------------------------------------ */

static unsigned resident(void *base, size_t size)
{
	static unsigned char pages[64 * 512];
	unsigned count = 0;

	ASSERT_LE(size / 4096, sizeof(pages));
	ASSERT_SYS(mincore(base, size, pages));
	for (size_t i = 0; i < size / 4096; i++)
		count += pages[i] & 1;
	return count;
}

TEST(heap_giveback, private_memory_goes_back_and_comes_as_zeroes)
{
	struct shale_segment *segment = with_empty(SHALE_PAGES_PRIVATE, 4, 1000);
	unsigned char *base = view_at(segment, segment->heap_offset);
	unsigned char *block;

	EXPECT_EQ(resident(base, 4 * ARENA), 2048);
	EXPECT_GE(shale_trim(segment, 0), (int64_t)(4 * ARENA));
	EXPECT_EQ(resident(base, 4 * ARENA), 0);
	block = shale_alloc(segment, 3 * ARENA);
	ASSERT_NOT_NULL(block);
	for (size_t i = 0; i < 3 * ARENA; i += 512)
		ASSERT_EQ(block[i], 0);
	EXPECT_OK(shale_segment_detach(segment));
}
