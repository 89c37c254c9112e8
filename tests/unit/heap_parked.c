/* Parked slabs: let go when full, come back to, taken when nothing lives. One process, two lanes. */
#include <pthread.h>
#include <string.h>

#include "heap/block.h"
#include "heap/heap.h"
#include "heap/heap_lane.h"
#include "heap/slab.h"
#include "heaps.h"
#include "segment/lanes.h"

enum { SIZE = 20000, PER_SLAB = 3, BLOCKS_MAX = 600 };

struct scene {
	struct shale_segment *segment;
	void *blocks[BLOCKS_MAX];
	unsigned from, to; /* what another lane frees */
	bool lose_hints;
};

static uint64_t slab_of(const struct scene *s, unsigned block)
{
	return slab_of_offset(s->segment, shale_ref_of(s->segment, s->blocks[block]).off);
}

static enum slab_state state_of(const struct scene *s, unsigned block)
{
	return slab_word_state(*slab_word(s->segment, slab_of(s, block)));
}

static void fill(struct scene *s, unsigned count)
{
	s->segment = heap_segment(32u << 20, SHALE_PAGES_4K);
	for (unsigned i = 0; i < count; i++)
		ASSERT_NOT_NULL(s->blocks[i] = shale_alloc(s->segment, SIZE));
}

static void *free_range(void *argument)
{
	struct scene *s = argument;

	for (unsigned i = s->from; i < s->to; i++)
		ASSERT_OK(shale_free(s->segment, s->blocks[i]));
	if (s->lose_hints)
		for (unsigned slab = 0; slab < SLABS_PER_ARENA; slab++)
			*slab_remote_hint(s->segment, slab) = 0;
	return NULL;
}

static void another_frees(struct scene *s, unsigned from, unsigned to)
{
	pthread_t thread;

	s->from = from;
	s->to = to;
	ASSERT_EQ(pthread_create(&thread, NULL, free_range, s), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
}

static void finish(struct scene *s)
{
	heap_expect_clean(s->segment);
	EXPECT_OK(shale_segment_detach(s->segment));
}

static unsigned count_open(struct scene *s, unsigned count)
{
	unsigned open = 0;

	for (unsigned i = 0; i < count; i += PER_SLAB)
		open += state_of(s, i) == SLAB_OWNED;
	return open;
}

TEST(heap_parked, a_full_slab_is_let_go)
{
	struct scene s = {0};

	fill(&s, PER_SLAB);
	EXPECT_EQ(state_of(&s, 0), SLAB_OWNED);
	ASSERT_NOT_NULL(s.blocks[PER_SLAB] = shale_alloc(s.segment, SIZE));
	EXPECT_EQ(state_of(&s, 0), SLAB_PARKED);
	EXPECT_EQ(heap_counts(s.segment).own_blocks, PER_SLAB + 1);
	EXPECT_EQ(shale_usable_size(s.segment, s.blocks[0]), 20480);
	finish(&s);
}

TEST(heap_parked, a_free_opens_it_again_while_the_lifo_has_room)
{
	struct scene s = {0};
	unsigned count = (HEAP_OPEN_MAX + 10) * PER_SLAB;

	fill(&s, count);
	EXPECT_EQ(count_open(&s, count), 1);
	ASSERT_OK(shale_free(s.segment, s.blocks[0]));
	EXPECT_EQ(state_of(&s, 0), SLAB_OWNED);
	EXPECT_ERRNO(-EALREADY, shale_free(s.segment, s.blocks[0]));
	for (unsigned i = PER_SLAB; i < count; i += PER_SLAB)
		ASSERT_OK(shale_free(s.segment, s.blocks[i]));
	/* those whose block is in the LIFO, and the one that the lane allocates from */
	EXPECT_EQ(count_open(&s, count), HEAP_OPEN_FEW);
	EXPECT_EQ(heap_counts(s.segment).live_blocks, count - count / PER_SLAB);
	/* a second free of a block in a slab that stayed parked */
	EXPECT_ERRNO(-EALREADY, shale_free(s.segment, s.blocks[count - 2 * PER_SLAB]));
	/* all are found again without asking the kernel */
	for (unsigned i = 0; i < count; i += PER_SLAB)
		ASSERT_NOT_NULL(shale_alloc(s.segment, SIZE));
	EXPECT_EQ(heap_counts(s.segment).slabs_owned, count / PER_SLAB);
	EXPECT_LE(count_open(&s, count), HEAP_OPEN_MAX + 1);
	finish(&s);
}

TEST(heap_parked, the_slab_opened_longest_ago_is_let_go_for_another)
{
	struct scene s = {0};
	unsigned slabs = 3 * HEAP_OPEN_MAX;

	fill(&s, slabs * PER_SLAB);
	/* one after the other, as a program that replaces objects at random does */
	for (unsigned i = 0; i < slabs; i++) {
		ASSERT_OK(shale_free(s.segment, s.blocks[i * PER_SLAB]));
		EXPECT_EQ(state_of(&s, i * PER_SLAB), SLAB_OWNED);
		ASSERT_TRUE(shale_alloc(s.segment, SIZE) == s.blocks[i * PER_SLAB]);
	}
	EXPECT_LE(count_open(&s, slabs * PER_SLAB), HEAP_OPEN_MAX + 1);
	EXPECT_EQ(state_of(&s, 0), SLAB_PARKED);
	EXPECT_EQ(heap_counts(s.segment).live_blocks, slabs * PER_SLAB);
	finish(&s);
}

TEST(heap_parked, a_published_block_is_not_born_published_again)
{
	struct scene s = {0};
	unsigned count = (HEAP_OPEN_MAX + 4) * PER_SLAB;

	fill(&s, count);
	/* in a slab that is parked: by the shared fact */
	ASSERT_OK(shale_publish(s.segment, s.blocks[0]));
	EXPECT_EQ(heap_counts(s.segment).published_blocks, 1);
	for (unsigned i = count; i > PER_SLAB; i -= PER_SLAB)
		ASSERT_OK(shale_free(s.segment, s.blocks[i - 1]));
	ASSERT_EQ(state_of(&s, 0), SLAB_PARKED);
	ASSERT_OK(shale_free(s.segment, s.blocks[0]));
	EXPECT_EQ(state_of(&s, 0), SLAB_PARKED);
	while (shale_alloc(s.segment, SIZE))
		;
	EXPECT_EQ(heap_counts(s.segment).published_blocks, 0);
	finish(&s);
}

TEST(heap_parked, who_frees_the_last_block_takes_it)
{
	struct scene s = {0};

	fill(&s, PER_SLAB + 1);
	another_frees(&s, 0, PER_SLAB - 1);
	EXPECT_EQ(state_of(&s, 0), SLAB_PARKED);
	another_frees(&s, PER_SLAB - 1, PER_SLAB);
	EXPECT_EQ(state_of(&s, 0), SLAB_FREE);
	EXPECT_ERRNO(-EALREADY, shale_free(s.segment, s.blocks[0]));
	finish(&s);
}

TEST(heap_parked, all_freed_before_it_was_let_go_and_the_hint_lost)
{
	struct scene s = {.lose_hints = true};

	fill(&s, PER_SLAB);
	another_frees(&s, 0, PER_SLAB);
	EXPECT_EQ(state_of(&s, 0), SLAB_OWNED);
	/* letting go of it, its lane looks */
	ASSERT_NOT_NULL(s.blocks[PER_SLAB] = shale_alloc(s.segment, SIZE));
	EXPECT_EQ(heap_counts(s.segment).slabs_owned, 1);
	finish(&s);
}

TEST(heap_parked, a_name_keeps_it_and_the_freer_comes_back)
{
	struct scene s = {0};
	struct lane *lane;

	fill(&s, 2 * PER_SLAB + 1);
	another_frees(&s, 0, PER_SLAB - 1);
	ASSERT_OK(lane_enter(s.segment, &lane));
	/* our own lane frees as another would: the slab is not opened, for it counts as many */
	retired_set(lane->shm, 0, shale_ref_of(s.segment, s.blocks[0]).off);
	another_frees(&s, PER_SLAB - 1, PER_SLAB);
	EXPECT_EQ(state_of(&s, 0), SLAB_PARKED);
	EXPECT_TRUE(heap_block_named(s.segment, shale_ref_of(s.segment, s.blocks[0]).off));
	retired_set(lane->shm, 0, 0);
	/* the thread that had freed it is gone; its lane, with the next thread, comes back to it */
	another_frees(&s, PER_SLAB, PER_SLAB + 1);
	EXPECT_EQ(state_of(&s, 0), SLAB_FREE);
	finish(&s);
}

TEST(heap_parked, a_held_slab_is_left_alone_and_frees_in_it_go_on)
{
	struct scene s = {0};
	uint64_t word;

	fill(&s, PER_SLAB + 1);
	slab_arena(s.segment, slab_of(&s, 0))->lease = slab_low(SLAB_CLAIMED, 1, 0);
	word = *slab_word(s.segment, slab_of(&s, 0)) | SLAB_HELD;
	*slab_word(s.segment, slab_of(&s, 0)) = word;
	heap_expect_clean(s.segment);
	/* neither opened by its lane nor taken by the last freer */
	ASSERT_OK(shale_free(s.segment, s.blocks[0]));
	EXPECT_EQ(*slab_word(s.segment, slab_of(&s, 0)), word);
	another_frees(&s, 1, PER_SLAB);
	EXPECT_EQ(*slab_word(s.segment, slab_of(&s, 0)), word);
	EXPECT_EQ(heap_counts(s.segment).live_blocks, 1);
	slab_arena(s.segment, slab_of(&s, 0))->lease = 0;
	EXPECT_GT(shale_check(s.segment, heap_finding, NULL), 0);
	*slab_word(s.segment, slab_of(&s, 0)) = word & ~SLAB_HELD;
	EXPECT_GE(shale_trim(s.segment, 0), 0);
	EXPECT_EQ(state_of(&s, 0), SLAB_FREE);
	finish(&s);
}

/* As the holder of the lease leaves a slab with few live blocks. */
static void make_sparse(struct scene *s, unsigned block)
{
	struct arena_shm *arena = slab_arena(s->segment, slab_of(s, block));
	unsigned number = (unsigned)(slab_of(s, block) % SLABS_PER_ARENA);
	struct block_place place;

	ASSERT_OK(block_find(s->segment, shale_ref_of(s->segment, s->blocks[block]).off, &place));
	arena->sparse[number][5] = (struct sparse_fact){
		.index = (uint16_t)place.index, .own = *place.own, .shared = *place.shared};
	arena->sparse_used |= UINT32_C(1) << number;
	/* the dense facts say nothing any more */
	memset(place.own - place.index, 0x77, place.bin->count);
	*slab_word(s->segment, place.slab) |= SLAB_SPARSE;
}

TEST(heap_parked, sparse_facts_are_the_facts)
{
	struct scene s = {0};
	struct arena_shm *arena;

	fill(&s, 2 * PER_SLAB + 1);
	another_frees(&s, 0, PER_SLAB - 1);
	make_sparse(&s, PER_SLAB - 1);
	heap_expect_clean(s.segment);
	EXPECT_EQ(heap_counts(s.segment).live_blocks, PER_SLAB + 2);
	EXPECT_EQ(shale_usable_size(s.segment, s.blocks[0]), 0);
	EXPECT_EQ(shale_usable_size(s.segment, s.blocks[PER_SLAB - 1]), 20480);
	EXPECT_OK(shale_publish(s.segment, s.blocks[PER_SLAB - 1]));
	EXPECT_EQ(heap_counts(s.segment).published_blocks, 1);
	EXPECT_ERRNO(-EALREADY, shale_free(s.segment, s.blocks[0]));
	another_frees(&s, PER_SLAB - 1, PER_SLAB);
	EXPECT_ERRNO(-EALREADY, shale_free(s.segment, s.blocks[PER_SLAB - 1]));
	EXPECT_EQ(heap_counts(s.segment).live_blocks, PER_SLAB + 1);
	/* two entries about one block are found */
	arena = slab_arena(s.segment, slab_of(&s, PER_SLAB));
	make_sparse(&s, PER_SLAB);
	heap_expect_clean(s.segment);
	arena->sparse[slab_of(&s, PER_SLAB) % SLABS_PER_ARENA][7] =
		arena->sparse[slab_of(&s, PER_SLAB) % SLABS_PER_ARENA][5];
	EXPECT_GT(shale_check(s.segment, heap_finding, NULL), 0);
	EXPECT_OK(shale_segment_detach(s.segment));
}

TEST(heap_parked, a_slot_that_is_free_has_no_names)
{
	struct scene s = {0};
	struct lane *lane;

	fill(&s, 1);
	ASSERT_OK(lane_enter(s.segment, &lane));
	EXPECT_EQ(lane->shm->freeing, 0);
	/* a slot above ours that was never used */
	ASSERT_LT(lane->index + 1, LANE_COUNT);
	view_lane(s.segment, lane->index + 1)->pins[3] = 7;
	view_hints(s.segment)->lane_high = lane->index + 2;
	EXPECT_GT(shale_check(s.segment, heap_finding, NULL), 0);
	view_lane(s.segment, lane->index + 1)->pins[3] = 0;
	view_lane(s.segment, lane->index + 1)->freeing = s.segment->heap_offset;
	EXPECT_GT(shale_check(s.segment, heap_finding, NULL), 0);
	view_lane(s.segment, lane->index + 1)->freeing = 0;
	finish(&s);
}
