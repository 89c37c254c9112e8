/*
 * Purging, converting facts, expanding them, and frees meanwhile: killed and paused at each instruction.
 *
 * One arena: four slabs that the survivor has filled, thinned and parked, four orphans of a peer that
 * was killed, the rest free. The blocks that were kept are in a table that all processes share; each is
 * full of its number, and set to NULL by who frees it for good.
 */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap/heap_lane.h"
#include "heap/purge.h"
#include "heap/slab.h"
#include "heap/sparse.h"
#include "heaps.h"
#include "step.h"

enum { SLABS = 4, BLOCKS_MAX = SLABS * 600, KEPT_MAX = 64 };

struct table {
	unsigned char *block; /* the victim's own; it may be published or not */
	unsigned count;
	unsigned char *kept[KEPT_MAX];
};

struct world {
	struct shale_segment *segment;
	struct table *table; /* shared by all processes of the scene */
	size_t size;
	unsigned keep; /* every so many blocks one is kept */
};

static struct world world;

static struct lane *my_lane(struct world *w)
{
	struct lane *lane;

	ASSERT_OK(lane_enter(w->segment, &lane));
	return lane;
}

/* Fills `slabs` slabs, keeps and publishes a few blocks, frees the rest, parks the slabs. */
static void populate(struct world *w, unsigned slabs)
{
	unsigned count = slabs * (unsigned)(SLAB_SIZE / w->size);
	unsigned char *blocks[BLOCKS_MAX];

	ASSERT_LE(count, BLOCKS_MAX);
	for (unsigned i = 0; i < count; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
	for (unsigned i = 0; i < count; i++) {
		struct table *table = w->table;

		if (i % w->keep != w->keep / 2) {
			ASSERT_OK(shale_free(w->segment, blocks[i]));
			continue;
		}
		ASSERT_LT(table->count, KEPT_MAX);
		memset(blocks[i], (int)table->count + 1, w->size);
		table->kept[table->count++] = blocks[i];
		ASSERT_OK(shale_publish(w->segment, blocks[i]));
	}
	slab_close_all(my_lane(w));
}

static void make_orphans(struct world *w)
{
	pid_t pid = test_fork();

	ASSERT_SYS(pid);
	if (pid == 0) {
		populate(w, SLABS);
		(void)raise(SIGKILL);
	}
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
	ASSERT_EQ(shale_recover(w->segment), 1);
}

static void make(void *context)
{
	struct world *w = context;

	/* room for another arena: a purger that stands still keeps this one from being allocated from */
	w->segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	w->table = mmap(NULL, sizeof(*w->table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	ASSERT_TRUE(w->table != MAP_FAILED);
	populate(w, SLABS);
	make_orphans(w);
}

static void purge_now(struct world *w)
{
	const struct purge_limits limits = {.facts = true};

	slab_close_all(my_lane(w));
	ASSERT_GE(purge_run(my_lane(w), &limits), 0);
}

static void make_purged(void *context)
{
	make(context);
	purge_now(context);
}

static unsigned kept_now(const struct world *w)
{
	unsigned count = 0;

	for (unsigned i = 0; i < w->table->count; i++)
		count += w->table->kept[i] != NULL;
	return count;
}

static void expect_whole(const struct world *w)
{
	for (unsigned i = 0; i < w->table->count; i++)
		for (size_t b = 0; w->table->kept[i] && b < w->size; b++)
			ASSERT_EQ(w->table->kept[i][b], i + 1);
}

static unsigned sparse_slabs(struct world *w)
{
	unsigned count = 0;

	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = heap_arena(w->segment, 0)->word[s];

		count += slab_word_let_go(word) && (word & SLAB_SPARSE);
	}
	return count;
}

/* The victim is gone: what it had published lives on. */
static void free_block(struct world *w)
{
	if (w->table->block && shale_usable_size(w->segment, w->table->block) != 0)
		ASSERT_OK(shale_free(w->segment, w->table->block));
}

/* All that is live is in the table; it is whole, and the segment works. */
static void judge_rest(struct world *w)
{
	void *block;

	free_block(w);
	EXPECT_EQ(heap_counts(w->segment).live_blocks, kept_now(w));
	expect_whole(w);
	for (unsigned i = 0; i < 100; i++) {
		ASSERT_NOT_NULL(block = shale_alloc(w->segment, w->size));
		memset(block, 0xcc, w->size);
	}
	expect_whole(w);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	for (unsigned i = 0; i < w->table->count; i++)
		if (w->table->kept[i])
			ASSERT_OK(shale_free(w->segment, w->table->kept[i]));
	EXPECT_EQ(heap_counts(w->segment).live_blocks, 100);
	EXPECT_EQ(heap_arena(w->segment, 0)->lease, 0);
	purge_now(w);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
}

/* Outcome: how many slabs are sparse, in steps of the groups that share a page of facts. */
static int judge(void *context)
{
	struct world *w = context;
	int outcome;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	outcome = (int)(sparse_slabs(w) + 3) / 4;
	judge_rest(w);
	return test_has_failed() ? -1 : outcome;
}

/* The victim's last operation was to free kept[0]: it has or it has not. */
static int judge_free(void *context)
{
	struct world *w = context;
	bool freed;

	EXPECT_GE(shale_recover(w->segment), 0);
	EXPECT_EQ(shale_check(w->segment, heap_finding, NULL), 0);
	freed = shale_usable_size(w->segment, w->table->kept[0]) == 0;
	if (freed)
		w->table->kept[0] = NULL;
	judge_rest(w);
	return test_has_failed() ? -1 : freed;
}

/* -- what a victim does --------------------------------------------------------------------------- */

static void attach_only(void *context)
{
	(void)my_lane(context);
}

static void do_purge(void *context)
{
	const struct purge_limits limits = {.facts = true};
	struct world *w = context;

	(void)purge_run(my_lane(w), &limits);
}

static void do_alloc(void *context)
{
	struct world *w = context;

	(void)shale_alloc(w->segment, w->size);
}

static void do_free(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->table->kept[0]);
}

static void do_publish(void *context)
{
	struct world *w = context;

	(void)shale_publish(w->segment, w->table->block);
}

static void do_recover(void *context)
{
	struct world *w = context;

	(void)shale_recover(w->segment);
}

/* Blocks of the victim's own in slabs that it has parked; not one of them is published. */
static void park_own(void *context)
{
	struct world *w = context;
	unsigned char *blocks[64];

	for (unsigned i = 0; i < 64; i++)
		ASSERT_NOT_NULL(blocks[i] = shale_alloc(w->segment, w->size));
	for (unsigned i = 1; i < 64; i++)
		ASSERT_OK(shale_free(w->segment, blocks[i]));
	w->table->block = blocks[0];
	slab_close_all(my_lane(w));
}

/* As park_own(), and the lane has so many open slabs that a free reopens none. */
static void park_own_for_good(void *context)
{
	struct world *w = context;

	park_own(context);
	for (unsigned bin = 0; bin < BIN_COUNT; bin++)
		heap_bin(my_lane(w), bin)->open_count = HEAP_OPEN_MAX;
}

static void park_own_and_purge(void *context)
{
	park_own(context);
	purge_now(context);
}

static void do_free_own(void *context)
{
	struct world *w = context;

	(void)shale_free(w->segment, w->table->block);
}

/* -- kill -------------------------------------------------------------------------------------------- */

VARIANT_SET(sizes) = {{"1536", 1536, NULL}, {"112", 112, NULL}};

static void world_init(size_t size)
{
	world = (struct world){.size = size, .keep = (unsigned)(SLAB_SIZE / size / 3)};
}

static void run_kill(const char *name, struct step_case step, struct step_options options,
		     unsigned outcomes)
{
	struct step_result result;
	unsigned different = 0;

	step.name = name;
	step.ctx = &world;
	if (!step.check)
		step.check = judge;
	step_kill(&step, &options, &result);
	TEST_LOG("%s: %llu instructions, %llu kills, outcomes %llu/%llu/%llu", name,
		 (unsigned long long)result.instructions, (unsigned long long)result.points,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1],
		 (unsigned long long)result.outcomes[2]);
	EXPECT_TRUE(result.complete);
	for (unsigned i = 0; i < STEP_OUTCOMES; i++)
		different += result.outcomes[i] > 0;
	EXPECT_GE(different, outcomes);
}

TEST_V_TIMEOUT(heap_purge_kill, purge, sizes, 300)
{
	world_init(variant->value);
	run_kill("purge",
		 (struct step_case){.setup = make, .prepare = attach_only, .operation = do_purge},
		 (struct step_options){.dense = 10, .stride = 41}, 2);
}

TEST_V_TIMEOUT(heap_purge_kill, purge_of_what_was_purged, sizes, 300)
{
	world_init(variant->value);
	run_kill("purge again",
		 (struct step_case){
			 .setup = make_purged, .prepare = park_own, .operation = do_purge},
		 (struct step_options){.dense = 10, .stride = 41}, 1);
}

/* The survivor's parked slabs are not the victim's to reopen: it adopts the orphans. */
TEST_V_TIMEOUT(heap_purge_kill, adopting_a_sparse_orphan, sizes, 300)
{
	world_init(variant->value);
	run_kill("adopt",
		 (struct step_case){
			 .setup = make_purged, .prepare = attach_only, .operation = do_alloc},
		 (struct step_options){.dense = 10, .stride = 29}, 1);
}

TEST_V_TIMEOUT(heap_purge_kill, reopening_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("reopen",
		 (struct step_case){
			 .setup = make, .prepare = park_own_and_purge, .operation = do_alloc},
		 (struct step_options){.dense = 10, .stride = 29}, 1);
}

TEST_V_TIMEOUT(heap_purge_kill, free_in_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("sparse free",
		 (struct step_case){.setup = make_purged,
				    .prepare = attach_only,
				    .operation = do_free,
				    .check = judge_free},
		 (struct step_options){0}, 2);
}

static void make_purged_but_one(void *context)
{
	struct world *w = context;
	uint64_t slab;

	make_purged(context);
	slab = slab_of_offset(w->segment, view_offset_of(w->segment, w->table->kept[0]));
	for (unsigned i = 1; i < w->table->count; i++) {
		uint64_t offset = view_offset_of(w->segment, w->table->kept[i]);

		if (slab_of_offset(w->segment, offset) != slab)
			continue;
		ASSERT_OK(shale_free(w->segment, w->table->kept[i]));
		w->table->kept[i] = NULL;
	}
}

TEST_V_TIMEOUT(heap_purge_kill, free_of_the_last_block_of_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("last sparse free",
		 (struct step_case){.setup = make_purged_but_one,
				    .prepare = attach_only,
				    .operation = do_free,
				    .check = judge_free},
		 (struct step_options){.dense = 300, .stride = 7}, 2);
}

TEST_V_TIMEOUT(heap_purge_kill, free_of_ones_own_in_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("own sparse free",
		 (struct step_case){.setup = make_purged,
				    .prepare = park_own_and_purge,
				    .operation = do_free_own},
		 (struct step_options){0}, 1);
}

/* 1: the block that the victim was publishing lives on. */
static int judge_published(void *context)
{
	struct world *w = context;
	int published;

	EXPECT_GE(shale_recover(w->segment), 0);
	published = shale_usable_size(w->segment, w->table->block) != 0;
	return judge(context) < 0 ? -1 : published;
}

TEST_V_TIMEOUT(heap_purge_kill, publish_in_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("sparse publish",
		 (struct step_case){.setup = make_purged,
				    .prepare = park_own_and_purge,
				    .operation = do_publish,
				    .check = judge_published},
		 (struct step_options){0}, 2);
}

/* -- recovery, killed itself ------------------------------------------------------------------------ */

static uint8_t *own_fact(struct world *w, unsigned char *block, uint64_t *ret_slab,
			 const struct bin_info **ret_bin)
{
	uint64_t offset = view_offset_of(w->segment, block);

	*ret_slab = slab_of_offset(w->segment, offset);
	*ret_bin = &bin_table[slab_word_bin(*slab_word(w->segment, *ret_slab))];
	return slab_own_facts(w->segment, *ret_bin, *ret_slab) +
	       bin_block_index(*ret_bin, (uint32_t)(offset % SLAB_SIZE));
}

/* The facts of the slab's kept blocks, as a look at the dense ones finds them. */
static void look(struct world *w, uint64_t slab, struct sparse_fact *ret_facts)
{
	const struct bin_info *bin;
	unsigned count = 0;
	uint64_t of;

	for (unsigned i = 0; i < w->table->count; i++) {
		unsigned char *block = w->table->kept[i];
		uint8_t *own = own_fact(w, block, &of, &bin);

		if (of != slab)
			continue;
		ASSERT_LT(count, SPARSE_FACTS);
		ret_facts[count++] = (struct sparse_fact){
			(uint16_t)(own - slab_own_facts(w->segment, bin, slab)), own[0],
			own[bin->facts_half]};
	}
}

/* As purge.c up to the barrier; the first block of each slab is freed between look and switch. */
static void convert_and_die(struct world *w)
{
	uint64_t done = UINT64_MAX, slab;
	const struct bin_info *bin;
	bool freed[KEPT_MAX] = {false};

	ASSERT_TRUE(lease_take(my_lane(w), 0, LEASE_CONVERT));
	for (unsigned i = 0; i < w->table->count; i++) {
		struct sparse_fact facts[SPARSE_FACTS] = {{0}};
		uint8_t *own = own_fact(w, w->table->kept[i], &slab, &bin);

		if (slab == done)
			continue;
		done = slab;
		ASSERT_TRUE(slab_hold(w->segment, slab, *slab_word(w->segment, slab)));
		look(w, slab, facts);
		/* half by another lane, half by their owner */
		if (i % 2)
			own[bin->facts_half] = SHARED_FREED;
		else
			own[0] = OWN_FREE;
		sparse_switch(w->segment, slab, facts);
		freed[i] = true;
	}
	for (unsigned i = 0; i < w->table->count; i++)
		if (freed[i])
			w->table->kept[i] = NULL;
	(void)raise(SIGKILL);
}

/* In phase 2: dense facts of held slabs are holes, free slabs claimed, marked and not punched. */
static void punch_and_die(struct world *w)
{
	struct arena_shm *arena = heap_arena(w->segment, 0);
	struct lane *lane = my_lane(w);

	ASSERT_TRUE(lease_take(lane, 0, LEASE_PUNCH));
	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = arena->word[s];

		if (slab_word_let_go(word) && (word & SLAB_SPARSE)) {
			ASSERT_TRUE(slab_hold(w->segment, s, word));
			memset(slab_own_facts(w->segment, &bin_table[slab_word_bin(word)], s), 0,
			       2u * bin_table[slab_word_bin(word)].facts_half);
		} else if (slab_word_state(word) == SLAB_FREE) {
			arena->word[s] =
				slab_word_next(word, slab_low(SLAB_CLAIMED, lane->index, 0));
			arena->punched[s] = 0xffff;
			arena->facts_gone |= 1u << s;
		}
	}
	(void)raise(SIGKILL);
}

/* Owned again, and what was freed in the entry meanwhile is not merged yet. */
static void expand_and_die(struct world *w)
{
	uint64_t offset, slab, word;
	struct lane *lane = my_lane(w);
	struct sparse_fact fact;
	const struct bin_info *bin;
	uint8_t *own = own_fact(w, w->table->kept[w->table->count - 1], &slab, &bin);

	ASSERT_TRUE(lease_take(lane, 0, LEASE_PUNCH));
	word = *slab_word(w->segment, slab);
	ASSERT_EQ(slab_word_state(word), SLAB_ORPHAN);
	ASSERT_TRUE(slab_hold(w->segment, slab, word));
	ASSERT_OK(slab_make_whole(w->segment, slab, bin));
	for (unsigned k = 0; k < SPARSE_FACTS; k++) {
		fact = sparse_load(sparse_entry(w->segment, slab, k));
		slab_own_facts(w->segment, bin, slab)[fact.index] = fact.own;
		slab_own_facts(w->segment, bin, slab)[bin->facts_half + fact.index] = fact.shared;
	}
	own[0] = OWN_PUBLISHED;
	own[bin->facts_half] = SHARED_NONE;
	offset = view_offset_of(w->segment, w->table->kept[w->table->count - 1]);
	for (unsigned k = 0; k < SPARSE_FACTS; k++) {
		fact = sparse_load(sparse_entry(w->segment, slab, k));
		if (fact.own && fact.index == bin_block_index(bin, (uint32_t)(offset % SLAB_SIZE)))
			sparse_entry(w->segment, slab, k)->shared = SHARED_FREED;
	}
	word = *slab_word(w->segment, slab);
	*slab_word(w->segment, slab) =
		slab_word_next(word, slab_low(SLAB_OWNED, lane->index, slab_word_bin(word)));
	w->table->kept[w->table->count - 1] = NULL;
	(void)raise(SIGKILL);
}

static void die_in(struct world *w, void (*body)(struct world *w))
{
	pid_t pid = test_fork();

	ASSERT_SYS(pid);
	if (pid == 0) {
		body(w);
		_exit(1);
	}
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
}

static void die_converting(void *context)
{
	make(context);
	die_in(context, convert_and_die);
}

static void die_punching(void *context)
{
	make_purged(context);
	die_in(context, punch_and_die);
}

static void die_expanding(void *context)
{
	make_purged(context);
	die_in(context, expand_and_die);
}

static void kill_recovery(void (*setup)(void *context))
{
	run_kill(
		"recover",
		(struct step_case){.setup = setup, .prepare = attach_only, .operation = do_recover},
		(struct step_options){.dense = 10, .stride = 607}, 1);
}

TEST_V_TIMEOUT(heap_purge_kill, recovery_of_one_who_converted, sizes, 300)
{
	world_init(variant->value);
	kill_recovery(die_converting);
}

TEST_V_TIMEOUT(heap_purge_kill, recovery_of_one_who_punched, sizes, 300)
{
	world_init(variant->value);
	kill_recovery(die_punching);
}

TEST_V_TIMEOUT(heap_purge_kill, recovery_of_one_who_expanded, sizes, 300)
{
	world_init(variant->value);
	kill_recovery(die_expanding);
}

/* -- pause, and let a rival run ---------------------------------------------------------------------- */

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
