/* Purging, expanding, frees and publishes, stopped at each instruction while a rival goes on. */
#include "heap_purge_scene.h"

/* Frees every third kept block, the last of a slab among them, and allocates: adopts, and takes. */
static void rival_frees_and_allocates(void *context)
{
	struct world *w = context;
	void *blocks[200];

	for (unsigned i = 1; i < w->table->count; i += 3) {
		ASSERT_OK(shale_free(w->segment, w->table->kept[i]));
		ASSERT_ERRNO(-EALREADY, shale_free(w->segment, w->table->kept[i]));
		w->table->kept[i] = NULL;
	}
	for (unsigned i = 0; i < 200; i++) {
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
		memset(blocks[i], 0xdd, w->size);
	}
	for (unsigned i = 0; i < 200; i++)
		ASSERT_OK(shale_free(w->segment, blocks[i]));
	expect_whole(w);
}

/* Purges, adopts what was purged, parks and purges again: facts move twice under the victim. */
static void rival_purges(void *context)
{
	struct world *w = context;
	void *blocks[600];

	purge_now(w);
	for (unsigned round = 0; round < 2; round++) {
		unsigned count = w->size > 1000 ? 60 : 600;

		for (unsigned i = 0; i < count; i++) {
			ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
			memset(blocks[i], 0xdd, w->size);
		}
		for (unsigned i = 0; i < count; i++)
			ASSERT_OK(shale_free(w->segment, blocks[i]));
		purge_now(w);
	}
}

static void run_pause(const char *name, struct step_case step, struct step_options options)
{
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	if (!step.check)
		step.check = judge;
	options.limit_ms = 20000;
	step_pause(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu pauses", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.stuck, 0);
}

TEST_V_TIMEOUT(heap_purge_pause, purge, sizes, 300)
{
	world_init(variant->value);
	run_pause("purge",
		  (struct step_case){.setup = make,
				     .prepare = attach_only,
				     .operation = do_purge,
				     .rival = rival_frees_and_allocates},
		  (struct step_options){.dense = 10, .stride = 41});
}

TEST_V_TIMEOUT(heap_purge_pause, adopting_a_sparse_orphan, sizes, 300)
{
	world_init(variant->value);
	run_pause("adopt",
		  (struct step_case){.setup = make_purged,
				     .prepare = attach_only,
				     .operation = do_alloc,
				     .rival = rival_frees_and_allocates},
		  (struct step_options){.dense = 10, .stride = 29});
}

/* kept[0] lies in a slab parked by the survivor, the last one in an orphan. */
static int judge_freed(void *context)
{
	struct world *w = context;

	EXPECT_EQ(shale_usable_size(w->segment, w->table->kept[0]), 0);
	w->table->kept[0] = NULL;
	return judge(context);
}

static void orphan_first(void *context)
{
	struct world *w = context;
	struct table *t = w->table;
	unsigned char *first = t->kept[0];

	t->kept[0] = t->kept[t->count - 1];
	t->kept[t->count - 1] = first;
	for (unsigned i = 0; i < t->count; i += t->count - 1)
		memset(t->kept[i], (int)i + 1, w->size);
}

static void make_orphan_first(void *context)
{
	make(context);
	orphan_first(context);
}

static void make_purged_orphan_first(void *context)
{
	make_purged(context);
	orphan_first(context);
}

TEST_V_TIMEOUT(heap_purge_pause, free_while_facts_move, sizes, 300)
{
	void (*const setups[])(void *context) = {make, make_orphan_first, make_purged,
						 make_purged_orphan_first};

	world_init(variant->value);
	for (unsigned i = 0; i < 4; i++)
		run_pause("free",
			  (struct step_case){.setup = setups[i],
					     .prepare = attach_only,
					     .operation = do_free,
					     .rival = rival_purges,
					     .check = judge_freed},
			  (struct step_options){0});
}

/* The victim's own parked slab, whose facts it changes by plain stores: needs the barrier. */
TEST_V_TIMEOUT(heap_purge_pause, free_of_ones_own_while_facts_move, sizes, 300)
{
	world_init(variant->value);
	run_pause("own free",
		  (struct step_case){.setup = make,
				     .prepare = park_own_for_good,
				     .operation = do_free_own,
				     .rival = rival_purges},
		  (struct step_options){0});
}

/* The victim has freed its block and lives; the two that it has not freed go with it. */
static void expect_freed(void *context)
{
	struct world *w = context;

	EXPECT_EQ(shale_usable_size(w->segment, w->table->block), 0);
}

/* It finds the slab parked and reopens it, or cannot any more. */
TEST_TIMEOUT(heap_purge_pause, free_that_reopens_while_facts_move, 300)
{
	world_init(112);
	run_pause("reopening free",
		  (struct step_case){.setup = make_without_orphans,
				     .prepare = park_own_that_look_sparse,
				     .operation = do_free_own,
				     .after = expect_freed,
				     .rival = rival_purges},
		  (struct step_options){0});
}

/* It outlives the victim, wherever its facts were. */
static int judge_outlives(void *context)
{
	int outcome = judge_published(context);

	EXPECT_EQ(outcome, 1);
	return outcome == 1 ? 0 : -1;
}

TEST_V_TIMEOUT(heap_purge_pause, publish_while_facts_move, sizes, 300)
{
	world_init(variant->value);
	run_pause("publish",
		  (struct step_case){.setup = make,
				     .prepare = park_own,
				     .operation = do_publish,
				     .rival = rival_purges,
				     .check = judge_outlives},
		  (struct step_options){0});
}
