/*
 * objects.h - what a row does with a block: sizes drawn at random, marks written and checked.
 *
 * Every object carries a mark in its first and last 8 bytes. The first word of an object that
 * changes hands also holds its size, so that whoever frees it needs nothing else.
 */
#ifndef SHALE_BENCH_OBJECTS_H
#define SHALE_BENCH_OBJECTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "subject.h"

/* xorshift64*: one multiplication, enough to pick a slot. The state is never 0. */
BENCH_INLINE uint32_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)(*state * UINT64_C(0x2545f4914f6cdd1d) >> 32);
}

/* 0 .. n-1 */
BENCH_INLINE uint32_t random_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)((uint64_t)random_next(state) * n >> 32);
}

/* The compiler may assume nothing about *ptr or any memory: no allocation is optimised away. */
BENCH_INLINE void keep(void *ptr)
{
	__asm__ volatile("" : : "r"(ptr) : "memory");
}

BENCH_INLINE uint64_t object_word(size_t size, uint32_t tag)
{
	return (uint64_t)size << 32 | tag;
}

BENCH_INLINE void object_write(void *ptr, size_t size, uint64_t word)
{
	uint64_t last = ~word;

	memcpy(ptr, &word, sizeof(word));
	memcpy((char *)ptr + size - sizeof(last), &last, sizeof(last));
}

BENCH_INLINE uint64_t object_first(const void *ptr)
{
	uint64_t word;

	memcpy(&word, ptr, sizeof(word));
	return word;
}

/* 0: it holds what was written */
BENCH_INLINE uint64_t object_wrong(const void *ptr, size_t size, uint64_t word)
{
	uint64_t last;

	memcpy(&last, (const char *)ptr + size - sizeof(last), sizeof(last));
	return object_first(ptr) != word || last != ~word;
}

/* Fills sizes[count]: uniform, or with equal weight for each ratio of sizes (log-uniform). */
void sizes_uniform(uint32_t *sizes, size_t count, uint32_t low, uint32_t high, uint64_t *random);
void sizes_log(uint32_t *sizes, size_t count, uint32_t low, uint32_t high, uint64_t *random);
/* Fills order[count] with 0 .. count-1 in a random order. */
void order_random(uint32_t *order, size_t count, uint64_t *random);

/* Zeroed pages, touched already, outside of every allocator; ends the program when there are none. */
void *pages_map(size_t bytes);

uint64_t now_ns(void);
/* Processor time of the calling thread. */
uint64_t now_cpu_ns(void);
void sleep_ns(uint64_t ns);

#endif
