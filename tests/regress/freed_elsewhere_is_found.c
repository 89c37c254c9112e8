/*
 * Blocks that others freed, behind a hint that was cleared or lost, and orphans in which nothing
 * lives: both were missed before memory was said to have run out, and by shale_trim().
 */
#include <pthread.h>
#include <string.h>

#include "heap/slab.h"
#include "heaps.h"
#include "segment/lanes.h"
#include "segment/view.h"

#define CAPACITY (2u << 20)
#define BLOCKS   512u

struct work {
	struct shale_segment *segment;
	void *blocks[BLOCKS];
	unsigned step;
	bool lose_hints;
};

static void *free_some(void *argument)
{
	struct work *work = argument;

	for (unsigned i = 0; i < BLOCKS; i += work->step)
		ASSERT_OK(shale_free(work->segment, work->blocks[i]));
	if (work->lose_hints)
		/* as a collect does between a freer's store and its look at the hint */
		for (unsigned slab = 0; slab < SLABS_PER_ARENA; slab++)
			*slab_remote_hint(work->segment, slab) = 0;
	return NULL;
}

static void run_free_some(struct work *work)
{
	pthread_t thread;

	ASSERT_EQ(pthread_create(&thread, NULL, free_some, work), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
}

static void fill(struct work *work)
{
	work->segment = heap_segment(CAPACITY, SHALE_PAGES_4K);
	for (unsigned i = 0; i < BLOCKS; i++)
		ASSERT_NOT_NULL(work->blocks[i] = shale_alloc(work->segment, 4096));
	ASSERT_NULL(shale_alloc(work->segment, 4096));
}

TEST(freed_elsewhere_is_found, after_a_trim_has_collected_it)
{
	struct work work = {.step = 4};

	fill(&work);
	run_free_some(&work);
	EXPECT_EQ(shale_trim(work.segment, 0), BLOCKS / 4 * 4096);
	for (unsigned i = 0; i < BLOCKS / 4; i++)
		ASSERT_NOT_NULL(shale_alloc(work.segment, 4096));
	EXPECT_NULL(shale_alloc(work.segment, 4096));
	heap_expect_clean(work.segment);
	EXPECT_OK(shale_segment_detach(work.segment));
}

TEST(freed_elsewhere_is_found, although_its_hint_was_lost)
{
	struct work work = {.step = 4, .lose_hints = true};

	fill(&work);
	run_free_some(&work);
	for (unsigned i = 0; i < BLOCKS / 4; i++)
		ASSERT_NOT_NULL(shale_alloc(work.segment, 4096));
	EXPECT_NULL(shale_alloc(work.segment, 4096));
	EXPECT_OK(shale_segment_detach(work.segment));
}

TEST(freed_elsewhere_is_found, by_a_trim_although_its_hint_was_lost)
{
	struct work work = {.step = 1, .lose_hints = true};

	fill(&work);
	run_free_some(&work);
	/* the arena, and the facts of its slabs */
	EXPECT_GE(shale_trim(work.segment, 0), CAPACITY);
	EXPECT_EQ(heap_counts(work.segment).committed_bytes, 0);
	EXPECT_OK(shale_segment_detach(work.segment));
}

TEST(freed_elsewhere_is_found, in_an_arena_that_the_ranks_hide)
{
	struct shale_segment *segment = heap_segment(2 * CAPACITY, SHALE_PAGES_4K);

	ASSERT_NOT_NULL(shale_alloc(segment, CAPACITY - 1));
	ASSERT_NOT_NULL(shale_alloc(segment, CAPACITY / 2));
	/* as a death between two levels may leave it; or a lying peer */
	memset(view_hints(segment)->rank_top, 0, sizeof(view_hints(segment)->rank_top));
	EXPECT_NOT_NULL(shale_alloc(segment, 4096));
	EXPECT_OK(shale_segment_detach(segment));
}

/*
 * A dead producer's published blocks, all freed by us: nobody allocates in their bin any more. While we
 * free the last ones of their slabs, a name keeps us from taking these.
 */
static void leave_empty_orphans(struct work *work)
{
	struct lane *lane;
	pid_t child;
	void **list;

	work->segment = heap_segment(CAPACITY, SHALE_PAGES_4K);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		ASSERT_NOT_NULL(list = shale_alloc(work->segment, BLOCKS * sizeof(void *)));
		ASSERT_OK(shale_root_publish(work->segment, "list", list));
		for (unsigned i = 0; i < BLOCKS - 32; i++) {
			ASSERT_NOT_NULL(list[i] = shale_alloc(work->segment, 4096));
			ASSERT_OK(shale_publish(work->segment, list[i]));
		}
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	ASSERT_EQ(shale_recover(work->segment), 1);
	shale_ref ref;
	ASSERT_OK(shale_root_find(work->segment, "list", &ref));
	list = shale_ptr(work->segment, ref, BLOCKS * sizeof(void *));
	ASSERT_OK(lane_enter(work->segment, &lane));
	for (unsigned i = 0; i < BLOCKS - 32; i++)
		if (i % 16 == 0)
			retired_set(lane->shm, i / 16, shale_ref_of(work->segment, list[i]).off);
	for (unsigned i = 0; i < BLOCKS - 32; i++)
		ASSERT_OK(shale_free(work->segment, list[i])); /* same address: it was a fork */
	for (unsigned i = 0; i < LANE_RETIRED; i++)
		retired_set(lane->shm, i, 0);
}

TEST(freed_elsewhere_is_found, in_orphans_by_another_bin)
{
	struct work work = {0};

	leave_empty_orphans(&work);
	EXPECT_GT(heap_counts(work.segment).slabs_orphan, 28);
	for (unsigned i = 0; i < 28 * 8; i++)
		ASSERT_NOT_NULL(shale_alloc(work.segment, 8192));
	heap_expect_clean(work.segment);
	EXPECT_OK(shale_segment_detach(work.segment));
}

TEST(freed_elsewhere_is_found, in_orphans_by_a_span)
{
	struct work work = {0};

	leave_empty_orphans(&work);
	EXPECT_NOT_NULL(shale_alloc(work.segment, 28u << 16));
	heap_expect_clean(work.segment);
	EXPECT_OK(shale_segment_detach(work.segment));
}

TEST(freed_elsewhere_is_found, where_free_and_fresh_arenas_meet)
{
	struct shale_segment *segment = heap_segment(4 * CAPACITY, SHALE_PAGES_4K);
	void *first = shale_alloc(segment, CAPACITY), *second = shale_alloc(segment, CAPACITY);

	ASSERT_NOT_NULL(first);
	ASSERT_OK(shale_free(segment, second));
	/* arena 1 is committed and free, 2 and 3 are not committed */
	EXPECT_NOT_NULL(shale_alloc(segment, 3 * CAPACITY));
	EXPECT_OK(shale_segment_detach(segment));
}
