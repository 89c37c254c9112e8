/* A keeper beside threads that allocate, free each other's blocks, pin and trim. */
#include <pthread.h>
#include <string.h>

#include <shale/keeper.h>

#include "heap/giveback.h"
#include "heap/slab.h"
#include "heaps.h"

enum { THREADS = 4, SLOTS = 64 };

struct work {
	struct shale_segment *segment;
	void *slots[SLOTS]; /* exchanged: whoever takes a block frees it */
	uint64_t seed;
	uint32_t stop;
	uint32_t number; /* of the next thread */
};

static size_t any_size(uint64_t *state)
{
	uint64_t kind = test_random_next(state) % 100;

	if (kind < 80)
		return (size_t)(test_random_next(state) % 2000);
	if (kind < 98)
		return (size_t)(test_random_next(state) % 100000);
	return (size_t)(test_random_next(state) % (5u << 20));
}

static void pin_a_while(struct work *work, unsigned char *block)
{
	if (shale_pin(work->segment, block, 1) != 0)
		return;
	*block = 42;
	EXPECT_EQ(*block, 42);
	EXPECT_OK(shale_unpin(work->segment, block, 1));
}

static void *thread_body(void *argument)
{
	struct work *work = argument;
	uint64_t state = work->seed + __atomic_fetch_add(&work->number, 1, __ATOMIC_RELAXED);

	while (!__atomic_load_n(&work->stop, __ATOMIC_RELAXED)) {
		size_t size = any_size(&state) + 1;
		unsigned char *block = shale_alloc(work->segment, size);
		void **slot = &work->slots[test_random_next(&state) % SLOTS];

		if (block) {
			block[0] = 1;
			block[size - 1] = 2;
			if (test_random_next(&state) % 64 == 0)
				pin_a_while(work, block);
		}
		EXPECT_OK(shale_free(work->segment,
				     __atomic_exchange_n(slot, block, __ATOMIC_ACQ_REL)));
		if (test_random_next(&state) % 4096 == 0)
			EXPECT_GE(shale_trim(work->segment, 0), 0);
	}
	return NULL;
}

VARIANT_SET(page_kinds) = {{"4k", SHALE_PAGES_4K, NULL},
			   {"thp", SHALE_PAGES_THP, NULL},
			   {"private", SHALE_PAGES_PRIVATE, NULL}};

TEST_V_TIMEOUT(keeper_threads, everybody_at_once, page_kinds, 120)
{
	struct shale_keeper_options options = {
		.size = sizeof(options),
		.flags = SHALE_KEEPER_URING,
		.decay_ms = 5,
	};
	struct work work = {.seed = test_random_u64()};
	pthread_t threads[THREADS];

	work.segment = heap_segment(256u << 20, (enum shale_pages)variant->value);
	ASSERT_OK(shale_keeper_start(work.segment, &options));
	for (unsigned i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, thread_body, &work), 0);
	for (unsigned i = 0; i < 5; i++) {
		test_sleep_ms(TEST_ROUNDS(300, 10000));
		/* while they are at work */
		ASSERT_OK(shale_keeper_stop(work.segment));
		ASSERT_OK(shale_keeper_start(work.segment, &options));
	}
	__atomic_store_n(&work.stop, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < SLOTS; i++)
		ASSERT_OK(shale_free(work.segment, work.slots[i]));
	EXPECT_EQ(heap_counts(work.segment).live_blocks, 0);
	EXPECT_OK(shale_keeper_stop(work.segment));
	TEST_LOG("%llu arenas, %llu MiB inside arenas given back",
		 (unsigned long long)heap_counts(work.segment).releases,
		 (unsigned long long)heap_counts(work.segment).purged_bytes >> 20);
	heap_expect_clean(work.segment);
	EXPECT_OK(shale_segment_detach(work.segment));
}
