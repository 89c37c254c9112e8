/*
 * facts.h - the facts of a slab, eight at a time.
 *
 * Facts are bytes with one writer each; own[] and shared[] of a slab start at multiples of 8 and are
 * zero beyond the last block. Eight of them are loaded as one word: each byte of it is as if it had
 * been loaded alone, all at the time of the load. Eight are stored as one word only where nobody else
 * may write any of them.
 *
 * Death: a store of eight is one store; what it leaves is what the same stores one by one would leave.
 */
#ifndef SHALE_HEAP_FACTS_H
#define SHALE_HEAP_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "heap/slab_layout.h"

#define FACTS_HIGH  UINT64_C(0x8080808080808080)
#define FACTS_ONES  UINT64_C(0x0101010101010101)
#define FACTS_FREED (SHARED_FREED * FACTS_ONES)

static inline uint64_t facts_load(const uint8_t *facts)
{
#ifdef SHALE_TSAN
	uint64_t word = 0;

	/* the sanitizer knows an edge by the address of its byte */
	for (unsigned i = 0; i < 8; i++)
		word |= (uint64_t)load_acquire(facts + i) << (8 * i);
	return word;
#else
	/* pairs: slab.shared - a freer's accesses to its block are over. */
	return load_acquire((const uint64_t *)(const void *)facts);
#endif
}

/* The caller is the only writer of all eight. */
static inline void facts_store(uint8_t *facts, uint64_t word)
{
	store_relaxed((uint64_t *)(void *)facts, word);
}

/* The high bit of every byte that is not zero. */
static inline uint64_t facts_nonzero(uint64_t word)
{
	return (((word & ~FACTS_HIGH) + ~FACTS_HIGH) | word) & FACTS_HIGH;
}

/* The high bits of the blocks that live. */
static inline uint64_t facts_live(uint64_t own, uint64_t shared)
{
	return facts_nonzero(own) & facts_nonzero(shared ^ FACTS_FREED);
}

/* High bits of bytes to bits 0..7. */
static inline unsigned facts_to_bits(uint64_t high)
{
	return (unsigned)(((high >> 7) * UINT64_C(0x0102040810204080)) >> 56);
}

/* The last live block of [begin, end), or end. */
static inline uint32_t facts_last_live(const uint8_t *own, const uint8_t *shared, uint32_t begin,
				       uint32_t end)
{
	for (uint32_t i = (end + 7) & ~7u; i > begin;) {
		uint64_t live;

		i -= 8;
		live = facts_live(facts_load(own + i), facts_load(shared + i));
		if (i + 8 > end)
			live &= ~UINT64_C(0) >> (8 * (i + 8 - end));
		if (live != 0) {
			i += log2_floor(live) / 8;
			return i < begin ? end : i;
		}
	}
	return end;
}

/* Bit i: own[i] == 0, for the first `count` of the 64 facts at own, which is a multiple of 8. */
static inline uint64_t facts_free_mask(const uint8_t *own, uint32_t count)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < 64; i += 8)
		mask |= (uint64_t)facts_to_bits(FACTS_HIGH & ~facts_nonzero(facts_load(own + i)))
			<< i;
	return count < 64 ? mask & ((UINT64_C(1) << count) - 1) : mask;
}

/* Bits of the blocks that others have freed; true if there is any. */
static inline bool facts_freed(const uint8_t *shared, uint32_t count, uint64_t *ret_freed)
{
	uint64_t any = 0;

	for (uint32_t i = 0; i < count; i += 8) {
		uint64_t freed = FACTS_HIGH & ~facts_nonzero(facts_load(shared + i) ^ FACTS_FREED);

		ret_freed[i / 64] |= (uint64_t)facts_to_bits(freed) << (i % 64);
		any |= freed;
	}
	return any != 0;
}

/* Nobody else writes or trusts the facts: the slab is claimed. */
static inline void facts_zero(uint8_t *facts, uint32_t count)
{
	for (uint32_t i = 0; i < count; i += 8)
		if (facts_load(facts + i) != 0)
			facts_store(facts + i, 0);
}

#endif
