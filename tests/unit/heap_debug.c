/* Debug segments: poison, trailers, guarded blocks, who owns what. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/debug.h>
#include <shale/map.h>

#include "heaps.h"
#include "os/os.h"
#include "segment/view.h"

static struct shale_segment *segment;

static void open_debug(uint32_t debug, uint32_t sample, enum shale_pages pages)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 64u << 20,
		.pages = pages,
		.debug = debug,
		.guard_sample = sample,
	};

	ASSERT_OK(shale_segment_create(&options, &segment));
}

static void finish(void)
{
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

static struct shale_debug_figures figures(void)
{
	struct shale_debug_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_debug_stat(segment, &stat));
	return stat;
}

static const char *last_invariant;
static uint64_t last_offset;

static void note_finding(const struct shale_finding *finding, void *context)
{
	(void)context;
	last_invariant = finding->invariant;
	last_offset = finding->offset;
}

/* -- the options ---------------------------------------------------------------------------------- */

TEST(heap_debug, flags_are_seen_by_everyone)
{
	struct shale_attach_options options = {.size = sizeof(options), .read_only = true};
	struct shale_segment *other, *mine;

	open_debug(SHALE_DEBUG_POISON | SHALE_DEBUG_GUARD, 7, SHALE_PAGES_4K);
	EXPECT_EQ(figures().flags, SHALE_DEBUG_POISON | SHALE_DEBUG_GUARD);
	EXPECT_EQ(figures().guard_sample, 7);
	mine = segment;
	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), &options, &other));
	segment = other;
	EXPECT_EQ(figures().flags, SHALE_DEBUG_POISON | SHALE_DEBUG_GUARD);
	EXPECT_EQ(figures().guard_sample, 7);
	EXPECT_OK(shale_segment_detach(other));
	segment = mine;
	finish();
}

TEST(heap_debug, unknown_flags_are_refused)
{
	struct shale_segment_options options = {.size = sizeof(options), .debug = 8};

	EXPECT_ERRNO(-EINVAL, shale_segment_create(&options, &segment));
}

TEST(heap_debug, a_segment_without_flags_knows_sizes_only)
{
	struct shale_size_row rows[100];
	struct shale_block block;
	void *ptr;

	segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	ptr = shale_alloc(segment, 100);
	EXPECT_NOT_NULL(shale_alloc(segment, 300000));
	EXPECT_EQ(figures().flags, 0);
	EXPECT_ERRNO(-ENODATA, shale_debug_block(segment, ptr, &block));
	EXPECT_EQ(shale_debug_walk(segment, NULL, NULL), 2);
	ASSERT_EQ(shale_debug_sizes(segment, rows, 100), 73);
	EXPECT_EQ(rows[6].block_bytes, 112);
	EXPECT_EQ(rows[6].blocks, 1);
	EXPECT_EQ(rows[6].requested_bytes, 112);
	EXPECT_EQ(rows[72].blocks, 1);
	EXPECT_EQ(rows[72].usable_bytes, 5 * 65536);
	finish();
}

/* -- everything still works ------------------------------------------------------------------------- */

VARIANT_SET(pages) = {{"4k", SHALE_PAGES_4K, NULL},
		      {"2m", SHALE_PAGES_2M, NULL},
		      {"private", SHALE_PAGES_PRIVATE, NULL}};

TEST_V(heap_debug, blocks_of_all_sizes_come_and_go, pages)
{
	enum { COUNT = 400 };
	unsigned char *blocks[COUNT] = {0};
	size_t sizes[COUNT] = {0};

	if (variant->value == SHALE_PAGES_2M)
		hugepages_require_free(2u << 20, HUGEPAGES_ANY_NODE, 40);
	open_debug(7, 5, (enum shale_pages)variant->value);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned i = (unsigned)test_random_below(COUNT);

		for (size_t at = 0; at < sizes[i]; at += sizes[i] / 7 + 1)
			ASSERT_EQ(blocks[i][at], (unsigned char)i);
		ASSERT_OK(shale_free(segment, blocks[i]));
		sizes[i] = (size_t)test_random_below(round % 50 ? 3000 : 200000);
		blocks[i] = shale_alloc(segment, sizes[i]);
		ASSERT_NOT_NULL(blocks[i]);
		EXPECT_EQ(shale_usable_size(segment, blocks[i]), sizes[i]);
		EXPECT_EQ((uintptr_t)blocks[i] % 16, 0);
		memset(blocks[i], (int)i, sizes[i]);
	}
	heap_expect_clean(segment);
	for (unsigned i = 0; i < COUNT; i++)
		ASSERT_OK(shale_free(segment, blocks[i]));
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	EXPECT_EQ(figures().guarded_by_this_view, 0);
	EXPECT_EQ(figures().writes_after_free + figures().writes_behind_end, 0);
	finish();
}

TEST(heap_debug, resize_zeroed_aligned_and_publish_work)
{
	uint64_t *place;
	char *block;
	void *taken;

	open_debug(7, 1, SHALE_PAGES_4K);
	place = shale_alloc_zeroed(segment, 8);
	EXPECT_EQ(*place, 0);
	ASSERT_OK(shale_publish(segment, place));
	block = shale_alloc(segment, 20);
	strcpy(block, "nineteen characters");
	block = shale_resize(segment, block, 70000);
	EXPECT_STR_EQ(block, "nineteen characters");
	block = shale_resize(segment, block, 20);
	EXPECT_STR_EQ(block, "nineteen characters");
	ASSERT_OK(shale_publish_at(segment, block, place, 0));
	EXPECT_NULL(shale_resize(segment, block, 100000));
	EXPECT_EQ(errno, EBUSY);
	ASSERT_OK(shale_take_at(segment, place, &taken));
	EXPECT_PTR_EQ(taken, block);
	ASSERT_OK(shale_free(segment, taken));
	EXPECT_LT(shale_free(segment, taken), 0);
	block = shale_alloc_aligned(segment, 100, 4096);
	EXPECT_EQ((uintptr_t)block % 4096, 0);
	ASSERT_OK(shale_free(segment, block));
	EXPECT_LT(shale_free(segment, block), 0);
	finish();
}

TEST(heap_debug, maps_work)
{
	struct shale_map *map;
	char value[3000];

	open_debug(7, 3, SHALE_PAGES_4K);
	ASSERT_OK(shale_map_open(segment, "map", NULL, &map));
	for (uint64_t i = 0; i < 3000; i++) {
		memset(value, (int)i, sizeof(value));
		ASSERT_OK(shale_map_put(map, &(uint64_t){i % 100}, 8, value,
					(size_t)test_random_below(sizeof(value))));
	}
	shale_map_close(map);
	EXPECT_EQ(figures().writes_after_free + figures().writes_behind_end, 0);
	finish();
}

/* -- poison --------------------------------------------------------------------------------------- */

VARIANT_SET(sizes) = {{"small", 40, NULL}, {"middle", 5000, NULL}, {"span", 100000, NULL}};
VARIANT_SET(bins) = {{"small", 40, NULL}, {"middle", 5000, NULL}, {"large", 30000, NULL}};

TEST_V(heap_debug, a_write_after_free_is_found, bins)
{
	unsigned char *block;
	uint64_t offset;

	open_debug(SHALE_DEBUG_POISON, 0, SHALE_PAGES_4K);
	/* keeps the slab, so that there is a free block in it to look at */
	EXPECT_NOT_NULL(shale_alloc(segment, variant->value));
	block = shale_alloc(segment, variant->value);
	offset = shale_ref_of(segment, block).off;
	EXPECT_EQ(block[0], 0xab);
	ASSERT_OK(shale_free(segment, block));
	EXPECT_EQ(block[variant->value / 2], 0xdf);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	block[variant->value / 2] = 1;
	EXPECT_EQ(shale_check(segment, note_finding, NULL), 1);
	EXPECT_STR_EQ(last_invariant, "D1");
	EXPECT_EQ(last_offset, offset);
	EXPECT_EQ(figures().writes_after_free, 0);
	/* handed out again: found for good */
	EXPECT_PTR_EQ(shale_alloc(segment, variant->value), block);
	EXPECT_EQ(block[variant->value / 2], 0xab);
	EXPECT_EQ(figures().writes_after_free, 1);
	EXPECT_EQ(figures().first.off, offset);
	EXPECT_EQ(shale_check(segment, note_finding, NULL), 1);
	EXPECT_STR_EQ(last_invariant, "D3");
	EXPECT_OK(shale_segment_detach(segment));
}

TEST_V(heap_debug, a_write_behind_the_end_is_found, sizes)
{
	unsigned char *block;
	uint64_t offset;

	open_debug(SHALE_DEBUG_POISON, 0, SHALE_PAGES_4K);
	block = shale_alloc(segment, variant->value);
	offset = shale_ref_of(segment, block).off;
	memset(block, 1, variant->value);
	EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
	block[variant->value] = 1;
	EXPECT_EQ(shale_check(segment, note_finding, NULL), 1);
	EXPECT_STR_EQ(last_invariant, "D2");
	EXPECT_EQ(last_offset, offset);
	EXPECT_OK(shale_free(segment, block));
	EXPECT_EQ(figures().writes_behind_end, 1);
	EXPECT_EQ(figures().first.off, offset);
	EXPECT_OK(shale_segment_detach(segment));
}

/* What recovery frees is not poisoned, and nobody is blamed. */
TEST(heap_debug, blocks_of_the_dead_raise_no_alarm)
{
	pid_t child;

	open_debug(7, 3, SHALE_PAGES_4K);
	for (unsigned round = 0; round < 5; round++) {
		child = test_fork();
		if (child == 0) {
			for (unsigned i = 0; i < 500; i++) {
				size_t size = 1 + (size_t)test_random_below(3000);
				void *block = shale_alloc(segment, size);

				ASSERT_NOT_NULL(block);
				memset(block, 1, size);
				if (i % 3 == 0)
					ASSERT_OK(shale_free(segment, block));
			}
			kill(getpid(), SIGKILL);
		}
		EXPECT_GE(test_reap(child, 10000, NULL), 0);
		EXPECT_EQ(shale_recover(segment), 1);
		EXPECT_EQ(heap_counts(segment).live_blocks, 0);
		heap_expect_clean(segment);
	}
	EXPECT_EQ(figures().writes_after_free + figures().writes_behind_end, 0);
	finish();
}

TEST(heap_debug, memory_given_back_raises_no_alarm)
{
	void *blocks[100];

	open_debug(SHALE_DEBUG_POISON, 0, SHALE_PAGES_4K);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 100; i++)
			blocks[i] = shale_alloc(segment, 30000);
		for (unsigned i = 0; i < 100; i++)
			EXPECT_OK(shale_free(segment, blocks[i]));
		EXPECT_GT(shale_trim(segment, 0), 0);
	}
	EXPECT_EQ(figures().writes_after_free, 0);
	finish();
}

/* -- guarded blocks ---------------------------------------------------------------------------------- */

/* Does the touch kill a child? */
static bool touch_faults(volatile unsigned char *byte, bool write)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		if (write)
			*byte = 1;
		else
			(void)*byte;
		_exit(0);
	}
	waitpid(child, &status, 0);
	return WIFSIGNALED(status);
}

/* The markers of MADV_GUARD_INSTALL, and PROT_NONE where the kernel has none. */
VARIANT_SET(guards) = {{"markers", 0, NULL}, {"protection", 1, NULL}};

static void open_guarded(void)
{
	open_debug(SHALE_DEBUG_GUARD, 1, SHALE_PAGES_4K);
	/* the lane */
	ASSERT_OK(shale_free(segment, shale_alloc(segment, 1)));
}

static void *guarded(const struct test_variant *variant, size_t size)
{
	void *block;

	if (variant->value)
		os_fault_arm(OS_CALL_MADVISE, 1, EINVAL);
	block = shale_alloc(segment, size);
	ASSERT_NOT_NULL(block);
	return block;
}

TEST_V(heap_debug, a_guarded_block_ends_at_an_inaccessible_page, guards)
{
	static const size_t all[] = {1, 16, 100, 4080, 4096, 4097, 10000, 70000};
	unsigned char *block;

	open_guarded();
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		size_t size = all[i], end = (size + 15) / 16 * 16;

		block = guarded(variant, size);
		memset(block, 1, size);
		EXPECT_EQ(figures().guarded_by_this_view, 1);
		EXPECT_EQ((uintptr_t)(block + end) % 4096, 0);
		EXPECT_FALSE(touch_faults(block + size - 1, true));
		EXPECT_TRUE(touch_faults(block + end, false));
		EXPECT_TRUE(touch_faults(block + end, true));
		EXPECT_TRUE(touch_faults(block - 4096, true));
		EXPECT_EQ(shale_usable_size(segment, block), size);
		EXPECT_ERRNO(-EINVAL, shale_free(segment, block + 16));
		ASSERT_OK(shale_free(segment, block));
		EXPECT_EQ(figures().guarded_by_this_view, 0);
		EXPECT_FALSE(touch_faults(block + end, true));
	}
	finish();
}

TEST(heap_debug, on_huge_pages_nothing_is_guarded)
{
	hugepages_require_free(2u << 20, HUGEPAGES_ANY_NODE, 40);
	open_debug(SHALE_DEBUG_GUARD, 1, SHALE_PAGES_2M);
	EXPECT_NOT_NULL(shale_alloc(segment, 100));
	EXPECT_EQ(figures().guarded_by_this_view, 0);
	finish();
}

/* Another process frees; the guards are ours, and the memory comes back when we look. */
TEST_V(heap_debug, a_guarded_block_freed_elsewhere_comes_back, guards)
{
	unsigned char *blocks[10];
	pid_t child;

	open_guarded();
	for (unsigned i = 0; i < 10; i++) {
		blocks[i] = guarded(variant, 1000);
		ASSERT_OK(shale_publish(segment, blocks[i]));
	}
	child = test_fork();
	if (child == 0) {
		for (unsigned i = 0; i < 10; i++) {
			EXPECT_OK(shale_free(segment, blocks[i]));
			EXPECT_ERRNO(-EALREADY, shale_free(segment, blocks[i]));
		}
		EXPECT_OK(shale_segment_detach(segment));
		test_child_exit();
	}
	EXPECT_TRUE(test_join(child, 10000));
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	EXPECT_EQ(figures().guarded_by_this_view, 10);
	ASSERT_OK(shale_free(segment, shale_alloc(segment, 10)));
	EXPECT_EQ(figures().guarded_by_this_view, 0);
	for (unsigned i = 0; i < 10; i++)
		memset(blocks[i] - 4096, 0, 4096); /* no guard is left */
	finish();
}

/* The process with the guards dies: what was published lives, what was freed is free. */
TEST(heap_debug, guarded_blocks_outlive_their_process_as_others_do)
{
	uint64_t *place;
	unsigned char *kept, *freed;
	pid_t child;
	int status;

	open_debug(SHALE_DEBUG_GUARD, 1, SHALE_PAGES_4K);
	place = shale_alloc_zeroed(segment, 64);
	ASSERT_OK(shale_publish(segment, place));
	child = test_fork();
	if (child == 0) {
		EXPECT_NOT_NULL(shale_alloc(segment, 500)); /* goes with us */
		ASSERT_OK(shale_publish_at(segment, shale_alloc(segment, 600), &place[0], 0));
		ASSERT_OK(shale_publish_at(segment, shale_alloc(segment, 700), &place[1], 0));
		store_release(&place[2], UINT64_C(1));
		pause();
	}
	ASSERT_TRUE(TEST_EVENTUALLY(load_acquire(&place[2]) == 1, 5000));
	ASSERT_OK(shale_take_at(segment, &place[1], (void **)&freed));
	ASSERT_OK(shale_free(segment, freed)); /* its process has the guards still */
	kill(child, SIGKILL);
	EXPECT_GE(test_reap(child, 10000, &status), 0);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(heap_counts(segment).live_blocks, 2);
	EXPECT_EQ(heap_counts(segment).spans, 2);
	ASSERT_OK(shale_take_at(segment, &place[0], (void **)&kept));
	EXPECT_EQ(shale_usable_size(segment, kept), 600);
	ASSERT_OK(shale_free(segment, kept));
	EXPECT_EQ(heap_counts(segment).spans, 1);
	finish();
}

TEST(heap_debug, more_guarded_blocks_than_the_list_holds)
{
	void *blocks[300];

	open_debug(SHALE_DEBUG_GUARD, 1, SHALE_PAGES_4K);
	for (unsigned i = 0; i < 300; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(segment, 100));
	EXPECT_EQ(figures().guarded_by_this_view, 256);
	for (unsigned i = 0; i < 300; i++)
		ASSERT_OK(shale_free(segment, blocks[i]));
	EXPECT_EQ(figures().guarded_by_this_view, 0);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	finish();
}

TEST(heap_debug, a_guarded_write_behind_the_end_within_its_page_is_found)
{
	unsigned char *block;

	open_debug(SHALE_DEBUG_GUARD, 1, SHALE_PAGES_4K);
	block = shale_alloc(segment, 100);
	block[100] = 1; /* 100 is no multiple of 16 */
	ASSERT_OK(shale_free(segment, block));
	EXPECT_EQ(figures().writes_behind_end, 1);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- who owns what ------------------------------------------------------------------------------------ */

static void add_up(const struct shale_block *block, void *context)
{
	uint64_t *sum = context;

	sum[0] += block->requested_bytes;
	sum[1] += block->thread == (uint32_t)gettid();
}

TEST(heap_debug, owners_and_sizes_are_told)
{
	struct shale_size_row rows[73];
	struct shale_block block;
	uint64_t sum[2] = {0};
	pid_t child;
	void *ptr;

	open_debug(SHALE_DEBUG_OWNER, 0, SHALE_PAGES_4K);
	ptr = shale_alloc(segment, 50);
	ASSERT_OK(shale_debug_block(segment, ptr, &block));
	EXPECT_EQ(block.ref.off, shale_ref_of(segment, ptr).off);
	EXPECT_EQ(block.requested_bytes, 50);
	EXPECT_EQ(block.usable_bytes, 96);
	EXPECT_EQ(block.thread, gettid());
	EXPECT_EQ(block.peer, segment->peer);
	EXPECT_FALSE(block.published);
	EXPECT_NOT_NULL(shale_alloc(segment, 100000));
	child = test_fork();
	if (child == 0) {
		ASSERT_OK(shale_publish(segment, shale_alloc(segment, 60)));
		EXPECT_OK(shale_segment_detach(segment));
		test_child_exit();
	}
	EXPECT_TRUE(test_join(child, 10000));
	EXPECT_EQ(shale_debug_walk(segment, add_up, sum), 3);
	EXPECT_EQ(sum[0], 100110);
	EXPECT_EQ(sum[1], 2);
	ASSERT_EQ(shale_debug_sizes(segment, rows, 73), 73);
	EXPECT_EQ(rows[5].block_bytes, 96);
	EXPECT_EQ(rows[5].blocks, 2);
	EXPECT_EQ(rows[5].usable_bytes, 192);
	EXPECT_EQ(rows[5].requested_bytes, 110);
	EXPECT_EQ(rows[72].requested_bytes, 100000);
	EXPECT_ERRNO(-EINVAL, shale_debug_block(segment, (char *)ptr + 16, &block));
	ASSERT_OK(shale_free(segment, ptr));
	EXPECT_ERRNO(-EINVAL, shale_debug_block(segment, ptr, &block));
	finish();
}
