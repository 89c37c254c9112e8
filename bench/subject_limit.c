/*
 * subject_limit.c - the limits that figures are multiples of: tlfl and none.
 *
 *   tlfl  thread-local free lists of exact-size classes (steps of 16 bytes), filled by a cursor that
 *         runs through reserved pages. No check, no header, no thread but one's own, nothing ever
 *         given back: nothing that must also be correct can be faster.
 *   none  a pool of fixed places taken in turn: what the loop costs without any allocation.
 *
 * Owner:     lists and cursors belong to the thread; a block freed elsewhere goes to the list there.
 * Lifetime:  the process. In processes the pages are shared, so that blocks can change hands.
 */
#include <stdio.h>
#include <sys/mman.h>

#include "heap_loops.h"
#include "subjects.h"

enum { CLASS_BYTES = 16, CLASSES = 257 };

#define CURSOR_BYTES (UINT64_C(3) << 30) /* reserved for each worker, touched as needed */

static __thread void *lists[CLASSES];
static __thread char *cursor, *cursor_end;

/* ---- tlfl ---- */

static inline size_t class_of(size_t size)
{
	return (size + CLASS_BYTES - 1) / CLASS_BYTES;
}

/* Behind a call, as every allocator of a library is. */
static __attribute__((noinline)) void *tlfl_alloc(struct worker *worker, size_t size)
{
	size_t class = class_of(size);
	void *ptr = lists[class];

	(void)worker;
	if (__builtin_expect(ptr != NULL, 1)) {
		lists[class] = *(void **)ptr;
		return ptr;
	}
	ptr = cursor;
	cursor += class * CLASS_BYTES;
	return cursor <= cursor_end ? ptr : NULL;
}

static __attribute__((noinline)) void tlfl_free(struct worker *worker, void *ptr, size_t size)
{
	size_t class = class_of(size);

	(void)worker;
	*(void **)ptr = lists[class];
	lists[class] = ptr;
}

static inline uint64_t same_pack(struct worker *worker, void *ptr)
{
	(void)worker;
	return (uint64_t)(uintptr_t)ptr;
}

static inline void *same_unpack(struct worker *worker, uint64_t handle)
{
	(void)worker;
	return (void *)(uintptr_t)handle;
}

static const struct heap_ops tlfl_ops = {tlfl_alloc, tlfl_free, same_pack, same_unpack};

static void *reserve(const struct stage *stage, size_t bytes, int flags)
{
	void *pages;

	flags |= MAP_ANONYMOUS | (stage->processes ? MAP_SHARED : MAP_PRIVATE);
	pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

static int tlfl_open(struct stage *stage)
{
	stage->heap = reserve(stage, CURSOR_BYTES * stage->workers, MAP_NORESERVE);
	if (!stage->heap)
		snprintf(stage->reason, sizeof(stage->reason), "no address space");
	return stage->heap ? 0 : -1;
}

static int tlfl_join(struct worker *worker)
{
	cursor = (char *)worker->heap + CURSOR_BYTES * worker->index;
	cursor_end = cursor + CURSOR_BYTES;
	return 0;
}

static void tlfl_run(struct worker *worker)
{
	heap_row(&tlfl_ops, worker);
}

const struct subject subject_tlfl = {
	.name = "tlfl",
	.rows = ROW_BIT(ROW_PAIR) | ROW_BIT(ROW_BATCH) | ROW_BIT(ROW_REPLACE) |
		ROW_BIT(ROW_REPLACEX) | ROW_BIT(ROW_BURST),
	.shared = true,
	.open = tlfl_open,
	.join = tlfl_join,
	.run = tlfl_run,
	.ops = &tlfl_ops,
};

/* ---- none ---- */

/* As many as are ever in use at a time: 4,096 in the ring and 64 on either side, 16 large ones. */
enum { SMALL_PLACES = 8192, LARGE_PLACES = 16 };

static __thread uint64_t place;

static inline void *small_alloc(struct worker *worker, size_t size)
{
	(void)size;
	return (char *)worker->heap + place++ % SMALL_PLACES * SMALL_HIGH;
}

static inline void *large_alloc(struct worker *worker, size_t size)
{
	(void)size;
	return (char *)worker->heap + place++ % LARGE_PLACES * LARGE_HIGH;
}

static inline void none_free(struct worker *worker, void *ptr, size_t size)
{
	(void)worker;
	(void)ptr;
	(void)size;
}

static const struct heap_ops small_ops = {small_alloc, none_free, same_pack, same_unpack};
static const struct heap_ops large_ops = {large_alloc, none_free, same_pack, same_unpack};

static int none_open(struct stage *stage)
{
	stage->heap =
		reserve(stage, (size_t)LARGE_PLACES * LARGE_HIGH * stage->workers, MAP_POPULATE);
	if (!stage->heap)
		snprintf(stage->reason, sizeof(stage->reason), "no address space");
	return stage->heap ? 0 : -1;
}

/*
 * prodcons has one pool for both; a worker that keeps its large objects has its own. A forked process
 * has no page tables for shared pages yet: made here, they are not faulted in while it is timed. The
 * other worker may have begun, so the bytes stay as they are.
 */
static int none_join(struct worker *worker)
{
	size_t bytes = (size_t)LARGE_PLACES * LARGE_HIGH;

	if (worker->stage->row->id == ROW_PRODCONS)
		bytes = (size_t)SMALL_PLACES * SMALL_HIGH;
	else
		worker->heap = (char *)worker->heap + bytes * worker->index;
	madvise(worker->heap, bytes,
		MADV_POPULATE_WRITE); /* without it: the first figures are slow */
	return 0;
}

static void none_run(struct worker *worker)
{
	if (worker->stage->row->id == ROW_PRODCONS)
		heap_row(&small_ops, worker);
	else
		heap_row(&large_ops, worker);
}

const struct subject subject_none = {
	.name = "none",
	.rows = ROW_BIT(ROW_PRODCONS) | ROW_BIT(ROW_LARGE) | ROW_BIT(ROW_LARGET),
	.shared = true,
	.open = none_open,
	.join = none_join,
	.run = none_run,
	.ops = &large_ops,
};
