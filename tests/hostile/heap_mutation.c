/*
 * A peer scribbles over the heap's metadata: whatever the bytes say, calls end, stay inside the
 * segment and return an error or a block; never a signal.
 */
#include <string.h>

#include "heap/slab.h"
#include "heaps.h"
#include "segment/view.h"

static void use(struct shale_segment *segment, void **blocks, unsigned count)
{
	struct shale_heap_figures stat = {.size = sizeof(stat)};
	unsigned char *base = shale_segment_base(segment);
	shale_ref ref;

	for (unsigned i = 0; i < count; i++) {
		size_t size = i % 7 ? 16 + i * 37 % 2000 : 70000;
		unsigned char *block = shale_alloc(segment, size);

		if (block) {
			ASSERT_GE((uintptr_t)block, (uintptr_t)base + segment->heap_offset);
			ASSERT_LE((uintptr_t)block + size, (uintptr_t)base + segment->heap_end);
			block[0] = 1;
		}
		(void)shale_free(segment, blocks[i]);
		(void)shale_usable_size(segment, block);
		(void)shale_publish(segment, block);
		(void)shale_free(segment, block);
	}
	(void)shale_heap_stat(segment, &stat);
	(void)shale_root_find(segment, "root", &ref);
	(void)shale_check(segment, NULL, NULL);
	(void)shale_recover(segment);
}

/* One round: a fresh segment with some blocks, `bytes` random bytes changed, then used. */
static void round_of(uint64_t first, uint64_t size, unsigned bytes)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	unsigned char *base = shale_segment_base(segment);
	void *blocks[40];

	for (unsigned i = 0; i < 40; i++)
		blocks[i] = shale_alloc(segment, 16 + i * 50);
	(void)shale_root_publish(segment, "root", blocks[0]);
	for (unsigned i = 0; i < bytes; i++) {
		uint64_t at = first + test_random_below(size);

		base[at] = (unsigned char)test_random_u64();
	}
	use(segment, blocks, 40);
	(void)shale_segment_detach(segment);
}

enum { AREA_TABLE, AREA_SHORT, AREA_LONG, AREA_ROOTS, AREA_HINTS };
VARIANT_SET(areas) = {
	{"arena table", AREA_TABLE, NULL}, {"short facts", AREA_SHORT, NULL},
	{"long facts", AREA_LONG, NULL},   {"roots", AREA_ROOTS, NULL},
	{"hints", AREA_HINTS, NULL},
};

static uint64_t area_first(const struct shale_segment *view, uint64_t area, uint64_t *ret_size)
{
	switch (area) {
	case AREA_TABLE:
		*ret_size = 768; /* of the first arena: all that is used */
		return view->arena_table_offset;
	case AREA_SHORT:
		*ret_size = 16 * SHORT_FACTS_STRIDE;
		return view->short_facts_offset;
	case AREA_LONG:
		*ret_size = LONG_FACTS_STRIDE;
		return view->long_facts_offset;
	case AREA_ROOTS:
		*ret_size = ROOT_COUNT * 8;
		return view->roots_offset;
	default:
		*ret_size = 64; /* the line of hints behind the high-water marks */
		return HEADER_MUTABLE_OFFSET + 128;
	}
}

TEST_V_TIMEOUT(heap_mutation, random_bytes_never_lead_outside, areas, 120)
{
	struct shale_segment *probe = heap_segment(8u << 20, SHALE_PAGES_4K);
	uint64_t size, first = area_first(probe, variant->value, &size);

	ASSERT_OK(shale_segment_detach(probe));
	for (unsigned round = 0; round < TEST_ROUNDS(150, 20000); round++)
		round_of(first, size, 1 + round % 16);
}

/* A slab word for each state, bin and lane that its bits can say. */
TEST_TIMEOUT(heap_mutation, every_low_half_of_a_slab_word_is_survived, 120)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	void *blocks[4] = {0};
	unsigned step = (unsigned)TEST_ROUNDS(37, 1);

	for (unsigned i = 0; i < 4; i++)
		blocks[i] = shale_alloc(segment, 100);
	for (uint64_t low = 0; low < 1u << 16; low += step) {
		*slab_word(segment, 0) = low * 0x10001;
		use(segment, blocks, 4);
	}
	(void)shale_segment_detach(segment);
}
