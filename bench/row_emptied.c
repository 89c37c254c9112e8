/*
 * row_emptied.c - arenas emptied in the worst order: does the time for each stay flat?
 *
 *            arena 0   arena 1   ...   arena n-1
 *   turn 0   block 0   block 0         block 0      the first block of every arena is freed, then
 *   turn 1   block 1   block 1         block 1      the second of every arena, ...: all arenas are
 *   ...                                             equally full all the time, and the last turn
 *   turn 63                                         empties one after the other
 *
 * An allocator that keeps its arenas sorted by a walk to their new place walks past all of them each
 * time. Done for 1,000 arenas and twice as many until half of the available memory is used. Each
 * block is 32 KiB; the figure is ns an arena, freeing and giving back, of the largest number; "growth"
 * is that over the one of 1,000 arenas; "arenas", "free_ns" and "trim_ns" list all.
 */
#include <stdio.h>
#include <stdlib.h>

#include <shale/heap.h>
#include <shale/segment.h>

#include "heap_cold.h"

enum {
	ARENA_BYTES = 2 << 20,
	BLOCK_BYTES = 32 << 10,
	BLOCKS_EACH = ARENA_BYTES / BLOCK_BYTES,
	ARENAS_FIRST = 1000,
	ARENAS_QUICK = 16,
	STEPS_MAX = 8,
};

static uint64_t available_bytes(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %lu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return (uint64_t)kib << 10;
}

/* By place in the arena first, then by arena: the worst order. */
static int compare_worst(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
	uint64_t left_place = left % ARENA_BYTES, right_place = right % ARENA_BYTES;

	if (left_place != right_place)
		return left_place < right_place ? -1 : 1;
	return (left > right) - (left < right);
}

/* Fills arenas and empties them; adds a column to the lists. */
static void empty_arenas(struct stage *stage, struct worker *worker, size_t arenas, double *free_ns,
			 double *trim_ns)
{
	size_t count = arenas * BLOCKS_EACH;
	uint64_t *refs = pages_map(count * sizeof(*refs)), begin, middle;

	for (size_t i = 0; i < count; i++) {
		void *ptr = shale_alloc(stage->heap, BLOCK_BYTES);

		if (!ptr)
			worker_no_memory(worker);
		refs[i] = shale_ref_of(stage->heap, ptr).off;
	}
	qsort(refs, count, sizeof(*refs), compare_worst);
	begin = stage_clock(stage);
	for (size_t i = 0; i < count; i++)
		shale_free(stage->heap, shale_ptr(stage->heap, (shale_ref){refs[i]}, BLOCK_BYTES));
	middle = stage_clock(stage);
	shale_trim(stage->heap, 0);
	*free_ns = (double)(middle - begin) / (double)arenas;
	*trim_ns = (double)(stage_clock(stage) - middle) / (double)arenas;
}

int row_emptied(struct stage *stage)
{
	double arenas[STEPS_MAX], free_ns[STEPS_MAX], trim_ns[STEPS_MAX], last, first;
	size_t steps = 0, number = stage->quick ? ARENAS_QUICK : ARENAS_FIRST;
	uint64_t limit = available_bytes() / 2;
	struct worker worker;

	if (crew_alone(stage, &worker) != 0)
		return -1;
	if (stage->row->huge_pages > 0 && stage->variant[0] == '2') /* what was reserved */
		limit = (uint64_t)stage->row->huge_pages * ARENA_BYTES;
	for (; steps < STEPS_MAX && (steps == 0 || number * ARENA_BYTES <= limit); number *= 2) {
		arenas[steps] = (double)number;
		empty_arenas(stage, &worker, number, &free_ns[steps], &trim_ns[steps]);
		steps++;
		if (stage->quick)
			break;
	}
	first = free_ns[0] + trim_ns[0];
	last = free_ns[steps - 1] + trim_ns[steps - 1];
	report_number("value", last);
	report_number("growth", last / first);
	report_list("arenas", arenas, steps);
	report_list("free_ns", free_ns, steps);
	report_list("trim_ns", trim_ns, steps);
	report_number("corrupt", 0);
	return 0;
}
