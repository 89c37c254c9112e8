/*
 * boost.h - Boost.Interprocess behind four C functions.
 */
#ifndef SHALE_BENCH_BOOST_H
#define SHALE_BENCH_BOOST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the heap of this process and those it forks. 0, or -1 with the reason. */
int boost_heap_open(uint64_t bytes, char *reason, size_t size);
void *boost_heap_alloc(size_t size);
void boost_heap_free(void *ptr);

#ifdef __cplusplus
}
#endif

#endif
