/*
 * size_class.h - request -> bin, and what a bin is.
 *
 * 72 bins: 16 to 128 bytes in steps of 16, then eight steps to each doubling (at most 12.5 % apart)
 * up to 32 KiB. A block's index in its slab is found without a division: reciprocal is
 * ceil(2^32 / size), exact for every offset below 64 KiB (unit test: every offset of every bin).
 *
 * Pure arithmetic on constants. The table has an entry for each of the 256 values that the bin field
 * of a slab word can take; those that are no bin have 0 blocks, so that a lie fits nothing.
 */
#ifndef SHALE_HEAP_SIZE_CLASS_H
#define SHALE_HEAP_SIZE_CLASS_H

#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "heap/slab_layout.h"

#define BIN_COUNT    72u
#define BIN_SIZE_MAX 32768u

struct bin_info {
	uint32_t size;       /* bytes of a block; 0 if there is no such bin */
	uint32_t reciprocal; /* ceil(2^32 / size) */
	uint16_t count;      /* blocks of a slab */
	uint8_t facts_long;  /* 1: the facts are in the long area */
	uint8_t facts_shift; /* log2 of the area's bytes per slab */
	uint16_t facts_half; /* from own[0] to shared[0] */
};

extern const struct bin_info bin_table[256] __attribute__((visibility("hidden")));

/* size <= BIN_SIZE_MAX */
static inline unsigned bin_of_size(size_t size)
{
	unsigned exponent;

	if (size <= 128)
		return size == 0 ? 0 : (unsigned)((size - 1) >> 4);
	exponent = log2_floor(size - 1);
	return 8u + (exponent - 7u) * 8u + ((unsigned)((size - 1) >> (exponent - 3u)) & 7u);
}

/* The smallest bin of `size` bytes at least whose blocks are all aligned; alignment <= 32 KiB. */
unsigned bin_of_aligned(size_t size, size_t alignment);

/* Index of the block that starts at `inner` bytes into its slab; UINT32_MAX if none starts there. */
static inline uint32_t bin_block_index(const struct bin_info *bin, uint32_t inner)
{
	uint32_t index = (uint32_t)(((uint64_t)inner * bin->reciprocal) >> 32);

	return index < bin->count && index * bin->size == inner ? index : UINT32_MAX;
}

#endif
