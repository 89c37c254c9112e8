/*
 * subject_malloc.c - whatever malloc this process has: glibc's, or one that was preloaded.
 *
 * Allocators that offer a call to give memory back are asked for it by name at run time.
 */
#include <dlfcn.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "heap_loops.h"
#include "subjects.h"

static inline void *malloc_alloc(struct worker *worker, size_t size)
{
	(void)worker;
	return malloc(size);
}

static inline void malloc_free(struct worker *worker, void *ptr, size_t size)
{
	(void)worker;
	(void)size;
	free(ptr);
}

static inline uint64_t malloc_pack(struct worker *worker, void *ptr)
{
	(void)worker;
	return (uint64_t)(uintptr_t)ptr;
}

static inline void *malloc_unpack(struct worker *worker, uint64_t handle)
{
	(void)worker;
	return (void *)(uintptr_t)handle;
}

static const struct heap_ops ops = {malloc_alloc, malloc_free, malloc_pack, malloc_unpack};

static void malloc_run(struct worker *worker)
{
	heap_row(&ops, worker);
}

enum { JEMALLOC_ALL_ARENAS = 4096, TBB_CLEAN_ALL_BUFFERS = 0 };

/* A preloaded malloc comes before libc, whose malloc_trim() would look at a heap that is not used. */
static void malloc_trim_any(struct stage *stage)
{
	void (*mi_collect)(bool force) = (void (*)(bool))dlsym(RTLD_DEFAULT, "mi_collect");
	int (*mallctl)(const char *, void *, size_t *, void *, size_t) =
		(int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT,
									       "mallctl");
	void (*tcmalloc)(void) =
		(void (*)(void))dlsym(RTLD_DEFAULT, "MallocExtension_ReleaseFreeMemory");
	int (*tbb)(int, void *) =
		(int (*)(int, void *))dlsym(RTLD_DEFAULT, "scalable_allocation_command");
	char purge[40];

	(void)stage;
	if (mi_collect) {
		mi_collect(true);
	} else if (mallctl) {
		snprintf(purge, sizeof(purge), "arena.%d.purge", JEMALLOC_ALL_ARENAS);
		mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
		mallctl(purge, NULL, NULL, NULL, 0);
	} else if (tcmalloc) {
		tcmalloc();
	} else if (tbb) {
		tbb(TBB_CLEAN_ALL_BUFFERS, NULL);
	} else {
		malloc_trim(0);
	}
}

const struct subject subject_malloc = {
	.name = "malloc",
	.rows = ROWS_PRIVATE,
	.run = malloc_run,
	.ops = &ops,
	.trim = malloc_trim_any,
};
