/*
 * testlib_step.c - the step harness judged by toys with known faults: what is wrong must be found.
 *
 * Owner:     each scene owns the toy world, a page shared with its victim and its rival.
 * Invariant: see the toys; two of them break theirs on purpose (negative controls).
 * Ordering:  the toys use the compiler's builtins, being no part of the library.
 * Lifetime:  one page per test, reset by each setup.
 * Death:     what is tested.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/harness.h"
#include "lib/step.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EMPTY = 0, PUSHED = 1, HALF = 2, BOTH = 3 };

struct world {
	uint32_t head;
	uint32_t next[8];
	uint32_t lock;
	uint64_t left, right;
	uint64_t signals;
};

static struct world *world_map(void)
{
	struct world *world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT_TRUE(world != MAP_FAILED);
	return world;
}

static void world_reset(void *ctx)
{
	memset(ctx, 0, sizeof(struct world));
}

/* ---- a lock-free push ---- */

static void push(struct world *world, uint32_t node)
{
	uint32_t head = __atomic_load_n(&world->head, __ATOMIC_RELAXED);

	do
		world->next[node] = head;
	while (!__atomic_compare_exchange_n(&world->head, &head, node, false, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

static void push_one(void *ctx)
{
	push(ctx, 1);
}

static void push_two(void *ctx)
{
	push(ctx, 2);
}

static int push_check_killed(void *ctx)
{
	const struct world *world = ctx;

	if (world->head == 0)
		return EMPTY;
	return world->head == 1 && world->next[1] == 0 ? PUSHED : -1;
}

/* Both nodes are there, in either order: 1 when the victim's came last, 0 when the rival's did. */
static int push_check_raced(void *ctx)
{
	const struct world *world = ctx;

	if (world->head == 1 && world->next[1] == 2 && world->next[2] == 0)
		return 1;
	return world->head == 2 && world->next[2] == 1 && world->next[1] == 0 ? 0 : -1;
}

TEST(testlib_step, kill_sees_before_and_after_of_a_push)
{
	const struct step_case step = {.name = "push",
				       .setup = world_reset,
				       .operation = push_one,
				       .check = push_check_killed,
				       .ctx = world_map()};
	struct step_result result;

	step_kill(&step, NULL, &result);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
	EXPECT_GT(result.points, 5);
	EXPECT_EQ(result.points, result.instructions + 2); /* 0 .. N, and N + 1 to see the end */
	EXPECT_EQ(result.distinct, 2);
	EXPECT_GT(result.outcomes[EMPTY], 0);
	EXPECT_GT(result.outcomes[PUSHED], 0);
	TEST_LOG("%d points, %d before, %d after", (int)result.points, (int)result.outcomes[EMPTY],
		 (int)result.outcomes[PUSHED]);
}

TEST(testlib_step, pause_lets_a_rival_push)
{
	const struct step_case step = {.name = "push and push",
				       .setup = world_reset,
				       .operation = push_one,
				       .rival = push_two,
				       .check = push_check_raced,
				       .ctx = world_map()};
	struct step_result result;

	step_pause(&step, NULL, &result);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
	EXPECT_EQ(result.distinct, 2);
}

/* ---- negative control: a push that loses a rival's node ---- */

static void push_torn(void *ctx)
{
	struct world *world = ctx;

	world->next[1] = *(volatile uint32_t *)&world->head;
	*(volatile uint32_t *)&world->head = 1;
}

TEST(testlib_step, pause_finds_a_lost_update)
{
	const struct step_case step = {.name = "torn push",
				       .setup = world_reset,
				       .operation = push_torn,
				       .rival = push_two,
				       .check = push_check_raced,
				       .ctx = world_map()};
	const struct step_options options = {.quiet = true};
	struct step_result result;

	step_pause(&step, &options, &result);
	EXPECT_GT(result.wrong, 0);
	EXPECT_EQ(result.stuck, 0);
}

/* ---- negative control: a lock ---- */

static void locked_add(void *ctx)
{
	struct world *world = ctx;

	while (__atomic_exchange_n(&world->lock, 1, __ATOMIC_ACQUIRE) != 0)
		usleep(1000);
	world->left++;
	__atomic_store_n(&world->lock, 0, __ATOMIC_RELEASE);
}

TEST(testlib_step, pause_finds_a_rival_that_waits_for_a_lock)
{
	const struct step_case step = {.name = "lock",
				       .setup = world_reset,
				       .operation = locked_add,
				       .rival = locked_add,
				       .ctx = world_map()};
	const struct step_options options = {.quiet = true, .limit_ms = 200};
	struct step_result result;

	step_pause(&step, &options, &result);
	EXPECT_EQ(result.stuck, 3);
	EXPECT_EQ(result.problems, 3);
	EXPECT_GT(result.first_problem, 0);
}

TEST(testlib_step, killed_lock_holder_blocks_the_next)
{
	struct world *world = world_map();
	const struct step_case step = {.name = "lock", .operation = locked_add, .ctx = world};
	uint64_t k;

	for (k = 0; step_kill_at(&step, k) == 0 && world->lock == 0; k++)
		world_reset(world);
	EXPECT_GT(k, 0);
	EXPECT_EQ(world->lock, 1);
}

/* ---- negative control: two stores ---- */

static void store_two(void *ctx)
{
	volatile struct world *world = ctx;

	world->left = 1;
	world->right = 1;
}

static int store_check(void *ctx)
{
	const struct world *world = ctx;

	return (int)(world->left * HALF + world->right);
}

TEST(testlib_step, kill_finds_the_half_state_of_two_stores)
{
	const struct step_case step = {.name = "two stores",
				       .setup = world_reset,
				       .operation = store_two,
				       .check = store_check,
				       .ctx = world_map()};
	struct step_result result;

	step_kill(&step, NULL, &result);
	EXPECT_EQ(result.distinct, 3);
	EXPECT_GT(result.outcomes[EMPTY], 0);
	EXPECT_GT(result.outcomes[HALF], 0);
	EXPECT_GT(result.outcomes[BOTH], 0);
	EXPECT_EQ(result.outcomes[1], 0);
}

/* ---- what might confuse a tracer ---- */

static void count_signal(int signal)
{
	(void)signal;
}

static void noisy(void *ctx)
{
	volatile struct world *world = ctx;
	pid_t pid;

	signal(SIGUSR1, count_signal);
	raise(SIGUSR1);
	pid = fork();
	if (pid == 0)
		_exit(7);
	world->left = waitpid(pid, NULL, 0) == pid;
	pid = vfork();
	if (pid == 0)
		_exit(7);
	waitpid(pid, NULL, 0);
	syscall(SYS_getppid);
	world->right = 1;
}

TEST(testlib_step, signals_system_calls_and_children_do_not_confuse_it)
{
	const struct step_case step = {.name = "noise",
				       .setup = world_reset,
				       .operation = noisy,
				       .check = store_check,
				       .ctx = world_map()};
	const struct step_options options = {.dense = 10, .stride = 97};
	struct step_result result;

	EXPECT_GT(step_count(&step), 100);
	step_kill(&step, &options, &result);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
	EXPECT_GT(result.outcomes[EMPTY], 0);
	EXPECT_GT(result.outcomes[BOTH], 0);
	TEST_LOG("%d points for %d instructions", (int)result.points, (int)result.instructions);
}

/* ---- an operation without an end, and one that dies ---- */

static void spin(void *ctx)
{
	volatile struct world *world = ctx;

	while (world->left == 0)
		;
}

static void wait_for_ever(void *ctx)
{
	(void)ctx;
	pause();
}

static void crash(void *ctx)
{
	(void)ctx;
	raise(SIGUSR2); /* one that no sanitizer handles */
}

TEST(testlib_step, an_operation_without_end_is_found)
{
	struct step_case step = {
		.name = "spin", .setup = world_reset, .operation = spin, .ctx = world_map()};
	const struct step_options few = {.quiet = true, .max_steps = 50};
	const struct step_options sleepy = {.quiet = true, .limit_ms = 100};
	struct step_result result;

	step_kill(&step, &few, &result);
	EXPECT_FALSE(result.complete);
	EXPECT_EQ(result.blocked, 1);
	step.operation = wait_for_ever;
	step_kill(&step, &sleepy, &result);
	EXPECT_FALSE(result.complete);
	EXPECT_EQ(result.blocked, 3);
}

TEST(testlib_step, an_operation_that_dies_is_found)
{
	const struct step_case step = {.name = "crash", .operation = crash};
	const struct step_options options = {.quiet = true, .max_problems = 1};
	struct step_result result;

	step_kill(&step, &options, &result);
	EXPECT_FALSE(result.complete);
	EXPECT_EQ(result.died, 1);
}

/* ---- leaping to a point must end where stepping to it ends ---- */

static void loops(void *ctx)
{
	volatile struct world *world = ctx;

	for (int i = 0; i < 20; i++) {
		world->left++;
		for (int j = 0; j < i % 4; j++)
			world->right++;
	}
#if defined(__x86_64__)
	{
		volatile void *to = world->next;
		uint64_t count = sizeof(world->next);

		__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(1) : "memory");
	}
#endif
}

/* What the victim had done, exactly, for each point in turn. */
struct diary {
	struct world world;
	uint64_t points;
	uint64_t sums[1024];
};

static void diary_reset(void *ctx)
{
	struct diary *diary = ctx;

	world_reset(&diary->world);
}

static int diary_check(void *ctx)
{
	struct diary *diary = ctx;
	const unsigned char *bytes = (const unsigned char *)diary->world.next;
	uint64_t sum = diary->world.left * 10000 + diary->world.right * 100;

	for (size_t i = 0; i < sizeof(diary->world.next); i++)
		sum += bytes[i];
	diary->sums[diary->points++ % 1024] = sum;
	return 0;
}

TEST(testlib_step, leaping_and_stepping_reach_the_same_points)
{
	const size_t size = sizeof(struct diary);
	struct diary *leapt =
		mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct diary *stepped = leapt + 1;
	struct step_case step = {.name = "loops",
				 .setup = diary_reset,
				 .operation = loops,
				 .check = diary_check,
				 .ctx = leapt};
	struct step_result result;

	ASSERT_TRUE(leapt != MAP_FAILED);
	step_kill(&step, NULL, &result);
	EXPECT_LT(result.points, 1024);
	ASSERT_SYS(setenv("SHALE_TEST_STEP_ONLY", "1", 1));
	step.ctx = stepped;
	step_kill(&step, NULL, &result);
	EXPECT_EQ(leapt->points, stepped->points);
	EXPECT_EQ(stepped->sums[stepped->points - 1], 203032);
	EXPECT_MEM_EQ(leapt->sums, stepped->sums, sizeof(leapt->sums));
}
