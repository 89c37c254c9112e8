/*
 * Threads that take, resize, free and steal spans, and trim, in a segment that is often full. Each span
 * carries its owner's number at both ends; in the end nothing may be left.
 */
#include <pthread.h>
#include <string.h>

#include "heap/slab.h"
#include "heap/span_cache.h"
#include "heaps.h"
#include "segment/lanes.h"

#define THREADS 4u
#define LIVE    12u

struct worker {
	struct shale_segment *segment;
	uint64_t random;
	uint64_t number;
	uint64_t refused;
	pthread_t thread;
};

struct held {
	unsigned char *span;
	size_t size;
};

static void mark(const struct worker *w, const struct held *held)
{
	memcpy(held->span, &w->number, 8);
	memcpy(held->span + held->size - 8, &w->number, 8);
}

static void expect_mark(const struct worker *w, const struct held *held)
{
	EXPECT_MEM_EQ(held->span, &w->number, 8);
	EXPECT_MEM_EQ(held->span + held->size - 8, &w->number, 8);
}

static void drop(struct worker *w, struct held *held)
{
	expect_mark(w, held);
	EXPECT_OK(shale_free(w->segment, held->span));
	held->span = NULL;
}

static size_t any_size(struct worker *w)
{
	uint64_t shift = test_random_next(&w->random) % 6;

	return 40000 + test_random_next(&w->random) % (SLAB_SIZE << shift);
}

static void take(struct worker *w, struct held *held)
{
	held->size = any_size(w);
	held->span = shale_alloc(w->segment, held->size);
	if (held->span)
		mark(w, held);
	else
		w->refused++;
}

static void resize(struct worker *w, struct held *held)
{
	size_t size = any_size(w);
	unsigned char *span;

	expect_mark(w, held);
	span = shale_resize(w->segment, held->span, size);
	if (!span) {
		w->refused++;
		return;
	}
	EXPECT_MEM_EQ(span, &w->number, 8);
	held->span = span;
	held->size = size;
	mark(w, held);
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct held held[LIVE] = {{0}};
	struct lane *lane;

	EXPECT_OK(lane_enter(w->segment, &lane));
	for (unsigned i = 0; i < TEST_ROUNDS(30000u, 1000000u); i++) {
		struct held *one = &held[test_random_next(&w->random) % LIVE];
		uint64_t what = test_random_next(&w->random) % 64;

		if (!one->span)
			take(w, one);
		else if (what < 16)
			resize(w, one);
		else
			drop(w, one);
		if (what == 63)
			EXPECT_GE(shale_trim(w->segment, 0), 0);
		else if (what == 62)
			(void)span_steal_cached(lane, true);
	}
	for (unsigned i = 0; i < LIVE; i++)
		if (held[i].span)
			drop(w, &held[i]);
	return NULL;
}

TEST_TIMEOUT(heap_spans, of_many_threads_stay_apart_and_none_is_lost, 120)
{
	struct shale_segment *segment = heap_segment(24u << 20, SHALE_PAGES_PRIVATE);
	struct worker workers[THREADS];
	uint64_t refused = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){
			.segment = segment, .random = test_random_u64(), .number = i + 1};
		ASSERT_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		ASSERT_EQ(pthread_join(workers[i].thread, NULL), 0);
		refused += workers[i].refused;
	}
	TEST_LOG("%llu refused", (unsigned long long)refused);
	EXPECT_EQ(heap_counts(segment).live_bytes, 0);
	heap_expect_clean(segment);
	EXPECT_NOT_NULL(shale_alloc(segment, 24u << 20));
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}
