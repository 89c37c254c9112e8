/*
 * broken_malloc.c - a malloc to preload that is wrong now and then, so that the benchmark can be seen
 * to notice.
 *
 * For sizes from 1100 to 1200 bytes, which only the row asks for:
 *   SHALE_TEST_MALLOC=twice   hands out one block again and again
 *   SHALE_TEST_MALLOC=crash   aborts
 * All else is glibc's.
 *
 * Owner:     the process that it is preloaded into; the block that is handed out twice is static.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { LOW = 1100, HIGH = 1200 };

void *__libc_malloc(size_t size);
void __libc_free(void *ptr);

static _Alignas(16) char block[HIGH];

void *malloc(size_t size)
{
	const char *how = size >= LOW && size <= HIGH ? getenv("SHALE_TEST_MALLOC") : NULL;

	if (how && strcmp(how, "twice") == 0)
		return block;
	if (how && strcmp(how, "crash") == 0)
		abort();
	return __libc_malloc(size);
}

void free(void *ptr)
{
	if (ptr != block)
		__libc_free(ptr);
}
