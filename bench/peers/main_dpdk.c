/*
 * main_dpdk.c - worker program shale-bench-dpdk: rte_malloc, and rte_mempool for the row pair.
 *
 * Started without huge pages, devices or files (--no-huge --no-shconf), so in one process only. Each
 * worker thread registers itself: the pool's cache belongs to a registered thread.
 */
#include <stdio.h>

#include <rte_config.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mempool.h>

#include "heap_loops.h"

enum { POOL_OBJECTS = 8191, POOL_CACHE = 256 };

static int start(struct stage *stage)
{
	static const char *const words[] = {
		"shale-bench-dpdk", "--no-huge",      "--no-pci", "-m", "1536",
		"--no-shconf",      "--no-telemetry", "-l",       "0"};
	char *argv[sizeof(words) / sizeof(words[0]) + 1] = {NULL};
	int count = (int)(sizeof(words) / sizeof(words[0]));

	for (int i = 0; i < count; i++)
		argv[i] = (char *)(uintptr_t)words[i];
	if (rte_eal_init(count, argv) >= 0)
		return 0;
	snprintf(stage->reason, sizeof(stage->reason), "rte_eal_init: %s", rte_strerror(rte_errno));
	return -1;
}

/* The thread that started DPDK is registered already. */
static int join_dpdk(struct worker *worker)
{
	if (worker->stage->workers > 1)
		return rte_thread_register();
	return 0;
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

/* ---- rte_malloc ---- */

static inline void *malloc_alloc(struct worker *worker, size_t size)
{
	(void)worker;
	return rte_malloc(NULL, size, 0);
}

static inline void malloc_free(struct worker *worker, void *ptr, size_t size)
{
	(void)worker;
	(void)size;
	rte_free(ptr);
}

static const struct heap_ops malloc_ops = {malloc_alloc, malloc_free, pack, unpack};

static void malloc_run(struct worker *worker)
{
	heap_row(&malloc_ops, worker);
}

static const struct subject subject_malloc = {
	.name = "rte_malloc",
	.open = start,
	.join = join_dpdk,
	.run = malloc_run,
	.ops = &malloc_ops,
};

/* ---- rte_mempool: objects of one size ---- */

static inline void *pool_alloc(struct worker *worker, size_t size)
{
	void *ptr = NULL;

	(void)size;
	rte_mempool_get(worker->heap, &ptr);
	return ptr;
}

static inline void pool_free(struct worker *worker, void *ptr, size_t size)
{
	(void)size;
	rte_mempool_put(worker->heap, ptr);
}

static const struct heap_ops pool_ops = {pool_alloc, pool_free, pack, unpack};

static void pool_run(struct worker *worker)
{
	heap_row(&pool_ops, worker);
}

static int pool_open(struct stage *stage)
{
	if (start(stage) != 0)
		return -1;
	stage->heap = rte_mempool_create("bench", POOL_OBJECTS, PAIR_BYTES, POOL_CACHE, 0, NULL,
					 NULL, NULL, NULL, SOCKET_ID_ANY, 0);
	if (stage->heap)
		return 0;
	snprintf(stage->reason, sizeof(stage->reason), "rte_mempool_create: %s",
		 rte_strerror(rte_errno));
	return -1;
}

static const struct subject subject_pool = {
	.name = "mempool",
	.open = pool_open,
	.join = join_dpdk,
	.run = pool_run,
	.ops = &pool_ops,
};

int main(int argc, char **argv)
{
	static const struct subject *const subjects[] = {&subject_malloc, &subject_pool};

	return worker_main(argc, argv, subjects, 2);
}
