/*
 * event_lost_wakeup.c - processes that hand a turn round through one event, over and over.
 *
 * Each waits for its turn, takes it and wakes all. If one wake-up is lost, everybody sleeps: the
 * deadline then says so. Random pauses move the three steps of waiting and waking against each
 * other; noise processes wake for nothing (they do not prepare: that would heal what was lost).
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <shale/wait.h>

#include "base/atomic.h"
#include "harness.h"

#define RUNNERS  3u
#define NOISE    2u
#define LIMIT_NS UINT64_C(10000000000)

struct world {
	_Alignas(64) struct shale_event event;
	_Alignas(64) uint32_t turn;
	_Alignas(64) uint32_t noise_end;
};

static void dither(uint64_t *state)
{
	uint64_t dice = test_random_next(state);

	if (dice % 64 == 0)
		usleep((useconds_t)(dice >> 8) % 50);
	else
		for (volatile unsigned i = (unsigned)(dice >> 8) % 200; i > 0; i--)
			;
}

/* 0 it is our turn; else the error of the wait. */
static int wait_turn(struct world *world, unsigned me, uint64_t *state)
{
	uint64_t deadline = shale_deadline_in(LIMIT_NS);
	int r = 0;

	for (;;) {
		uint32_t ticket = shale_event_prepare(&world->event);

		dither(state);
		if (load_acquire(&world->turn) % RUNNERS == me) {
			shale_event_cancel(&world->event, ticket);
			return 0;
		}
		if (r < 0)
			return r;
		r = shale_event_wait(&world->event, ticket, deadline);
	}
}

static void run(struct world *world, unsigned me, uint32_t rounds, uint64_t seed)
{
	uint64_t state = seed + me;

	for (uint32_t i = 0; i < rounds; i++) {
		ASSERT_OK(wait_turn(world, me, &state));
		dither(&state);
		store_release(&world->turn, load_relaxed(&world->turn) + 1); /* ours alone */
		ASSERT_GE(shale_event_wake(&world->event), 0);
	}
}

static void make_noise(struct world *world, uint64_t seed)
{
	uint64_t state = seed;

	while (load_relaxed(&world->noise_end) == 0) { /* a flag, nothing rides on it */
		dither(&state);
		(void)shale_event_wake(&world->event);
		usleep(20);
	}
}

TEST_TIMEOUT(event, no_wake_up_is_lost_between_processes, 600)
{
	struct world *world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint32_t rounds = TEST_ROUNDS(30000u, 2000000u);
	uint64_t seed = test_random_u64();
	pid_t runners[RUNNERS], noise[NOISE];

	ASSERT_TRUE(world != MAP_FAILED);
	for (unsigned i = 0; i < RUNNERS; i++) {
		runners[i] = test_fork();
		if (runners[i] == 0) {
			run(world, i, rounds, seed);
			test_child_exit();
		}
	}
	for (unsigned i = 0; i < NOISE; i++) {
		noise[i] = test_fork();
		if (noise[i] == 0) {
			make_noise(world, seed ^ (i + 1000));
			test_child_exit();
		}
	}
	for (unsigned i = 0; i < RUNNERS; i++)
		EXPECT_TRUE(test_join(runners[i], 590000));
	store_release(&world->noise_end, 1u);
	for (unsigned i = 0; i < NOISE; i++)
		EXPECT_TRUE(test_join(noise[i], 10000));
	EXPECT_EQ(world->turn, RUNNERS * rounds);
}
