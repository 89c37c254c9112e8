/* Allocate, free, resize in one process: every size, every misuse, exact counts. */
#include <string.h>

#include "heaps.h"
#include "segment/view.h"

FIXTURE(heap_blocks)
{
	struct shale_segment *segment;
};
FIXTURE_VARIANT(heap_blocks)
{
	enum shale_pages pages;
};
FIXTURE_VARIANT_ADD(heap_blocks, 4k){SHALE_PAGES_4K};
FIXTURE_VARIANT_ADD(heap_blocks, thp){SHALE_PAGES_THP};
FIXTURE_VARIANT_ADD(heap_blocks, 2m){SHALE_PAGES_2M};
FIXTURE_VARIANT_ADD(heap_blocks, private){SHALE_PAGES_PRIVATE};

FIXTURE_SETUP(heap_blocks)
{
	self->segment = heap_segment(64u << 20, variant->pages);
}

FIXTURE_TEARDOWN(heap_blocks)
{
	if (self->segment) {
		heap_expect_clean(self->segment);
		EXPECT_OK(shale_segment_detach(self->segment));
	}
}

TEST_F(heap_blocks, sizes_up_to_32_kib_are_usable_and_distinct)
{
	enum { COUNT = 4000 };
	static unsigned char *blocks[COUNT];
	static size_t sizes[COUNT];

	for (unsigned i = 0; i < COUNT; i++) {
		sizes[i] = (size_t)test_random_below(i % 8 == 0 ? 32769 : 600);
		blocks[i] = shale_alloc(self->segment, sizes[i]);
		ASSERT_NOT_NULL(blocks[i]);
		EXPECT_EQ((uintptr_t)blocks[i] % 16, 0);
		EXPECT_GE(shale_usable_size(self->segment, blocks[i]), sizes[i]);
		memset(blocks[i], (int)(i & 0xff), sizes[i]);
	}
	for (unsigned i = 0; i < COUNT; i++)
		for (size_t j = 0; j < sizes[i]; j++)
			ASSERT_EQ(blocks[i][j], i & 0xff);
	EXPECT_EQ(heap_counts(self->segment).live_blocks, COUNT);
	for (unsigned i = 0; i < COUNT; i++)
		ASSERT_OK(shale_free(self->segment, blocks[i]));
	EXPECT_EQ(heap_counts(self->segment).live_blocks, 0);
	EXPECT_EQ(heap_counts(self->segment).live_bytes, 0);
}

TEST_F(heap_blocks, spans_hold_blocks_of_64_kib_to_several_arenas)
{
	static const size_t sizes[] = {32769, 65536, 65537, 1 << 20, 2 << 20, 5 << 20, 13 << 20};
	unsigned char *blocks[sizeof(sizes) / sizeof(sizes[0])];

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		blocks[i] = shale_alloc(self->segment, sizes[i]);
		ASSERT_NOT_NULL(blocks[i]);
		EXPECT_GE(shale_usable_size(self->segment, blocks[i]), sizes[i]);
		memset(blocks[i], (int)i + 1, sizes[i]);
	}
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		EXPECT_EQ(blocks[i][0], i + 1);
		EXPECT_EQ(blocks[i][sizes[i] - 1], i + 1);
		if (sizes[i] > 65536)
			EXPECT_ERRNO(-EINVAL, shale_free(self->segment, blocks[i] + 65536));
		EXPECT_OK(shale_free(self->segment, blocks[i]));
		EXPECT_ERRNO(-EALREADY, shale_free(self->segment, blocks[i]));
	}
	EXPECT_EQ(heap_counts(self->segment).live_blocks, 0);
}

TEST_F(heap_blocks, alignment_up_to_2_mib_holds_for_address_and_offset)
{
	for (size_t alignment = 1; alignment <= 2u << 20; alignment *= 2) {
		for (size_t size = 1; size < 3 * alignment && size < 4u << 20;
		     size = size * 3 + 7) {
			void *block = shale_alloc_aligned(self->segment, size, alignment);

			ASSERT_NOT_NULL(block);
			EXPECT_EQ((uintptr_t)block % alignment, 0);
			EXPECT_EQ(shale_ref_of(self->segment, block).off % alignment, 0);
			EXPECT_OK(shale_free(self->segment, block));
		}
	}
	errno = 0;
	EXPECT_NULL(shale_alloc_aligned(self->segment, 16, 48));
	EXPECT_EQ(errno, EINVAL);
	EXPECT_NULL(shale_alloc_aligned(self->segment, 16, 0));
	EXPECT_NULL(shale_alloc_aligned(self->segment, 16, 4u << 20));
}

TEST_F(heap_blocks, double_foreign_and_interior_frees_are_refused)
{
	char *block = shale_alloc(self->segment, 100);
	char local[16];

	ASSERT_NOT_NULL(block);
	EXPECT_ERRNO(-EINVAL, shale_free(self->segment, block + 1));
	EXPECT_ERRNO(-EINVAL, shale_free(self->segment, block + 16));
	EXPECT_ERRNO(-EINVAL, shale_free(self->segment, local));
	EXPECT_ERRNO(-EINVAL, shale_free(self->segment, shale_segment_base(self->segment)));
	EXPECT_OK(shale_free(self->segment, block));
	EXPECT_ERRNO(-EALREADY, shale_free(self->segment, block));
	EXPECT_OK(shale_free(self->segment, NULL));
	EXPECT_EQ(shale_usable_size(self->segment, block), 0);
	EXPECT_EQ(shale_usable_size(self->segment, local), 0);
}

TEST_F(heap_blocks, zeroed_blocks_are_zero_when_reused)
{
	for (unsigned round = 0; round < 50; round++) {
		size_t size = 1 + (size_t)test_random_below(100000);
		unsigned char *block = shale_alloc_zeroed(self->segment, size);

		ASSERT_NOT_NULL(block);
		for (size_t i = 0; i < size; i++)
			ASSERT_EQ(block[i], 0);
		memset(block, 0xee, shale_usable_size(self->segment, block));
		ASSERT_OK(shale_free(self->segment, block));
	}
}

/* Fresh pages are not zeroed again, so blocks of them must not come back as if they were fresh. */
TEST_F(heap_blocks, zeroed_blocks_are_zero_from_fresh_slabs_and_from_used_ones)
{
	enum { COUNT = 600, BYTES = 1000 };
	static unsigned char *blocks[COUNT];

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			blocks[i] = shale_alloc_zeroed(self->segment, BYTES);
			ASSERT_NOT_NULL(blocks[i]);
			for (unsigned j = 0; j < BYTES; j++)
				ASSERT_EQ(blocks[i][j], 0);
			memset(blocks[i], 0xee, shale_usable_size(self->segment, blocks[i]));
			/* one that comes back while its slab is still scanned for the first time */
			if (i % 5 == 0) {
				ASSERT_OK(shale_free(self->segment, blocks[i]));
				blocks[i] = shale_alloc(self->segment, BYTES);
			}
		}
		for (unsigned i = 0; i < COUNT; i++)
			ASSERT_OK(shale_free(self->segment, blocks[i]));
	}
}

TEST_F(heap_blocks, resize_keeps_the_bytes)
{
	unsigned char *block = shale_resize(self->segment, NULL, 10);
	size_t size = 10;

	ASSERT_NOT_NULL(block);
	memset(block, 7, size);
	for (unsigned i = 0; i < 60; i++) {
		size_t next = 1 + (size_t)test_random_below(i % 4 ? 3000 : 300000);

		block = shale_resize(self->segment, block, next);
		ASSERT_NOT_NULL(block);
		for (size_t j = 0; j < (next < size ? next : size); j++)
			ASSERT_EQ(block[j], 7);
		memset(block, 7, next);
		size = next;
	}
	ASSERT_OK(shale_publish(self->segment, block));
	errno = 0;
	EXPECT_NULL(shale_resize(self->segment, block, 20u << 20));
	EXPECT_EQ(errno, EBUSY);
	EXPECT_OK(shale_free(self->segment, block));
	EXPECT_NULL(shale_resize(self->segment, block, 10));
}

TEST_F(heap_blocks, a_full_segment_says_ENOMEM_and_recovers)
{
	static void *blocks[70000];
	unsigned count = 0;
	void *block;

	while (count < 70000 && (block = shale_alloc(self->segment, 1024)) != NULL)
		blocks[count++] = block;
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_EQ(count, (64u << 20) / 1024);
	EXPECT_NULL(shale_alloc(self->segment, 100000));
	EXPECT_EQ(errno, ENOMEM);
	for (unsigned i = 0; i < count; i++)
		ASSERT_OK(shale_free(self->segment, blocks[i]));
	block = shale_alloc(self->segment, 60u << 20);
	EXPECT_NOT_NULL(block);
	EXPECT_OK(shale_free(self->segment, block));
}

TEST_F(heap_blocks, slabs_of_one_size_serve_another_size_later)
{
	static void *blocks[600000];
	static const size_t sizes[] = {16, 4096, 48, 1000, 20000};

	for (unsigned round = 0; round < sizeof(sizes) / sizeof(sizes[0]); round++) {
		unsigned count = (unsigned)((40u << 20) / sizes[round]);

		if (count > 600000)
			count = 600000;
		for (unsigned i = 0; i < count; i++) {
			blocks[i] = shale_alloc(self->segment, sizes[round]);
			ASSERT_NOT_NULL(blocks[i]);
		}
		for (unsigned i = 0; i < count; i++)
			ASSERT_OK(shale_free(self->segment, blocks[i]));
	}
}

TEST_F(heap_blocks, trim_gives_empty_arenas_back)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	uint64_t before;
	void *block = shale_alloc(self->segment, 20u << 20);

	ASSERT_NOT_NULL(block);
	memset(block, 1, 20u << 20);
	ASSERT_OK(shale_segment_stat(self->segment, &stat));
	before = stat.backing_bytes;
	ASSERT_OK(shale_free(self->segment, block));
	EXPECT_GE(shale_trim(self->segment, 0), 20 << 20);
	EXPECT_EQ(heap_counts(self->segment).committed_bytes, 0);
	EXPECT_GE(heap_counts(self->segment).returned_bytes, 20u << 20);
	if (shale_segment_fd(self->segment) >= 0) {
		ASSERT_OK(shale_segment_stat(self->segment, &stat));
		EXPECT_LE(stat.backing_bytes + (20u << 20), before);
	}
	block = shale_alloc_zeroed(self->segment, 20u << 20);
	ASSERT_NOT_NULL(block);
	EXPECT_OK(shale_free(self->segment, block));
}

TEST_F(heap_blocks, refs_are_checked)
{
	char *block = shale_alloc(self->segment, 64);
	shale_ref ref = shale_ref_of(self->segment, block);

	EXPECT_PTR_EQ(shale_ptr(self->segment, ref, 64), block);
	EXPECT_NULL(shale_ptr(self->segment, (shale_ref){0}, 1));
	EXPECT_NULL(shale_ptr(self->segment, (shale_ref){64}, 1));
	EXPECT_NULL(shale_ptr(self->segment, ref, SIZE_MAX));
	EXPECT_NULL(shale_ptr(self->segment, (shale_ref){UINT64_MAX - 8}, 16));
	EXPECT_EQ(shale_ref_of(self->segment, NULL).off, 0);
	EXPECT_EQ(shale_ref_of(self->segment, &ref).off, 0);
	EXPECT_OK(shale_free(self->segment, block));
}

TEST_F(heap_blocks, roots_are_found_by_name)
{
	char *a = shale_alloc(self->segment, 64), *b = shale_alloc(self->segment, 64);
	char name[64];
	shale_ref ref;

	ASSERT_OK(shale_root_publish(self->segment, "a", a));
	EXPECT_ERRNO(-EEXIST, shale_root_publish(self->segment, "a", b));
	EXPECT_ERRNO(-EINVAL, shale_root_publish(self->segment, "", b));
	EXPECT_ERRNO(-EINVAL, shale_root_publish(self->segment, NULL, b));
	memset(name, 'x', sizeof(name));
	name[48] = 0;
	EXPECT_ERRNO(-EINVAL, shale_root_publish(self->segment, name, b));
	name[47] = 0;
	EXPECT_OK(shale_root_publish(self->segment, name, b));
	EXPECT_OK(shale_root_find(self->segment, "a", &ref));
	EXPECT_EQ(ref.off, shale_ref_of(self->segment, a).off);
	EXPECT_OK(shale_root_find(self->segment, name, &ref));
	EXPECT_EQ(ref.off, shale_ref_of(self->segment, b).off);
	EXPECT_ERRNO(-ENOENT, shale_root_find(self->segment, "nobody", &ref));
	for (unsigned i = 0; i < 510; i++) {
		(void)snprintf(name, sizeof(name), "root %u", i);
		ASSERT_OK(shale_root_publish(self->segment, name, a));
	}
	EXPECT_ERRNO(-ENOSPC, shale_root_publish(self->segment, "one too many", a));
	EXPECT_OK(shale_root_find(self->segment, "root 77", &ref));
}

TEST_F(heap_blocks, publish_at_and_take_at_move_a_block)
{
	uint64_t *place = shale_alloc_zeroed(self->segment, 64);
	char *block = shale_alloc(self->segment, 64), *other = shale_alloc(self->segment, 64);
	uint64_t *unpublished = shale_alloc_zeroed(self->segment, 100000);
	void *taken = NULL;

	ASSERT_OK(shale_publish(self->segment, place));
	EXPECT_ERRNO(-ENOENT, shale_take_at(self->segment, place, &taken));
	EXPECT_OK(shale_publish_at(self->segment, block, place, 0));
	EXPECT_ERRNO(-EAGAIN, shale_publish_at(self->segment, other, place, 0));
	EXPECT_EQ(heap_counts(self->segment).own_blocks, 2);
	EXPECT_OK(shale_take_at(self->segment, place, &taken));
	EXPECT_PTR_EQ(taken, block);
	EXPECT_EQ(*place, 0);
	*place = 17;
	EXPECT_ERRNO(-EINVAL, shale_take_at(self->segment, place, &taken));
	EXPECT_EQ(*place, 17);
	/* the word is the user's: what it holds says nothing about the segment */
	EXPECT_FALSE(self->segment->damaged);
	EXPECT_ERRNO(-EINVAL, shale_publish_at(self->segment, other, unpublished + 1, 0));
	EXPECT_OK(shale_publish(self->segment, unpublished));
	EXPECT_OK(shale_publish_at(self->segment, block, unpublished + 1, 0));
	EXPECT_OK(shale_take_at(self->segment, unpublished + 1, &taken));
	EXPECT_ERRNO(-EINVAL, shale_publish_at(self->segment, other, place + 100000000, 0));
	EXPECT_OK(shale_free(self->segment, block));
	EXPECT_OK(shale_free(self->segment, other));
}
