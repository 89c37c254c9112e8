/* Adopting, reopening and recovering, stopped here and there while a rival purges, frees, and purges again. */
#include "heap_purge_scene.h"

static void use_some(struct world *w)
{
	unsigned count = w->size > 1000 ? 60 : 600;
	void *blocks[600];

	for (unsigned i = 0; i < count; i++) {
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
		memset(blocks[i], 0xdd, w->size);
	}
	for (unsigned i = 0; i < count; i++)
		ASSERT_OK(shale_free(w->segment, blocks[i]));
}

/* Some of the kept blocks go between two purges, and slabs that were purged are used in between. */
static void rival_does_all(void *context)
{
	struct world *w = context;

	purge_now(w);
	for (unsigned i = 1; i < w->table->count; i += 3) {
		ASSERT_OK(shale_free(w->segment, w->table->kept[i]));
		ASSERT_ERRNO(-EALREADY, shale_free(w->segment, w->table->kept[i]));
		w->table->kept[i] = NULL;
	}
	use_some(w);
	purge_now(w);
	use_some(w);
	ASSERT_GE(shale_trim(w->segment, 0), 0);
	expect_whole(w);
}

static void run_pause(const char *name, struct step_case step, uint64_t stride)
{
	struct step_options options = {.dense = 5, .stride = stride, .limit_ms = 20000};
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	step.rival = rival_does_all;
	if (!step.check)
		step.check = judge;
	step_pause(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu pauses", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.stuck, 0);
}

TEST_V_TIMEOUT(heap_purge_mixed, adopting_an_orphan, sizes, 300)
{
	void (*const setups[])(void *context) = {make, make_purged};

	world_init(variant->value);
	for (unsigned i = 0; i < 2; i++)
		run_pause("adopt",
			  (struct step_case){.setup = setups[i],
					     .prepare = attach_only,
					     .operation = do_alloc},
			  499);
}

TEST_V_TIMEOUT(heap_purge_mixed, reopening_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_pause("reopen",
		  (struct step_case){.setup = make_without_orphans,
				     .prepare = park_own_and_purge,
				     .operation = do_alloc},
		  199);
}

TEST_V_TIMEOUT(heap_purge_mixed, freeing_ones_own, sizes, 300)
{
	world_init(variant->value);
	run_pause("free",
		  (struct step_case){.setup = make_without_orphans,
				     .prepare = park_own,
				     .operation = do_free_own},
		  3);
}

/* Parked slabs of a peer that is dead, with blocks of it that are published. */
static void make_dead(void *context)
{
	struct world *w = context;
	pid_t pid;

	make_without_orphans(context);
	pid = test_fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		populate(w, SLABS);
		park_own(w);
		(void)raise(SIGKILL);
	}
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
}

static void make_dead_and_purged(void *context)
{
	make_dead(context);
	purge_now(context);
}

TEST_V_TIMEOUT(heap_purge_mixed, recovering, sizes, 300)
{
	void (*const setups[])(void *context) = {make_dead, make_dead_and_purged};

	world_init(variant->value);
	for (unsigned i = 0; i < 2; i++)
		run_pause("recover",
			  (struct step_case){.setup = setups[i],
					     .prepare = attach_only,
					     .operation = do_recover},
			  4001);
}
