/*
 * bits.h - powers of two, rounding and bit positions. Pure arithmetic; overflow is the caller's to
 * exclude unless a function says that it checks.
 */
#ifndef SHALE_BASE_BITS_H
#define SHALE_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB(n)              ((uint64_t)(n) << 10)
#define MIB(n)              ((uint64_t)(n) << 20)
#define GIB(n)              ((uint64_t)(n) << 30)

#define ARRAY_SIZE(array)   (sizeof(array) / sizeof((array)[0]))

#define likely(condition)   __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

#define SHALE_COLD          __attribute__((noinline, cold))

/* The bytes there are going to be written soon. Any address will do. */
#define prefetch_for_write(address) __builtin_prefetch((address), 1)

static inline bool is_power_of_two(uint64_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

/* alignment is a power of two */
static inline uint64_t round_up(uint64_t value, uint64_t alignment)
{
	return (value + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t round_down(uint64_t value, uint64_t alignment)
{
	return value & ~(alignment - 1);
}

/* Position of the highest set bit; value is not 0. */
static inline unsigned log2_floor(uint64_t value)
{
	return 63u - (unsigned)__builtin_clzll(value);
}

/* Position of the lowest set bit; value is not 0. */
static inline unsigned lowest_bit(uint64_t value)
{
	return (unsigned)__builtin_ctzll(value);
}

/* Is there a pointer wherever there are bytes? */
static inline bool bytes_given(const void *bytes, size_t size)
{
	return bytes != NULL || size == 0;
}

/* offset + size stays inside limit, without overflow. */
static inline bool range_fits(uint64_t offset, uint64_t size, uint64_t limit)
{
	return offset <= limit && size <= limit - offset;
}

#endif
