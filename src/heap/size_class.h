/*
 * size_class.h - request -> bin, and what a bin is.
 *
 * 72 bins: 16 to 128 bytes in steps of 16, then eight steps to each doubling (at most 12.5 % apart)
 * up to 32 KiB. A block's index in its slab is found without a division, and in the same multiply
 * whether a block starts there at all:
 *
 *   reciprocal = floor(2^32 / size) + 1, so size * reciprocal = 2^32 + e with 1 <= e <= size
 *   inner = i * size + rest  ->  inner * reciprocal = i * 2^32 + (i * e + rest * reciprocal)
 *
 * The sum on the right stays below 2^32 for every inner below 64 KiB, so the high half is i. With
 * rest = 0 the low half is i * e; otherwise it is at least reciprocal, above 2^17 - and count * e is
 * at most 2^16. So "low half < count * e" says both: a block starts at inner, and its index is below
 * count (unit test: every offset of every bin).
 *
 * Pure arithmetic on constants. The table has an entry for each of the 256 values that the bin field
 * of a slab word can take; those that are no bin have 0 blocks, so that a lie fits nothing.
 */
#ifndef SHALE_HEAP_SIZE_CLASS_H
#define SHALE_HEAP_SIZE_CLASS_H

#include <stddef.h>
#include <stdint.h>

#include <shale/heap.h>

#include "base/bits.h"
#include "heap/slab_layout.h"

#define BIN_COUNT    SHALE_CLASS_COUNT
#define BIN_SIZE_MAX SHALE_CLASS_BYTES_MAX

struct bin_info {
	uint32_t size;       /* bytes of a block; 0 if there is no such bin */
	uint32_t reciprocal; /* floor(2^32 / size) + 1 */
	uint32_t limit;      /* count * (size * reciprocal - 2^32) */
	uint16_t count;      /* blocks of a slab */
	uint8_t facts_long;  /* 1: the facts are in the long area */
	uint8_t facts_shift; /* log2 of the area's bytes per slab */
	uint16_t facts_half; /* from own[0] to shared[0] */
};

extern const struct bin_info bin_table[256] __attribute__((visibility("hidden")));

/* size <= BIN_SIZE_MAX */
static inline unsigned bin_of_size(size_t size)
{
	return shale_class_of(size);
}

/* The smallest bin of `size` bytes at least whose blocks are all aligned; alignment <= 32 KiB. */
unsigned bin_of_aligned(size_t size, size_t alignment);

/* Index of the block that starts at `inner` bytes into its slab; UINT32_MAX if none starts there. */
static inline uint32_t bin_block_index(const struct bin_info *bin, uint32_t inner)
{
	uint64_t product = (uint64_t)inner * bin->reciprocal;

	return (uint32_t)product < bin->limit ? (uint32_t)(product >> 32) : UINT32_MAX;
}

#endif
