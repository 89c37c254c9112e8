/*
 * event_pause.c - a waker stopped at every instruction of a wake, while another one wakes.
 *
 * A sleeper waits for a flag. The victim sets the flag and wakes, but stands still on the way; the
 * rival then does the same, and the sleeper must get up although the victim has not moved on.
 */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/wait.h>

#include "harness.h"
#include "step.h"
#include "sync/event.h"

struct world {
	struct shale_event event;
	uint32_t go;
	uint32_t awake;
	pid_t sleeper;
};

static struct world *world_of(void *context)
{
	return *(struct world **)context;
}

static void sleep_for_go(struct world *world)
{
	for (;;) {
		uint32_t ticket = shale_event_prepare(&world->event);

		if (load_acquire(&world->go) == 2)
			break;
		if (shale_event_wait(&world->event, ticket, shale_deadline_in(30000000000)) != 0)
			_exit(1);
	}
	store_release(&world->awake, 1u);
	_exit(0);
}

static void setup(void *context)
{
	struct world *world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t sleeper;

	ASSERT_TRUE(world != MAP_FAILED);
	*(struct world **)context = world;
	sleeper = fork();
	if (sleeper == 0)
		sleep_for_go(world);
	world->sleeper = sleeper;
	while ((load_acquire(event_word(&world->event)) & EVENT_MARK) == 0)
		usleep(50);
	usleep(300); /* asleep by now, mostly; the test is right either way */
}

/* Not yet what the sleeper waits for: it gets up, looks and lies down again. */
static void victim(void *context)
{
	struct world *world = world_of(context);

	store_release(&world->go, 1u);
	(void)shale_event_wake(&world->event);
}

static void rival(void *context)
{
	struct world *world = world_of(context);

	store_release(&world->go, 2u);
	(void)shale_event_wake(&world->event);
	EXPECT_TRUE(TEST_EVENTUALLY(load_acquire(&world->awake) == 1, 4000));
}

static int judge(void *context)
{
	struct world *world = world_of(context);

	kill(world->sleeper, SIGKILL);
	waitpid(world->sleeper, NULL, 0);
	return (int)world->awake;
}

TEST_TIMEOUT(event_pause, a_stopped_waker_swallows_no_wake, 120)
{
	struct world *world = NULL;
	struct step_case step = {
		.name = "wake",
		.setup = setup,
		.operation = victim,
		.rival = rival,
		.check = judge,
		.ctx = &world,
	};
	struct step_options options = {.limit_ms = 8000};
	struct step_result result;

	step_pause(&step, &options, &result);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
	EXPECT_EQ(result.outcomes[1], result.points);
}
