/*
 * heap_kills.c - processes are killed at random while they allocate, free, resize and hand over; after
 * each batch what lives must be exactly what the living hold and the published places name.
 *
 *   the test            makes the segment, kills, starts new ones, and after each batch counts
 *   a worker            works on blocks of its own, publishes some into places, takes those that are
 *                       in its places and frees them, gives memory back, waits for memory
 *
 * Who takes from a place writes first, outside the segment, what it is about to take: the library leaves a
 * published block to its taker, so a taker that dies must be known by others. One worker takes from a place.
 *
 * Exact: every block that the walk finds is in the list of those expected, with its bytes; every
 * expected one is found; the counts of the heap agree; the checker finds nothing.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shale/debug.h>
#include <shale/keeper.h>
#include <shale/wait.h>

#include "base/atomic.h"
#include "heaps.h"

enum { WORKERS = 4, HELD = 192, PLACES = 64, LIVES = 64, EXPECTED_MAX = 8192 };

enum taking { TAKING_NOTHING = 0, TAKING = 1, TAKEN = 2 };

/* What a worker was about to take. One for each worker that was ever started in the batch. */
struct journal {
	uint32_t state; /* enum taking */
	uint32_t place;
	uint64_t ref;
	uint64_t id;
};

struct worker {
	pid_t pid;
	uint32_t life;       /* its journal */
	uint32_t at_rest;    /* the batch for which it rests */
	uint64_t held[HELD]; /* refs of blocks that are its own, whole */
	uint64_t operations;
};

struct control {
	uint32_t rest; /* the batch for which workers are to rest; 0: work */
	uint32_t lives;
	uint64_t next_id;
	struct worker workers[WORKERS];
	struct journal journals[LIVES];
};

struct storm {
	struct shale_segment *segment;
	struct control *control;
	uint64_t *places; /* a published block */
	uint64_t kills;
	uint32_t batch;
	bool keepers;
};

static struct storm storm;

/* -- a block says by itself whether it is whole ------------------------------------------------------ */

struct head {
	uint64_t id;
	uint64_t size;
};

static void fill(unsigned char *block, uint64_t id, uint64_t size)
{
	struct head head = {id, size};

	for (uint64_t i = sizeof(head); i < size; i++)
		block[i] = (unsigned char)(id * 7 + i * 131);
	memcpy(block, &head, sizeof(head));
}

static bool whole(const unsigned char *block, uint64_t usable)
{
	struct head head;

	memcpy(&head, block, sizeof(head));
	if (head.size < sizeof(head) || head.size > usable)
		return false;
	for (uint64_t i = sizeof(head); i < head.size; i++)
		if (block[i] != (unsigned char)(head.id * 7 + i * 131))
			return false;
	return true;
}

static uint64_t id_of(const void *block)
{
	struct head head;

	memcpy(&head, block, sizeof(head));
	return head.id;
}

/* -- a worker ------------------------------------------------------------------------------------- */

struct self {
	struct shale_segment *segment;
	struct worker *worker;
	struct journal *journal;
	unsigned number;
	uint64_t random;
};

static uint64_t below(struct self *self, uint64_t bound)
{
	return test_random_next(&self->random) % bound;
}

static uint64_t any_size(struct self *self)
{
	/* few are large: a worker is to be killed in the library, and not while it fills a block */
	switch (below(self, 128)) {
	case 0:
		return 33000 + below(self, 200000);
	case 1:
	case 2:
		return 2000 + below(self, 30000);
	case 3:
	case 4:
	case 5:
	case 6:
		return 200 + below(self, 1800);
	default:
		return 16 + below(self, 80);
	}
}

static void *block_at(struct shale_segment *segment, uint64_t ref)
{
	return shale_ptr(segment, (shale_ref){ref}, 16);
}

static void *any_alloc(struct self *self, uint64_t size)
{
	switch (below(self, 12)) {
	case 0:
		return shale_alloc_aligned(self->segment, size, (size_t)16 << below(self, 13));
	case 1:
		return shale_alloc_zeroed(self->segment, size);
	case 2:
		return shale_alloc_wait(self->segment, size, shale_deadline_in(1000000));
	default:
		return shale_alloc(self->segment, size);
	}
}

static void do_alloc(struct self *self, uint64_t *place)
{
	uint64_t size = any_size(self);
	unsigned char *block = any_alloc(self, size);

	if (!block) {
		ASSERT_TRUE(errno == ENOMEM || errno == ETIMEDOUT);
		return;
	}
	fill(block, fetch_add_relaxed(&storm.control->next_id, UINT64_C(1)), size);
	store_release(place, shale_ref_of(self->segment, block).off);
}

static void do_free(struct self *self, uint64_t *place)
{
	unsigned char *block = block_at(self->segment, *place);

	ASSERT_TRUE(whole(block, shale_usable_size(self->segment, block)));
	*place = 0;
	ASSERT_OK(shale_free(self->segment, block));
}

static void do_resize(struct self *self, uint64_t *place)
{
	unsigned char *block = block_at(self->segment, *place), *moved;
	uint64_t size = any_size(self), id = id_of(block);
	struct head head;

	memcpy(&head, block, sizeof(head));
	moved = shale_resize(self->segment, block, size);
	if (!moved) {
		/* published once, it stays where it is */
		ASSERT_TRUE(errno == ENOMEM || errno == EBUSY);
		return;
	}
	for (uint64_t i = sizeof(head); i < head.size && i < size; i++)
		ASSERT_EQ(moved[i], (unsigned char)(id * 7 + i * 131));
	fill(moved, id, size);
	*place = shale_ref_of(self->segment, moved).off;
}

static void do_publish(struct self *self, uint64_t *place)
{
	uint64_t *target = &storm.places[below(self, PLACES)];
	int r = shale_publish_at(self->segment, block_at(self->segment, *place), target, 0);

	if (r == 0)
		*place = 0;
	else
		ASSERT_EQ(r, -EAGAIN);
}

/* Only from places that are ours; nobody else takes from them. */
static void do_take(struct self *self)
{
	uint32_t number = (uint32_t)(below(self, PLACES / WORKERS) * WORKERS + self->number);
	struct journal *journal = self->journal;
	uint64_t ref = load_acquire(&storm.places[number]);
	unsigned char *block;
	void *taken;

	if (ref == 0)
		return;
	block = block_at(self->segment, ref);
	ASSERT_TRUE(whole(block, shale_usable_size(self->segment, block)));
	journal->place = number;
	journal->ref = ref;
	journal->id = id_of(block);
	store_release(&journal->state, (uint32_t)TAKING);
	ASSERT_OK(shale_take_at(self->segment, &storm.places[number], &taken));
	ASSERT_PTR_EQ(taken, block);
	store_release(&journal->state, (uint32_t)TAKEN);
	ASSERT_OK(shale_free(self->segment, taken));
	store_release(&journal->state, (uint32_t)TAKING_NOTHING);
}

static void work_once(struct self *self)
{
	uint64_t *place = &self->worker->held[below(self, HELD)];

	switch (below(self, 8)) {
	case 0:
	case 1:
	case 2:
		do_take(self);
		break;
	case 3:
		if (below(self, 500) == 0)
			ASSERT_GE(shale_trim(self->segment, below(self, 4) << 20), 0);
		break;
	default:
		if (*place == 0)
			do_alloc(self, place);
		else if (below(self, 3) == 0)
			do_publish(self, place);
		else if (below(self, 3) == 0)
			do_resize(self, place);
		else
			do_free(self, place);
	}
	self->worker->operations++;
}

static void rest_if_asked(struct self *self)
{
	uint32_t batch = load_acquire(&storm.control->rest);

	if (batch == 0)
		return;
	store_release(&self->worker->at_rest, batch);
	while (load_acquire(&storm.control->rest) == batch)
		usleep(100);
}

static void work(unsigned number, uint32_t life, uint64_t seed)
{
	struct self self = {
		.segment = storm.segment,
		.worker = &storm.control->workers[number],
		.journal = &storm.control->journals[life],
		.number = number,
		.random = seed,
	};

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (storm.keepers && below(&self, 3) == 0)
		ASSERT_GE(shale_keeper_start(self.segment, NULL), -EALREADY);
	for (;;) {
		rest_if_asked(&self);
		work_once(&self);
	}
}

/* -- the test ----------------------------------------------------------------------------------- */

static void start_worker(unsigned number)
{
	struct worker *worker = &storm.control->workers[number];
	uint64_t seed = test_random_u64();
	uint32_t life = storm.control->lives++;
	pid_t pid;

	ASSERT_LT(life, LIVES);
	storm.control->journals[life] = (struct journal){0};
	memset(worker->held, 0, sizeof(worker->held));
	worker->life = life;
	worker->at_rest = 0;
	pid = test_fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		work(number, life, seed);
		test_child_exit();
	}
	worker->pid = pid;
}

/* The dead one is the only taker of its places: now, and not later, it can be seen how far it came. */
static void settle_journal(struct journal *journal)
{
	if (journal->state == TAKING)
		journal->state =
			storm.places[journal->place] == journal->ref ? TAKING_NOTHING : TAKEN;
}

static void kill_worker(unsigned number)
{
	struct worker *worker = &storm.control->workers[number];
	int status = 0;

	ASSERT_SYS(kill(worker->pid, SIGKILL));
	ASSERT_SYS(waitpid(worker->pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	settle_journal(&storm.control->journals[worker->life]);
	storm.kills++;
}

static bool all_rest(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		if (load_acquire(&storm.control->workers[i].at_rest) != storm.batch)
			return false;
	return true;
}

struct expected {
	uint64_t ref;
	bool seen;
};

struct count {
	struct expected blocks[EXPECTED_MAX];
	unsigned number;
	uint64_t bytes;
	uint64_t found;
	uint64_t strange;
};

static struct count count;

static void expect_block(uint64_t ref)
{
	ASSERT_LT(count.number, EXPECTED_MAX);
	count.blocks[count.number++] = (struct expected){.ref = ref};
}

static int compare_refs(const void *a, const void *b)
{
	const struct expected *one = a, *other = b;

	return one->ref < other->ref ? -1 : one->ref > other->ref;
}

static struct expected *find_expected(uint64_t ref)
{
	struct expected key = {.ref = ref};

	return bsearch(&key, count.blocks, count.number, sizeof(key), compare_refs);
}

/* A block that a dead worker had taken, unless it had freed it: then somebody else may have it. */
static void free_taken(const struct journal *journal)
{
	unsigned char *block = block_at(storm.segment, journal->ref);

	if (journal->state != TAKEN || find_expected(journal->ref) ||
	    shale_usable_size(storm.segment, block) == 0)
		return;
	EXPECT_EQ(id_of(block), journal->id);
	EXPECT_OK(shale_free(storm.segment, block));
}

static void found_block(const struct shale_block *block, void *context)
{
	const unsigned char *bytes = block_at(storm.segment, block->ref.off);
	struct expected *expected = find_expected(block->ref.off);

	(void)context;
	count.found++;
	if (!expected) {
		if (count.strange++ < 5)
			TEST_LOG("lost: 0x%llx, %llu bytes, %s, id %llu",
				 (unsigned long long)block->ref.off,
				 (unsigned long long)block->usable_bytes,
				 block->published ? "published" : "private",
				 (unsigned long long)id_of(bytes));
		return;
	}
	expected->seen = true;
	count.bytes += block->usable_bytes;
	if (bytes == (const unsigned char *)storm.places)
		return;
	if (!whole(bytes, block->usable_bytes))
		TEST_FAIL("the block at 0x%llx is not whole", (unsigned long long)block->ref.off);
}

static void gather_expected(void)
{
	memset(&count, 0, sizeof(count));
	expect_block(shale_ref_of(storm.segment, storm.places).off);
	for (unsigned i = 0; i < PLACES; i++)
		if (storm.places[i])
			expect_block(storm.places[i]);
	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned j = 0; j < HELD; j++)
			if (storm.control->workers[i].held[j])
				expect_block(storm.control->workers[i].held[j]);
	qsort(count.blocks, count.number, sizeof(count.blocks[0]), compare_refs);
}

static void count_all(void)
{
	struct shale_heap_figures stat;

	EXPECT_GE(shale_recover(storm.segment), 0);
	gather_expected();
	for (uint32_t i = 0; i < storm.control->lives; i++)
		free_taken(&storm.control->journals[i]);
	EXPECT_EQ(shale_check(storm.segment, heap_finding, NULL), 0);
	(void)shale_debug_walk(storm.segment, found_block, NULL);
	for (unsigned i = 0; i < count.number; i++)
		if (!count.blocks[i].seen)
			TEST_FAIL("the block at 0x%llx is gone",
				  (unsigned long long)count.blocks[i].ref);
	EXPECT_EQ(count.strange, 0);
	EXPECT_EQ(count.found, count.number);
	stat = heap_counts(storm.segment);
	EXPECT_EQ(stat.live_blocks, count.number);
	EXPECT_EQ(stat.live_bytes, count.bytes);
}

/* The living keep their journals, which say nothing while they rest; the others are used again. */
static void renew_journals(void)
{
	for (unsigned i = 0; i < WORKERS; i++) {
		EXPECT_EQ(storm.control->journals[storm.control->workers[i].life].state,
			  TAKING_NOTHING);
		EXPECT_LT(storm.control->workers[i].life, LIVES);
	}
}

static void run_batch(unsigned kills)
{
	storm.batch++;
	for (unsigned i = 0; i < kills; i++) {
		unsigned number = (unsigned)test_random_below(WORKERS);

		usleep((unsigned)test_random_below(6000));
		kill_worker(number);
		if (test_random_below(2))
			EXPECT_GE(shale_recover(storm.segment), 0);
		start_worker(number);
	}
	store_release(&storm.control->rest, storm.batch);
	if (!TEST_EVENTUALLY(all_rest(), 20000))
		TEST_FAIL("a worker does not come to rest");
	count_all();
	renew_journals();
}

/* Every worker is started anew, so that journals can be used again; their blocks are free then. */
static void end_batches(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		kill_worker(i);
	memset(storm.control->workers, 0, sizeof(storm.control->workers));
	for (unsigned i = 0; i < WORKERS; i++)
		storm.control->workers[i].at_rest = storm.batch;
	count_all();
	storm.control->lives = 0;
}

static void start_all(void)
{
	store_release(&storm.control->rest, 0u);
	for (unsigned i = 0; i < WORKERS; i++)
		start_worker(i);
}

static void open_storm(enum shale_pages pages, bool keepers)
{
	storm.segment = heap_segment(96u << 20, pages);
	storm.keepers = keepers;
	storm.control = mmap(NULL, sizeof(*storm.control), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(storm.control != MAP_FAILED);
	storm.control->next_id = 1;
	storm.places = shale_alloc_zeroed(storm.segment, PLACES * sizeof(uint64_t));
	ASSERT_OK(shale_publish(storm.segment, storm.places));
}

struct kind {
	enum shale_pages pages;
	bool keepers;
};

VARIANT_SET(kinds) = {
	{"4k", 0, &(struct kind){SHALE_PAGES_4K, false}},
	{"4k_keeper", 0, &(struct kind){SHALE_PAGES_4K, true}},
	{"2m", 0, &(struct kind){SHALE_PAGES_2M, true}},
};

TEST_V_TIMEOUT(heap_kills, nothing_is_lost, kinds, 60)
{
	const struct kind *kind = variant->data;
	uint64_t most = TEST_ROUNDS(100, 3400);

	open_storm(kind->pages, kind->keepers);
	test_set_limit(TEST_ROUNDS(60, 1800)); /* waiting for huge pages is not counted */
	while (storm.kills < most && !test_has_failed()) {
		start_all();
		for (unsigned i = 0; i < 5 && !test_has_failed(); i++) {
			store_release(&storm.control->rest, 0u);
			run_batch(6);
		}
		end_batches();
	}
	TEST_LOG("%llu kills, %llu blocks given out", (unsigned long long)storm.kills,
		 (unsigned long long)storm.control->next_id);
	for (unsigned i = 0; i < PLACES; i++)
		if (storm.places[i])
			EXPECT_OK(shale_free(storm.segment,
					     block_at(storm.segment, storm.places[i])));
	EXPECT_OK(shale_free(storm.segment, storm.places));
	EXPECT_EQ(heap_counts(storm.segment).live_blocks, 0);
	heap_expect_clean(storm.segment);
	EXPECT_OK(shale_segment_detach(storm.segment));
}
