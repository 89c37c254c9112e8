/* The table of bins: every size and every offset, not samples. */
#include "harness.h"
#include "heap/size_class.h"

TEST(heap_size_class, every_size_gets_the_smallest_bin_that_holds_it)
{
	for (size_t size = 0; size <= BIN_SIZE_MAX; size++) {
		unsigned bin = bin_of_size(size);

		ASSERT_LT(bin, BIN_COUNT);
		ASSERT_GE(bin_table[bin].size, size);
		if (bin > 0)
			ASSERT_LT(bin_table[bin - 1].size, size);
	}
}

TEST(heap_size_class, steps_are_at_most_an_eighth_above_128_bytes)
{
	for (unsigned bin = 1; bin < BIN_COUNT; bin++) {
		uint32_t step = bin_table[bin].size - bin_table[bin - 1].size;

		EXPECT_EQ(bin_table[bin].size % 16, 0);
		if (bin_table[bin].size > 128)
			EXPECT_LE(step * 8, bin_table[bin - 1].size);
		else
			EXPECT_EQ(step, 16);
	}
	EXPECT_EQ(bin_table[BIN_COUNT - 1].size, BIN_SIZE_MAX);
}

TEST(heap_size_class, the_reciprocal_finds_every_block_and_nothing_else)
{
	for (unsigned index = 0; index < BIN_COUNT; index++) {
		const struct bin_info *bin = &bin_table[index];

		for (uint32_t inner = 0; inner < SLAB_SIZE; inner++) {
			uint32_t block = inner / bin->size;
			bool starts = inner % bin->size == 0 && block < bin->count;

			if (bin_block_index(bin, inner) != (starts ? block : UINT32_MAX)) {
				TEST_FAIL("bin %u offset %u", index, inner);
				return;
			}
		}
	}
}

TEST(heap_size_class, a_bin_that_is_none_holds_no_block)
{
	for (unsigned index = BIN_COUNT; index < 256; index++) {
		EXPECT_EQ(bin_table[index].size, 0);
		EXPECT_EQ(bin_block_index(&bin_table[index], 0), UINT32_MAX);
	}
}

TEST(heap_size_class, aligned_bins_are_multiples_of_the_alignment)
{
	for (size_t alignment = 1; alignment <= BIN_SIZE_MAX; alignment *= 2)
		for (size_t size = 1; size <= BIN_SIZE_MAX; size += 61) {
			const struct bin_info *bin = &bin_table[bin_of_aligned(size, alignment)];

			ASSERT_GE(bin->size, size);
			ASSERT_EQ(bin->size % alignment, 0);
		}
}

TEST(heap_size_class, facts_of_a_slab_fit_their_area)
{
	for (unsigned index = 0; index < BIN_COUNT; index++) {
		const struct bin_info *bin = &bin_table[index];

		EXPECT_LE(bin->count, bin->facts_half);
		EXPECT_EQ(2u * bin->facts_half, 1u << bin->facts_shift);
		EXPECT_LE((uint64_t)bin->count * bin->size, SLAB_SIZE);
	}
}
