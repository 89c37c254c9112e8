/*
 * subject_shale.c - ours: a segment on pages of the kind that the variant names.
 *
 *   4k thp 2m private         the page kind; "private" is anonymous memory of one process
 *   ... +keeper               with a keeper thread (shale_keeper_start), where the library has it
 *
 * A worker process attaches to the descriptor, as a program that was handed it would: its view lies
 * elsewhere, and what crosses to the other worker is a ref.
 *
 * Owner:     stage->heap is the stage's view; a worker process makes its own.
 * Lifetime:  the process; the memfd goes with its last view.
 * Death:     what a killed worker held is recovered by nobody: the run is over.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <shale/heap.h>
#include <shale/segment.h>
#ifdef SHALE_BENCH_KEEPER
#include <shale/keeper.h>
#endif

#include "heap_loops.h"
#include "subjects.h"

#define CAPACITY_BYTES (UINT64_C(64) << 30)

static inline void *ours_alloc(struct worker *worker, size_t size)
{
	return shale_alloc(worker->heap, size);
}

static inline void ours_free(struct worker *worker, void *ptr, size_t size)
{
	(void)size;
	if (__builtin_expect(shale_free(worker->heap, ptr) != 0, 0))
		worker->outcome.corrupt++;
}

/* Threads have one view in common, where an address is as good as a ref. */
static inline uint64_t ours_pack(struct worker *worker, void *ptr)
{
	if (worker->stage->processes)
		return shale_ref_of(worker->heap, ptr).off;
	return (uint64_t)(uintptr_t)ptr;
}

static inline void *ours_unpack(struct worker *worker, uint64_t handle)
{
	if (worker->stage->processes)
		return shale_ptr(worker->heap, (shale_ref){handle}, SMALL_LOW);
	return (void *)(uintptr_t)handle;
}

static const struct heap_ops ops = {ours_alloc, ours_free, ours_pack, ours_unpack};

static void ours_run(struct worker *worker)
{
	heap_row(&ops, worker);
}

/* ---- the segment ---- */

static enum shale_pages pages_of(const char *variant)
{
	static const struct {
		const char *name;
		enum shale_pages pages;
	} kinds[] = {
		{"4k", SHALE_PAGES_4K},
		{"thp", SHALE_PAGES_THP},
		{"2m", SHALE_PAGES_2M},
		{"private", SHALE_PAGES_PRIVATE},
	};
	size_t length = strcspn(variant, "+");

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strlen(kinds[i].name) == length && strncmp(kinds[i].name, variant, length) == 0)
			return kinds[i].pages;
	return SHALE_PAGES_AUTO;
}

static int keeper_start(struct stage *stage)
{
	if (!strstr(stage->variant, "+keeper"))
		return 0;
#ifdef SHALE_BENCH_KEEPER
	return shale_keeper_start(stage->heap, NULL);
#else
	return -EOPNOTSUPP;
#endif
}

static int ours_open(struct stage *stage)
{
	char why[150] = "";
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = CAPACITY_BYTES,
		.label = "bench",
		.pages = pages_of(stage->variant),
		.reason = why,
		.reason_size = sizeof(why),
	};
	struct shale_segment *segment;
	int r = shale_segment_create(&options, &segment);

	if (r < 0) {
		snprintf(stage->reason, sizeof(stage->reason), "%s (%s)", why, strerror(-r));
		return -1;
	}
	stage->heap = segment;
	r = keeper_start(stage);
	if (r < 0)
		snprintf(stage->reason, sizeof(stage->reason), "no keeper: %s", strerror(-r));
	return r < 0 ? -1 : 0;
}

static int ours_join(struct worker *worker)
{
	struct shale_segment *view;

	if (!worker->stage->processes)
		return 0;
	if (shale_segment_attach(shale_segment_fd(worker->heap), NULL, &view) < 0)
		return -1;
	worker->heap = view;
	return 0;
}

static void ours_close(struct stage *stage)
{
#ifdef SHALE_BENCH_KEEPER
	if (strstr(stage->variant, "+keeper"))
		shale_keeper_stop(stage->heap);
#endif
	shale_segment_detach(stage->heap);
}

/* What the kernel holds for the segment, mapped here or not, and what this process has beside it. */
static uint64_t ours_resident(struct stage *stage)
{
	struct shale_segment_figures figures = {.size = sizeof(figures)};
	unsigned long resident = 0, shared = 0;
	uint64_t backing = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file) {
		if (fscanf(file, "%*u %lu %lu", &resident, &shared) != 2)
			resident = shared = 0;
		fclose(file);
	}
	if (shale_segment_fd(stage->heap) >= 0 && shale_segment_stat(stage->heap, &figures) == 0)
		backing = figures.backing_bytes;
	return backing + (uint64_t)(resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void ours_trim(struct stage *stage)
{
	shale_trim(stage->heap, 0);
}

static uint64_t ours_returned(struct stage *stage)
{
	struct shale_heap_figures figures = {.size = sizeof(figures)};

	return shale_heap_stat(stage->heap, &figures) == 0 ? figures.returned_bytes : 0;
}

const struct subject subject_shale = {
	.name = "shale",
	.rows = ROWS_ALL,
	.shared = true,
	.open = ours_open,
	.join = ours_join,
	.close = ours_close,
	.run = ours_run,
	.ops = &ops,
	.resident = ours_resident,
	.trim = ours_trim,
	.returned = ours_returned,
};
