/*
 * main_boost.c - worker program shale-bench-boost: Boost.Interprocess, shared by threads or processes.
 */
#include "boost.h"
#include "heap_loops.h"

#define HEAP_BYTES (UINT64_C(3) << 30)

static inline void *alloc(struct worker *worker, size_t size)
{
	(void)worker;
	return boost_heap_alloc(size);
}

static inline void release(struct worker *worker, void *ptr, size_t size)
{
	(void)worker;
	(void)size;
	boost_heap_free(ptr);
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
	return boost_heap_open(HEAP_BYTES, stage->reason, sizeof(stage->reason));
}

static const struct subject subject_boost = {
	.name = "boost",
	.rows = ROWS_PRIVATE,
	.shared = true,
	.open = open_heap,
	.run = run,
	.ops = &ops,
};

int main(int argc, char **argv)
{
	static const struct subject *const subjects[] = {&subject_boost};

	return worker_main(argc, argv, subjects, 1);
}
