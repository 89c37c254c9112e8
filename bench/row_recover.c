/*
 * row_recover.c - a process is killed while it holds 100,000 unpublished blocks: how long until they
 * are free again?
 *
 * The time is that of shale_recover() in another process, in microseconds. "left" counts the blocks
 * that are live afterwards: it must be none.
 *
 * Owner:     the child attaches, allocates, says so through the pipe, and waits to be killed.
 * Death:     the child's is the subject of the row.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/heap.h>
#include <shale/segment.h>

#include "heap_cold.h"

enum { HELD = 100000, HELD_QUICK = 5000, LOW = 16, HIGH = 512 };

static _Noreturn void victim(struct stage *stage, int ready)
{
	struct shale_segment *view;
	uint32_t count = stage->quick ? HELD_QUICK : HELD;
	uint32_t *sizes = pages_map(count * sizeof(*sizes));
	uint64_t random = stage->seed | 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (shale_segment_attach(shale_segment_fd(stage->heap), NULL, &view) < 0)
		_exit(1);
	sizes_uniform(sizes, count, LOW, HIGH, &random);
	for (uint32_t i = 0; i < count; i++) {
		void *ptr = shale_alloc(view, sizes[i]);

		if (!ptr)
			_exit(1);
		object_write(ptr, sizes[i], i);
	}
	if (write(ready, "!", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static int kill_one(struct stage *stage)
{
	int ends[2];
	char said;
	pid_t pid;
	ssize_t n;

	if (pipe(ends) != 0)
		return -1;
	pid = fork();
	if (pid == 0)
		victim(stage, ends[1]);
	close(ends[1]);
	n = pid > 0 ? read(ends[0], &said, 1) : 0;
	close(ends[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	if (n != 1)
		snprintf(stage->reason, sizeof(stage->reason), "the victim could not allocate");
	return n == 1 ? 0 : -1;
}

int row_recover(struct stage *stage)
{
	struct shale_heap_figures figures = {.size = sizeof(figures)};
	struct worker worker;
	uint64_t begin, end;
	int recovered;

	if (crew_alone(stage, &worker) != 0 || kill_one(stage) != 0)
		return -1;
	begin = stage_clock(stage);
	recovered = shale_recover(stage->heap);
	end = stage_clock(stage);
	if (recovered != 1 || shale_heap_stat(stage->heap, &figures) != 0) {
		snprintf(stage->reason, sizeof(stage->reason), "recovered %d peers, not 1",
			 recovered);
		return -1;
	}
	report_number("value", (double)(end - begin) / 1e3);
	report_number("left", (double)figures.live_blocks);
	report_number("corrupt", (double)figures.live_blocks);
	return 0;
}
