/*
 * Parked slabs, killed and paused at each instruction: letting go, reopening, freeing into them by their
 * lane and by others, and taking them. (Recovery of a peer that had some: heap_parked_recovery.c.)
 *
 * Blocks are of 20 KiB, three to a slab. Whatever was cut off: afterwards every known block is freed, a trim
 * gives everything back, and nothing may be left committed: no block and no slab is lost.
 */
#include "heap_parked_scene.h"

VARIANT_SET(ways) = {{"kill", true, NULL}, {"pause", false, NULL}};

/* -- letting go ---------------------------------------------------------------------------------- */

/* The victim has filled a slab; its next allocation parks it. Its blocks are published. */
static void fill_one(void *context)
{
	struct world *w = context;

	fill(w, 0, PER_SLAB);
}

static void do_alloc(void *context)
{
	struct world *w = context;

	w->blocks[PER_SLAB] = shale_alloc(w->segment, SIZE);
}

static void make_for_victim(void *context)
{
	struct world *w = context;

	make(context);
	w->before = w->after = PER_SLAB + 1;
}

static void rival_frees_all_of_it(void *context)
{
	struct world *w = context;

	for (unsigned i = 0; i < PER_SLAB; i++)
		ASSERT_OK(shale_free(w->segment, w->blocks[i]));
}

/* Before anybody recovers or trims: a slab that was let go has a live block. */
static void expect_none_dead(void *context)
{
	struct world *w = context;
	uint64_t slabs = (uint64_t)view_arena_high(w->segment) * SLABS_PER_ARENA;

	for (uint64_t slab = 0; slab < slabs; slab++) {
		uint64_t word = *slab_word(w->segment, slab);
		const struct bin_info *bin = &bin_table[slab_word_bin(word)];
		const uint8_t *own;
		unsigned live = 0;

		if (!slab_word_let_go(word))
			continue;
		own = slab_own_facts(w->segment, bin, slab);
		for (unsigned i = 0; i < bin->count; i++)
			live += own[i] != OWN_FREE && own[bin->facts_half + i] != SHARED_FREED;
		EXPECT_GT(live, 0);
	}
}

static void make_for_victim_and_rival(void *context)
{
	struct world *w = context;

	make(context);
	w->before = w->after = 1; /* what the victim allocates goes with it */
}

TEST_V_TIMEOUT(heap_parked, letting_go, ways, 240)
{
	run(variant->value, "park",
	    (struct step_case){.setup =
				       variant->value ? make_for_victim : make_for_victim_and_rival,
			       .prepare = fill_one,
			       .operation = do_alloc,
			       .after = expect_none_dead,
			       .rival = rival_frees_all_of_it},
	    (struct step_options){.dense = 300, .stride = 7});
}

/* -- coming back --------------------------------------------------------------------------------- */

/* The victim frees into a slab that it has parked, and it is open again. */
static void fill_and_leave(void *context)
{
	struct world *w = context;

	fill(w, 0, PER_SLAB + 1);
	w->slab = slab_of(w, 0);
	ASSERT_EQ(state_of(w, w->slab), SLAB_PARKED);
}

static void do_free_first(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->blocks[0]);
}

static void rival_frees_the_others(void *context)
{
	struct world *w = context;

	for (unsigned i = 1; i < PER_SLAB; i++)
		ASSERT_OK(shale_free(w->segment, w->blocks[i]));
}

static void make_for_free_first(void *context)
{
	struct world *w = context;

	make(context);
	w->before = PER_SLAB + 2;
	w->after = PER_SLAB + 1;
}

static void make_for_free_all(void *context)
{
	struct world *w = context;

	make(context);
	w->before = w->after = 2;
}

TEST_V_TIMEOUT(heap_parked, reopening_by_a_free, ways, 240)
{
	run(variant->value, "reopen by a free",
	    (struct step_case){.setup = variant->value ? make_for_free_first : make_for_free_all,
			       .prepare = fill_and_leave,
			       .operation = do_free_first,
			       .rival = rival_frees_the_others},
	    (struct step_options){0});
}

/* The victim comes back to a parked slab in which somebody else has freed a block. */
static void fill_two_and_let_others_free(void *context)
{
	struct world *w = context;
	pid_t child;

	fill(w, 0, 2 * PER_SLAB);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		ASSERT_OK(shale_free(w->segment, w->blocks[0]));
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
}

static void do_alloc_again(void *context)
{
	struct world *w = context;

	w->blocks[2 * PER_SLAB] = shale_alloc(w->segment, SIZE);
}

static void make_for_reopening(void *context)
{
	struct world *w = context;

	make(context);
	w->before = w->after = 2 * PER_SLAB;
}

static void make_for_reopening_and_rival(void *context)
{
	struct world *w = context;

	make(context);
	w->before = w->after = PER_SLAB + 1;
}

TEST_V_TIMEOUT(heap_parked, reopening_by_an_allocation, ways, 240)
{
	run(variant->value, "reopen by an allocation",
	    (struct step_case){.setup = variant->value ? make_for_reopening
						       : make_for_reopening_and_rival,
			       .prepare = fill_two_and_let_others_free,
			       .operation = do_alloc_again,
			       .rival = rival_frees_the_others},
	    (struct step_options){.dense = 300, .stride = 7});
}

/* -- the owner frees into a slab that stays parked ------------------------------------------------ */

/* As many slabs as may be open are; the last one full and parked is the first of all. */
static void open_many(void *context)
{
	struct world *w = context;
	unsigned first = PER_SLAB * 1;

	fill(w, 0, (HEAP_OPEN_MAX + 2) * PER_SLAB);
	for (unsigned i = 0; i < HEAP_OPEN_MAX; i++)
		ASSERT_OK(shale_free(w->segment, w->blocks[first + i * PER_SLAB]));
	w->slab = slab_of(w, 0);
	ASSERT_EQ(state_of(w, w->slab), SLAB_PARKED);
	ASSERT_OK(shale_free(w->segment, w->blocks[1]));
	ASSERT_EQ(state_of(w, w->slab), SLAB_PARKED);
}

static void open_many_and_leave_one(void *context)
{
	struct world *w = context;

	open_many(context);
	ASSERT_OK(shale_free(w->segment, w->blocks[2]));
	ASSERT_EQ(state_of(w, w->slab), SLAB_PARKED);
}

static void make_for_open_many(void *context)
{
	struct world *w = context;

	make(context);
	w->before = (HEAP_OPEN_MAX + 2) * PER_SLAB - HEAP_OPEN_MAX;
	w->after = w->before - 1;
}

static void make_for_open_many_last(void *context)
{
	struct world *w = context;

	make_for_open_many(context);
	w->before--;
	w->after--;
	w->slab = 0;
	w->taken = true;
}

static void note_slab(struct world *w)
{
	w->slab = slab_of(w, 0);
}

static int judge_noted(void *context)
{
	note_slab(context);
	return judge(context);
}

TEST_TIMEOUT(heap_parked, the_owner_frees_into_it_and_is_killed, 240)
{
	run(true, "owner's free",
	    (struct step_case){
		    .setup = make_for_open_many, .prepare = open_many, .operation = do_free_first},
	    (struct step_options){0});
}

TEST_TIMEOUT(heap_parked, the_owner_frees_the_last_block_and_is_killed, 240)
{
	run(true, "owner's last free",
	    (struct step_case){.setup = make_for_open_many_last,
			       .prepare = open_many_and_leave_one,
			       .operation = do_free_first,
			       .check = judge_noted},
	    (struct step_options){.dense = 300, .stride = 3});
}

static void rival_frees_the_third(void *context)
{
	struct world *w = context;

	ASSERT_OK(shale_free(w->segment, w->blocks[2]));
}

/* Both of the last two: whoever is last takes it. */
static void make_for_two_last(void *context)
{
	struct world *w = context;

	make_for_open_many(context);
	w->before -= 2;
	w->after = w->before;
	w->taken = true;
}

TEST_TIMEOUT(heap_parked, the_owner_and_another_free_the_last_two, 240)
{
	run(false, "owner's and another's last",
	    (struct step_case){.setup = make_for_two_last,
			       .prepare = open_many,
			       .operation = do_free_first,
			       .rival = rival_frees_the_third,
			       .check = judge_noted},
	    (struct step_options){0});
}

/* -- others free the last block --------------------------------------------------------------------- */

/* The scene has parked the slab; one block of it lives. */
static void make_last(void *context)
{
	struct world *w = context;
	pid_t child;

	make_parked(context);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		rival_frees_the_others(w);
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	ASSERT_EQ(shale_recover(w->segment), 1);
	ASSERT_EQ(state_of(w, w->slab), SLAB_PARKED);
	w->before = 3;
	w->after = 2;
}

TEST_TIMEOUT(heap_parked, the_last_freer_is_killed, 240)
{
	run(true, "last free",
	    (struct step_case){
		    .setup = make_last, .prepare = attach_only, .operation = do_free_first},
	    (struct step_options){0});
}

/* Two blocks live: the victim frees one, the rival the other. */
static void make_last_two(void *context)
{
	struct world *w = context;
	pid_t child;

	make_parked(context);
	child = test_fork();
	ASSERT_SYS(child);
	if (child == 0) {
		ASSERT_OK(shale_free(w->segment, w->blocks[1]));
		test_child_exit();
	}
	ASSERT_TRUE(test_join(child, 5000));
	ASSERT_EQ(shale_recover(w->segment), 1);
	w->before = w->after = 2;
	w->taken = true;
}

TEST_TIMEOUT(heap_parked, two_last_freers, 240)
{
	run(false, "two last frees",
	    (struct step_case){.setup = make_last_two,
			       .prepare = attach_only,
			       .operation = do_free_first,
			       .rival = rival_frees_the_third},
	    (struct step_options){0});
}

/* While the last freer stands still, somebody uses all memory there is, and keeps it. */
static void rival_keeps_all_memory(void *context)
{
	struct world *w = context;
	unsigned count = 10;
	void *block;

	while (count < BLOCKS_MAX && (block = shale_alloc(w->segment, SIZE)) != NULL) {
		memset(block, 5, SIZE);
		ASSERT_OK(shale_publish(w->segment, block));
		w->blocks[count++] = block;
	}
	EXPECT_LT(count, BLOCKS_MAX);
	EXPECT_GT(count, 500);
}

static int judge_kept(void *context)
{
	struct world *w = context;

	for (unsigned i = 10; i < BLOCKS_MAX && w->blocks[i]; i++) {
		if (shale_usable_size(w->segment, w->blocks[i]) < SIZE) {
			TEST_LOG("block %u was freed for somebody else", i);
			return -1;
		}
		w->after++;
	}
	w->before = w->after;
	return judge(context);
}

TEST_TIMEOUT(heap_parked, the_last_freer_stands_still_and_memory_runs_out, 400)
{
	run(false, "last free, pressure",
	    (struct step_case){.setup = make_last,
			       .prepare = attach_only,
			       .operation = do_free_first,
			       .rival = rival_keeps_all_memory,
			       .check = judge_kept},
	    (struct step_options){.dense = 20, .stride = 9});
}

/* A name of the freer's own keeps everybody from taking the slab, for as long as it stands. */
static void do_free_named(void *context)
{
	struct world *w = context;
	struct lane *lane = lane_peek(w->segment);

	retired_set(lane->shm, 3, shale_ref_of(w->segment, w->blocks[0]).off);
	(void)shale_free(w->segment, w->blocks[0]);
	retired_set(lane->shm, 3, 0);
	(void)shale_free(w->segment, w->blocks[PER_SLAB]);
}

static void make_named(void *context)
{
	struct world *w = context;

	make_last_two(context);
	w->before = w->after = 1;
	/* the rival cannot take it while the victim names a block, and does not come back: a trim does */
	w->taken = false;
}

TEST_TIMEOUT(heap_parked, a_freer_that_names_its_block, 240)
{
	run(false, "named free",
	    (struct step_case){.setup = make_named,
			       .prepare = attach_only,
			       .operation = do_free_named,
			       .rival = rival_frees_the_third},
	    (struct step_options){0});
}
