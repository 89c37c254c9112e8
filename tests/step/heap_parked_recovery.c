/*
 * Recovery of a peer that had parked slabs: the recoverer killed at each instruction, others freeing and
 * reusing beside it.
 */
#include "heap_parked_scene.h"

/* -- recovery --------------------------------------------------------------------------------------- */

/* A dead peer with four slabs: all published, some published, none published, and an open one. */
static void make_dead(void *context)
{
	struct world *w = context;
	pid_t child;

	make(context);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		for (unsigned i = 0; i < 3 * PER_SLAB + 2; i++) {
			ASSERT_NOT_NULL(w->blocks[i] = shale_alloc(w->segment, SIZE));
			if (i <= PER_SLAB || i == 3 * PER_SLAB)
				ASSERT_OK(shale_publish(w->segment, w->blocks[i]));
		}
		_exit(0);
	}
	ASSERT_EQ(waitpid(child, NULL, 0), child);
	w->before = w->after = 1 + PER_SLAB + 2;
}

static void do_recover(void *context)
{
	struct world *w = context;

	(void)shale_recover(w->segment);
}

TEST_TIMEOUT(heap_parked, the_recoverer_is_killed, 400)
{
	run(true, "recover",
	    (struct step_case){.setup = make_dead, .prepare = attach_only, .operation = do_recover},
	    (struct step_options){.dense = 30, .stride = 127});
}

/* The rest of what was published is freed while the recoverer stands still. */
static void rival_frees_published(void *context)
{
	struct world *w = context;

	for (unsigned i = 0; i <= PER_SLAB; i++)
		ASSERT_OK(shale_free(w->segment, w->blocks[i]));
}

static void make_dead_to_free(void *context)
{
	struct world *w = context;

	make_dead(context);
	w->slab = slab_of(w, 0);
	w->taken = true;
	w->before = w->after = 2;
}

TEST_TIMEOUT(heap_parked, others_free_beside_the_recoverer, 400)
{
	run(false, "recover, and free",
	    (struct step_case){.setup = make_dead_to_free,
			       .prepare = attach_only,
			       .operation = do_recover,
			       .rival = rival_frees_published},
	    (struct step_options){.dense = 30, .stride = 127});
}

/* -- recovery, and somebody who uses what it is about at once ------------------------------------------ */

enum { SMALL = 500, SMALL_PER_SLAB = 128, KEPT = BLOCKS_MAX - 1 };

/* A dead peer's parked slab of which one block lives, in the first of many words of facts. */
static void make_dead_and_almost_empty(void *context)
{
	struct world *w = context;
	pid_t child;

	w->segment = heap_segment(2u << 20, SHALE_PAGES_4K);
	w->blocks = shale_alloc_zeroed(w->segment, BLOCKS_MAX * sizeof(void *));
	ASSERT_OK(shale_publish(w->segment, w->blocks));
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		for (unsigned i = 0; i <= SMALL_PER_SLAB; i++) {
			ASSERT_NOT_NULL(w->blocks[i] = shale_alloc(w->segment, SMALL));
			if (i == 3 || i >= 8)
				ASSERT_OK(shale_publish(w->segment, w->blocks[i]));
		}
		_exit(0);
	}
	ASSERT_EQ(waitpid(child, NULL, 0), child);
	for (unsigned i = 8; i < SMALL_PER_SLAB; i++)
		ASSERT_OK(shale_free(w->segment, w->blocks[i]));
}

/* Lives on, with all the memory there is, none of it published. */
static void keep_all(struct world *w)
{
	uint64_t count = 0;

	alarm(60);
	while (shale_alloc(w->segment, SMALL))
		count++;
	store_relaxed((uint64_t *)&w->blocks[KEPT - 1], count);
	store_release((uint64_t *)&w->blocks[KEPT], (uint64_t)getpid());
	for (;;)
		pause();
}

static void rival_frees_the_last_and_another_takes_all(void *context)
{
	struct world *w = context;
	pid_t child;

	ASSERT_OK(shale_free(w->segment, w->blocks[3]));
	child = fork();
	ASSERT_SYS(child);
	if (child == 0)
		keep_all(w);
	while (load_acquire((uint64_t *)&w->blocks[KEPT]) == 0)
		usleep(200);
}

static int judge_survivor(void *context)
{
	struct world *w = context;
	uint64_t kept = load_relaxed((uint64_t *)&w->blocks[KEPT - 1]);
	pid_t survivor = (pid_t)load_relaxed((uint64_t *)&w->blocks[KEPT]);
	uint64_t live;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	/* the list, the dead peer's last block, and what the survivor holds */
	live = heap_counts(w->segment).live_blocks;
	EXPECT_EQ(live, 2 + kept);
	EXPECT_OK(kill(survivor, SIGKILL));
	for (unsigned i = 0; i < 5000 && heap_counts(w->segment).live_blocks != 2; i++) {
		usleep(1000);
		(void)shale_recover(w->segment);
	}
	EXPECT_EQ(heap_counts(w->segment).live_blocks, 2);
	return test_has_failed() ? -1 : 0;
}

TEST_TIMEOUT(heap_parked, what_recovery_sweeps_is_not_reused_meanwhile, 400)
{
	run(false, "recover, and reuse",
	    (struct step_case){.setup = make_dead_and_almost_empty,
			       .prepare = attach_only,
			       .operation = do_recover,
			       .rival = rival_frees_the_last_and_another_takes_all,
			       .check = judge_survivor},
	    (struct step_options){.dense = 1, .stride = 127});
}
