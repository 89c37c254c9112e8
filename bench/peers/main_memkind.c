/*
 * main_memkind.c - worker program shale-bench-memkind: a PMEM kind, a jemalloc inside a file.
 *
 * The file lies in /dev/shm, the folder of shared memory; memkind unlinks it at once, so no other
 * process can join.
 */
#include <stdio.h>

#include <memkind.h>

#include "heap_loops.h"

#define HEAP_BYTES (UINT64_C(2) << 30)

static inline void *alloc(struct worker *worker, size_t size)
{
	return memkind_malloc(worker->heap, size);
}

static inline void release(struct worker *worker, void *ptr, size_t size)
{
	(void)size;
	memkind_free(worker->heap, ptr);
}

static inline uint64_t pack(struct worker *worker, void *ptr)
{
	(void)worker;
	return (uint64_t)(uintptr_t)ptr;
}

static inline void *unpack(struct worker *worker, uint64_t handle)
{
	(void)worker;
	return (void *)(uintptr_t)handle;
}

static const struct heap_ops ops = {alloc, release, pack, unpack};

static void run(struct worker *worker)
{
	heap_row(&ops, worker);
}

static int open_heap(struct stage *stage)
{
	struct memkind *kind;
	int r = memkind_create_pmem("/dev/shm", HEAP_BYTES, &kind);

	if (r != 0) {
		snprintf(stage->reason, sizeof(stage->reason), "memkind_create_pmem: error %d", r);
		return -1;
	}
	stage->heap = kind;
	return 0;
}

static const struct subject subject_memkind = {
	.name = "memkind",
	.open = open_heap,
	.run = run,
	.ops = &ops,
};

int main(int argc, char **argv)
{
	static const struct subject *const subjects[] = {&subject_memkind};

	return worker_main(argc, argv, subjects, 1);
}
