/* The kernel refuses memory, address space or a look at the file, at every call in turn. */
#include <string.h>

#include "heaps.h"
#include "os/os.h"

enum { SIZES = 6 };
static const size_t sizes[SIZES] = {16, 100, 5000, 40000, 1 << 20, 5 << 20};

/* Allocates one block of each size; how many came. The rest must have said ENOMEM (or EBADF). */
static unsigned allocate_all(struct shale_segment *segment, void **blocks, int error)
{
	unsigned count = 0;

	for (unsigned i = 0; i < SIZES; i++) {
		errno = 0;
		blocks[i] = shale_alloc(segment, sizes[i]);
		if (blocks[i])
			memset(blocks[i], 1, sizes[i]);
		else
			EXPECT_EQ(errno, error);
		count += blocks[i] != NULL;
	}
	return count;
}

static void free_all(struct shale_segment *segment, void **blocks)
{
	for (unsigned i = 0; i < SIZES; i++)
		EXPECT_OK(shale_free(segment, blocks[i]));
}

/* 1: the n-th call was reached. */
static bool round_failing(enum os_call call, unsigned nth, int error, int expected)
{
	struct shale_segment *segment = heap_segment(32u << 20, SHALE_PAGES_4K);
	void *blocks[SIZES];
	unsigned came, calls;

	os_fault_arm(call, nth, error);
	came = allocate_all(segment, blocks, expected);
	calls = os_fault_count(call);
	os_fault_disarm();
	heap_expect_clean(segment);
	EXPECT_EQ(heap_counts(segment).live_blocks, came);
	EXPECT_GE(came + 1, SIZES);
	free_all(segment, blocks);
	/* nothing was lost by it */
	EXPECT_EQ(allocate_all(segment, blocks, 0), SIZES);
	free_all(segment, blocks);
	EXPECT_EQ(heap_counts(segment).live_blocks, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
	return calls >= nth;
}

TEST(heap_commit, every_refused_fallocate_is_ENOMEM_and_nothing_else)
{
	unsigned reached = 0;

	test_expect_no_fd_leak();
	while (round_failing(OS_CALL_FALLOCATE, reached + 1, ENOSPC, ENOMEM))
		reached++;
	TEST_LOG("%u calls failed in turn", reached);
	EXPECT_GE(reached, 5);
}

TEST(heap_commit, a_refused_punch_keeps_the_arena)
{
	struct shale_segment *segment = heap_segment(32u << 20, SHALE_PAGES_4K);
	void *block = shale_alloc(segment, 20u << 20);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(segment, block));
	os_fault_arm(OS_CALL_PUNCH, 1, EPERM);
	EXPECT_ERRNO(-EPERM, shale_trim(segment, 0));
	os_fault_disarm();
	heap_expect_clean(segment);
	EXPECT_GT(heap_counts(segment).committed_bytes, 0);
	EXPECT_GT(shale_trim(segment, 0), 0);
	EXPECT_EQ(heap_counts(segment).committed_bytes, 0);
	EXPECT_OK(shale_segment_detach(segment));
}
