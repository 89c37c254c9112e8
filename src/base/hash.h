/*
 * hash.h - keyed 64-bit hash of bytes (XXH3 with a per-segment seed), from libxxhash's header.
 */
#ifndef SHALE_BASE_HASH_H
#define SHALE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *data, size_t size, uint64_t seed);

#endif
