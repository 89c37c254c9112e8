/*
 * size_class.c - the table of bins.
 *
 * Constant data; nothing here is in a segment.
 *
 * Death: nothing to repair.
 */
#include "heap/size_class.h"

#define BIN_BLOCKS(bytes)     ((uint32_t)SLAB_SIZE / (bytes))
#define BIN_LONG(bytes)       (BIN_BLOCKS(bytes) > SHORT_FACTS_BLOCKS)
#define BIN_RECIPROCAL(bytes) ((uint32_t)((UINT64_C(1) << 32) / (bytes)) + 1u)
#define BIN_EXCESS(bytes)     ((uint32_t)((bytes)*BIN_RECIPROCAL(bytes))) /* modulo 2^32 */
#define BIN(bytes)                                                                      \
	{                                                                               \
		.size = (bytes), .reciprocal = BIN_RECIPROCAL(bytes),                   \
		.limit = BIN_BLOCKS(bytes) * BIN_EXCESS(bytes),                         \
		.count = (uint16_t)BIN_BLOCKS(bytes), .facts_long = BIN_LONG(bytes),    \
		.facts_shift = BIN_LONG(bytes) ? 13 : 10,                               \
		.facts_half = BIN_LONG(bytes) ? LONG_FACTS_BLOCKS : SHORT_FACTS_BLOCKS, \
	}
#define BIN_DOUBLING(base)                                                                     \
	BIN((base) / 8 * 9), BIN((base) / 8 * 10), BIN((base) / 8 * 11), BIN((base) / 8 * 12), \
		BIN((base) / 8 * 13), BIN((base) / 8 * 14), BIN((base) / 8 * 15), BIN((base)*2)

_Static_assert(SHORT_FACTS_STRIDE == 1u << 10, "facts_shift of the short area");
_Static_assert(LONG_FACTS_STRIDE == 1u << 13, "facts_shift of the long area");

const struct bin_info bin_table[256] = {
	BIN(16),
	BIN(32),
	BIN(48),
	BIN(64),
	BIN(80),
	BIN(96),
	BIN(112),
	BIN(128),
	BIN_DOUBLING(128),
	BIN_DOUBLING(256),
	BIN_DOUBLING(512),
	BIN_DOUBLING(1024),
	BIN_DOUBLING(2048),
	BIN_DOUBLING(4096),
	BIN_DOUBLING(8192),
	BIN_DOUBLING(16384),
};

unsigned bin_of_aligned(size_t size, size_t alignment)
{
	unsigned bin = bin_of_size(size < alignment ? alignment : size);

	while (bin_table[bin].size % alignment != 0)
		bin++;
	return bin;
}
