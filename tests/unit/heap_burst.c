/*
 * What is left of a burst: small blocks of all sizes, freed in random order but for one in a thousand.
 * After a trim the file holds at most 1.7 % of the peak: a page for each survivor, and little more.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "heap/heap.h"
#include "heap/slab.h"
#include "heaps.h"

enum { SIZE_MIN = 16, SIZE_MAX_ = 512, ONE_IN = 1000 };

struct burst {
	struct shale_segment *segment;
	unsigned char **blocks;
	uint32_t count;
	uint64_t bytes; /* asked for */
	uint64_t random;
};

static uint64_t backing(struct shale_segment *segment)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_segment_stat(segment, &stat));
	return stat.backing_bytes;
}

static uint64_t cpu_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Bytes of the file that are there between two offsets. */
static uint64_t there(struct shale_segment *segment, uint64_t from, uint64_t end)
{
	uint64_t bytes = 0;

	while (from < end) {
		off_t data = lseek(segment->fd, (off_t)from, SEEK_DATA), hole;

		if (data < 0 || (uint64_t)data >= end)
			break;
		hole = lseek(segment->fd, data, SEEK_HOLE);
		bytes += ((uint64_t)hole < end ? (uint64_t)hole : end) - (uint64_t)data;
		from = (uint64_t)hole;
	}
	return bytes;
}

static void log_parts(struct shale_segment *s, uint64_t peak)
{
	TEST_LOG("peak %llu KiB, now %llu KiB (%.2f %%): before the tables %llu, arena table %llu, "
		 "short facts %llu, long facts %llu, blocks %llu",
		 (unsigned long long)peak >> 10, (unsigned long long)backing(s) >> 10,
		 100.0 * (double)backing(s) / (double)peak,
		 (unsigned long long)there(s, 0, s->arena_table_offset) >> 10,
		 (unsigned long long)there(s, s->arena_table_offset, s->short_facts_offset) >> 10,
		 (unsigned long long)there(s, s->short_facts_offset, s->long_facts_offset) >> 10,
		 (unsigned long long)there(s, s->long_facts_offset, s->heap_offset) >> 10,
		 (unsigned long long)there(s, s->heap_offset, s->heap_end) >> 10);
}

static void allocate(struct burst *burst, uint64_t bytes)
{
	uint64_t room = bytes / ((SIZE_MIN + SIZE_MAX_) / 2) * 11 / 10 + 1000;

	burst->blocks = malloc(room * sizeof(*burst->blocks));
	ASSERT_NOT_NULL(burst->blocks);
	while (burst->bytes < bytes && burst->count < room) {
		size_t size =
			SIZE_MIN + test_random_next(&burst->random) % (SIZE_MAX_ - SIZE_MIN + 1);
		unsigned char *block = shale_alloc(burst->segment, size);

		ASSERT_NOT_NULL(block);
		memset(block, (int)(burst->count % 251), size);
		burst->bytes += size;
		burst->blocks[burst->count++] = block;
	}
}

static void shuffle(struct burst *burst)
{
	for (uint32_t i = burst->count - 1; i > 0; i--) {
		uint32_t j = (uint32_t)(test_random_next(&burst->random) % (i + 1));
		unsigned char *kept = burst->blocks[i];

		burst->blocks[i] = burst->blocks[j];
		burst->blocks[j] = kept;
	}
}

/* Frees all but every ONE_IN-th of the shuffled; those move to the front. */
static void free_most(struct burst *burst)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < burst->count; i++) {
		if (i % ONE_IN == 0)
			burst->blocks[kept++] = burst->blocks[i];
		else
			ASSERT_OK(shale_free(burst->segment, burst->blocks[i]));
	}
	burst->count = kept;
}

static void expect_whole(const struct burst *burst)
{
	for (uint32_t i = 0; i < burst->count; i++)
		ASSERT_EQ(burst->blocks[i][0], burst->blocks[i][SIZE_MIN - 1]);
}

static void run(struct burst *burst, uint64_t bytes, double share_max)
{
	uint64_t peak, start;

	allocate(burst, bytes);
	peak = backing(burst->segment);
	shuffle(burst);
	free_most(burst);
	log_parts(burst->segment, peak);
	start = cpu_ns();
	ASSERT_GE(shale_trim(burst->segment, 0), 0);
	start = cpu_ns() - start;
	TEST_LOG("trim: %.1f ms of CPU, %.3f ns per freed byte", (double)start / 1e6,
		 (double)start / (double)(burst->bytes));
	log_parts(burst->segment, peak);
	EXPECT_LE((double)backing(burst->segment), (double)peak * share_max);
	expect_whole(burst);
	heap_expect_clean(burst->segment);
	EXPECT_EQ(heap_counts(burst->segment).live_blocks, burst->count);
	EXPECT_LE((double)backing(burst->segment), (double)peak * share_max);
	expect_whole(burst);
}

static void free_rest(struct burst *burst)
{
	while (burst->count > 0)
		ASSERT_OK(shale_free(burst->segment, burst->blocks[--burst->count]));
	free(burst->blocks);
	*burst = (struct burst){.segment = burst->segment, .random = burst->random};
}

TEST_TIMEOUT(heap_burst, survivors_cost_a_page_each, 300)
{
	uint64_t bytes = TEST_ROUNDS(UINT64_C(64) << 20, UINT64_C(1) << 30);
	struct burst burst = {.segment = heap_segment(4 * bytes, SHALE_PAGES_4K),
			      .random = test_seed()};

	/* what a segment has at least, header and lanes, counts in a small one */
	double share = 0.017 + (test_long() ? 0 : 144.0 * 1024 / (double)bytes);

	for (unsigned round = 0; round < 3; round++) {
		run(&burst, bytes, share);
		free_rest(&burst);
		ASSERT_GE(shale_trim(burst.segment, 0), 0);
		EXPECT_EQ(heap_counts(burst.segment).live_blocks, 0);
		EXPECT_EQ(heap_counts(burst.segment).committed_bytes, 0);
		heap_expect_clean(burst.segment);
	}
	EXPECT_OK(shale_segment_detach(burst.segment));
}
