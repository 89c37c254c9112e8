/*
 * Who frees the last block of a slab is stopped, or killed, at each instruction of the free; meanwhile
 * somebody comes to wait for that memory. No wake-up may be lost.
 *
 * The segment has 32 slabs. A span takes 30, the victim or the waiter owns the other two.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/wait.h>

#include "heaps.h"
#include "heap/memory_wait.h"
#include "segment/view.h"
#include "step.h"
#include "sync/event.h"

enum { SLAB = 65536, HALF = 30000 };

/* The waiter does not look by itself: what is not woken is lost. */
#define ONLY_WAKES UINT64_C(60000000000)

struct shared {
	uint32_t go;     /* the waiter may begin */
	uint32_t served; /* it has its block */
	uint64_t
		theirs; /* ref of the block that the victim frees, if the waiter has allocated it */
	pid_t waiter;
};

struct world {
	struct shale_segment *segment;
	struct shared *shared;
	void *block; /* the last one of its slab */
	void *other; /* keeps the victim's other slab */
};

static struct world world;

static void wait_until(const uint32_t *word)
{
	while (load_acquire(word) == 0)
		usleep(50);
}

/* `owns`: the waiter allocates what the victim then frees. */
static void wait_for_memory(struct world *w, bool owns)
{
	void *block = owns ? shale_alloc(w->segment, HALF) : NULL;
	void *anchor = shale_alloc(w->segment, 16);

	if (!anchor || (owns && (!block || shale_publish(w->segment, block) < 0)))
		_exit(2);
	if (owns)
		store_release(&w->shared->theirs, shale_ref_of(w->segment, block).off);
	else
		store_release(&w->shared->theirs, UINT64_C(1));
	wait_until(&w->shared->go);
	block = shale_alloc_wait(w->segment, SLAB, shale_deadline_in(20000000000));
	if (!block)
		_exit(1);
	store_release(&w->shared->served, 1u);
	(void)shale_free(w->segment, block);
	pause();
	_exit(0);
}

static void make_scene(struct world *w, bool owns)
{
	pid_t waiter;

	w->shared = mmap(NULL, sizeof(*w->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(w->shared != MAP_FAILED);
	w->segment = heap_segment(2u << 20, SHALE_PAGES_4K);
	ASSERT_NOT_NULL(shale_alloc(w->segment, (owns ? 30 : 29) * SLAB));
	waiter = fork();
	ASSERT_SYS(waiter);
	if (waiter == 0)
		wait_for_memory(w, owns);
	w->shared->waiter = waiter;
	while (load_acquire(&w->shared->theirs) == 0)
		usleep(50);
}

static void make(void *context)
{
	memory_slice_ns = ONLY_WAKES;
	memory_wanted_ns = ONLY_WAKES;
	make_scene(context, false);
}

static void make_owning(void *context)
{
	memory_slice_ns = ONLY_WAKES;
	memory_wanted_ns = ONLY_WAKES;
	make_scene(context, true);
}

/* The waiter is asleep, mostly; the test is right either way. */
static void let_it_wait(void *context)
{
	struct world *w = context;
	struct shale_event *event = memory_event(w->segment);

	store_release(&w->shared->go, 1u);
	while ((load_acquire(event_word(event)) & EVENT_MARK) == 0 &&
	       load_acquire(&w->shared->served) == 0)
		usleep(50);
	usleep(500);
}

/*
 * Two blocks fill a slab, a third one makes the victim leave it. While somebody waits, here the victim
 * itself, it is not opened again by the free of the first.
 */
static void fill_two_slabs(void *context)
{
	struct world *w = context;
	void *first = shale_alloc(w->segment, HALF);

	w->block = shale_alloc(w->segment, HALF);
	w->other = shale_alloc(w->segment, HALF);
	ASSERT_TRUE(first && w->block && w->other);
	ASSERT_NULL(shale_alloc_wait(w->segment, SLAB, 1));
	ASSERT_OK(shale_free(w->segment, first));
}

static void fill_one_span(void *context)
{
	struct world *w = context;

	w->other = shale_alloc(w->segment, 64);
	w->block = shale_alloc(w->segment, SLAB);
	ASSERT_TRUE(w->other && w->block);
}

static void find_theirs(void *context)
{
	struct world *w = context;

	w->block = shale_ptr(w->segment, (shale_ref){w->shared->theirs}, 1);
	/* the lane is there */
	(void)shale_free(w->segment, shale_alloc(w->segment, 16));
}

static void do_free(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->block);
}

static int judge(void *context)
{
	struct world *w = context;
	bool served = TEST_EVENTUALLY(load_acquire(&w->shared->served) != 0, 4000);

	kill(w->shared->waiter, SIGKILL);
	waitpid(w->shared->waiter, NULL, 0);
	if (!served)
		return -1;
	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	EXPECT_EQ(heap_counts(w->segment).live_blocks, 1);
	return test_has_failed() ? -1 : 0;
}

static void run_pause(struct step_case step)
{
	struct step_options options = {.limit_ms = 8000};
	struct step_result result;

	step.name = "free while somebody comes to wait";
	step.operation = do_free;
	step.rival = let_it_wait;
	step.check = judge;
	step.ctx = &world;
	step_pause(&step, &options, &result);
	TEST_LOG("%llu pauses", (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
}

TEST_TIMEOUT(heap_wait_pause, owner_frees_its_last_block, 300)
{
	run_pause((struct step_case){.setup = make, .prepare = fill_two_slabs});
}

TEST_TIMEOUT(heap_wait_pause, somebody_frees_a_span, 300)
{
	run_pause((struct step_case){.setup = make, .prepare = fill_one_span});
}

TEST_TIMEOUT(heap_wait_pause, somebody_frees_the_waiters_last_block, 300)
{
	run_pause((struct step_case){.setup = make_owning, .prepare = find_theirs});
}

static void make_asleep(void *context)
{
	make_scene(context, false);
}

static void fill_and_let_wait(void *context)
{
	fill_two_slabs(context);
	let_it_wait(context);
}

/* The freer is killed at each instruction while the waiter sleeps. */
TEST_TIMEOUT(heap_wait_pause, a_freer_killed_anywhere_strands_nobody, 300)
{
	struct step_case step = {
		.name = "free, killed",
		.setup = make_asleep,
		.prepare = fill_and_let_wait,
		.operation = do_free,
		.check = judge,
		.ctx = &world,
	};
	struct step_options options = {.limit_ms = 8000, .dense = 150, .stride = 13};
	struct step_result result;

	step_kill(&step, &options, &result);
	TEST_LOG("%llu kills", (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
}
