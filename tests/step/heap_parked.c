/*
 * Parked slabs, killed and paused at each instruction: letting go, reopening, freeing into them by their
 * lane and by others, taking them, and recovering a peer that had some.
 *
 * Blocks are of 20 KiB, three to a slab. Whatever was cut off: afterwards every known block is freed, a trim
 * gives everything back, and nothing may be left committed: no block and no slab is lost.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap/heap_lane.h"
#include "heap/slab.h"
#include "heaps.h"
#include "segment/lanes.h"
#include "step.h"

enum { SIZE = 20000, PER_SLAB = 3, BLOCKS_MAX = 1000 };

struct world {
	struct shale_segment *segment;
	void **blocks; /* in memory that all processes of a scene share */
	uint64_t before;
	uint64_t after;
	uint64_t slab; /* the one that it is about */
	bool taken;    /* ... must be free in the end, without a trim */
};

static struct world world;

static uint64_t slab_of(const struct world *w, unsigned block)
{
	return slab_of_offset(w->segment, shale_ref_of(w->segment, w->blocks[block]).off);
}

static enum slab_state state_of(const struct world *w, uint64_t slab)
{
	return slab_word_state(*slab_word(w->segment, slab));
}

/* Blocks [from, to) of the calling process, published. */
static void fill(struct world *w, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		ASSERT_NOT_NULL(w->blocks[i] = shale_alloc(w->segment, SIZE));
		ASSERT_OK(shale_publish(w->segment, w->blocks[i]));
	}
}

static void make(void *context)
{
	struct world *w = context;

	w->segment = heap_segment(16u << 20, SHALE_PAGES_4K);
	/* the segment is shared by all that are forked from here, and the list lies in it */
	w->blocks = shale_alloc_zeroed(w->segment, BLOCKS_MAX * sizeof(void *));
	ASSERT_OK(shale_publish(w->segment, w->blocks));
	w->taken = false;
}

/* One parked slab of the scene's: blocks 0, 1 and 2; 3 is in the next one. */
static void make_parked(void *context)
{
	struct world *w = context;

	make(context);
	fill(w, 0, PER_SLAB + 1);
	w->slab = slab_of(w, 0);
	ASSERT_EQ(state_of(w, w->slab), SLAB_PARKED);
	w->before = w->after = PER_SLAB + 2;
}

static void expect_nothing_left(struct world *w)
{
	for (unsigned i = 0; i < BLOCKS_MAX; i++)
		if (w->blocks[i] && shale_usable_size(w->segment, w->blocks[i]) != 0)
			EXPECT_OK(shale_free(w->segment, w->blocks[i]));
	EXPECT_EQ(heap_counts(w->segment).live_blocks, 1);
	EXPECT_OK(shale_free(w->segment, w->blocks));
	EXPECT_GE(shale_trim(w->segment, 0), 0);
	EXPECT_EQ(heap_counts(w->segment).committed_bytes, 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
}

static int judge(void *context)
{
	struct world *w = context;
	uint64_t live;
	int outcome;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	live = heap_counts(w->segment).live_blocks;
	if (live != w->before && live != w->after) {
		TEST_LOG("%llu live blocks", (unsigned long long)live);
		return -1;
	}
	outcome = w->before != w->after && live == w->after;
	if (w->taken && live == w->after && state_of(w, w->slab) != SLAB_FREE) {
		TEST_LOG("the slab is in state %d", state_of(w, w->slab));
		return -1;
	}
	expect_nothing_left(w);
	return test_has_failed() ? -1 : outcome;
}

static void attach_only(void *context)
{
	struct world *w = context;
	void *block = shale_alloc(w->segment, 16);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(w->segment, block));
}

static void run(bool kill, const char *name, struct step_case step, struct step_options options)
{
	struct step_result result;

	step.name = name;
	step.ctx = &world;
	if (!step.check)
		step.check = judge;
	options.limit_ms = 20000;
	if (kill)
		step_kill(&step, &options, &result);
	else
		step_pause(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu points, outcomes %llu/%llu", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	EXPECT_GT(result.points, 0);
	EXPECT_EQ(result.problems, 0);
}

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
