/* Sizes and offsets of what the heap keeps in a segment, pinned to format version 1. */
#include <stddef.h>

#include "harness.h"
#include "heap/heap.h"
#include "heap/slab_layout.h"

TEST(heap_layout, belongs_to_format_version_1)
{
	EXPECT_EQ(SEGMENT_FORMAT_VERSION, 1);
}

TEST(heap_layout, arena_table_entry)
{
	EXPECT_EQ(sizeof(struct arena_shm), 2048);
	EXPECT_EQ(offsetof(struct arena_shm, state), 0);
	EXPECT_EQ(offsetof(struct arena_shm, lease), 8);
	EXPECT_EQ(offsetof(struct arena_shm, long_committed), 16);
	EXPECT_EQ(offsetof(struct arena_shm, fresh), 20);
	EXPECT_EQ(offsetof(struct arena_shm, sparse_used), 24);
	EXPECT_EQ(offsetof(struct arena_shm, node), 28);
	EXPECT_EQ(offsetof(struct arena_shm, empty_since_ms), 32);
	EXPECT_EQ(offsetof(struct arena_shm, purged_ms), 36);
	EXPECT_EQ(offsetof(struct arena_shm, facts_gone), 40);
	EXPECT_EQ(offsetof(struct arena_shm, look_sum), 44);
	EXPECT_EQ(offsetof(struct arena_shm, remote_hint), 64);
	EXPECT_EQ(offsetof(struct arena_shm, reserved_hint), 96);
	EXPECT_EQ(offsetof(struct arena_shm, word), 128);
	EXPECT_EQ(offsetof(struct arena_shm, span_slabs), 384);
	EXPECT_EQ(offsetof(struct arena_shm, local_hint), 512);
	EXPECT_EQ(offsetof(struct arena_shm, witness), 576);
	EXPECT_EQ(offsetof(struct arena_shm, punched), 640);
	EXPECT_EQ(offsetof(struct arena_shm, rank_arenas), 704);
	EXPECT_EQ(offsetof(struct arena_shm, sparse), 1024);
	EXPECT_EQ(sizeof(struct sparse_fact), 4);
}

TEST(heap_layout, root_record)
{
	EXPECT_EQ(sizeof(struct root_shm), 64);
	EXPECT_EQ(offsetof(struct root_shm, kind), 0);
	EXPECT_EQ(offsetof(struct root_shm, name), 8);
	EXPECT_EQ(offsetof(struct root_shm, size), 56);
}

TEST(heap_layout, slab_words_are_packed_and_unpacked)
{
	uint64_t word = slab_word_next(0, slab_low(SLAB_OWNED, 4095, 71));

	EXPECT_EQ(slab_word_state(word), SLAB_OWNED);
	EXPECT_EQ(slab_word_lane(word), 4095);
	EXPECT_EQ(slab_word_bin(word), 71);
	EXPECT_EQ(word >> 32, 1);
	word = slab_word_next(word, slab_low_body((1u << 28) - 1));
	EXPECT_EQ(slab_word_state(word), SLAB_BODY);
	EXPECT_EQ(slab_word_head(word), (1u << 28) - 1);
	EXPECT_EQ(word >> 32, 2);
}

TEST(heap_layout, the_generation_wraps_without_touching_the_rest)
{
	uint64_t word = slab_word_next(UINT64_C(0xffffffff00000000), slab_low(SLAB_OWNED, 5, 6));

	EXPECT_EQ(word >> 32, 0);
	EXPECT_EQ(slab_word_lane(word), 5);
}
