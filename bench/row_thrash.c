/*
 * row_thrash.c - an arena's worth (2 MiB) allocated and freed 10,000 times: is it kept meanwhile?
 *
 * "released" counts arenas' worths that went back to the kernel while it ran: by the allocator's own
 * count where it has one, else by the pages that had to be faulted in again. "value" is ns an object.
 */
#include <sys/resource.h>
#include <unistd.h>

#include "heap_cold.h"

enum { ARENA_BYTES = 2 << 20, BLOCK_BYTES = 4096, BLOCKS = ARENA_BYTES / BLOCK_BYTES };

static uint64_t faulted_bytes(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_minflt * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t released_bytes(struct stage *stage)
{
	return stage->subject->returned ? stage->subject->returned(stage) : faulted_bytes();
}

static void once(struct worker *worker)
{
	const struct heap_ops *ops = worker->stage->subject->ops;
	void *blocks[BLOCKS];

	for (unsigned i = 0; i < BLOCKS; i++) {
		blocks[i] = ops->alloc(worker, BLOCK_BYTES);
		if (!blocks[i])
			worker_no_memory(worker);
		object_write(blocks[i], BLOCK_BYTES, i);
	}
	for (unsigned i = 0; i < BLOCKS; i++) {
		worker->outcome.corrupt += object_wrong(blocks[i], BLOCK_BYTES, i);
		ops->free(worker, blocks[i], BLOCK_BYTES);
	}
}

int row_thrash(struct stage *stage)
{
	struct worker worker;
	unsigned times = stage->quick ? 100 : 10000;
	uint64_t before, begin, end;

	if (crew_alone(stage, &worker) != 0)
		return -1;
	once(&worker);
	before = released_bytes(stage);
	begin = stage_clock(stage);
	for (unsigned i = 0; i < times; i++)
		once(&worker);
	end = stage_clock(stage);
	report_number("value", (double)(end - begin) / ((double)times * BLOCKS));
	report_number("released", (double)(released_bytes(stage) - before) / (double)ARENA_BYTES);
	report_number("corrupt", (double)worker.outcome.corrupt);
	return 0;
}
