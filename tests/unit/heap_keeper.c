/* The keeper of one process: starting and stopping, what it does, what it does without, fork. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shale/keeper.h>

#include "heap/giveback.h"
#include "heap/slab.h"
#include "heaps.h"
#include "os/os.h"

#define ARENA    ((size_t)ARENA_SIZE)
#define LIMIT_MS 10000

static struct shale_keeper_figures status_of(struct shale_segment *segment)
{
	struct shale_keeper_figures status = {.size = sizeof(status)};

	ASSERT_OK(shale_keeper_stat(segment, &status));
	return status;
}

static void start(struct shale_segment *segment, uint32_t flags)
{
	struct shale_keeper_options options = {
		.size = sizeof(options),
		.flags = flags,
		.decay_ms = 40,
		.period_ms = 50,
	};

	ASSERT_OK(shale_keeper_start(segment, &options));
}

static bool acts(struct shale_segment *segment)
{
	return status_of(segment).state == SHALE_KEEPER_ACTING;
}

/* Commits arenas, touches them, frees them. */
static void burst(struct shale_segment *segment, unsigned arenas)
{
	void *block = shale_alloc(segment, arenas * ARENA);

	ASSERT_NOT_NULL(block);
	memset(block, 1, arenas * ARENA);
	ASSERT_OK(shale_free(segment, block));
}

static uint64_t committed(struct shale_segment *segment)
{
	return heap_counts(segment).committed_bytes;
}

/* Threads of this process with that name; *ret_blocked: all signals that can be are blocked in it. */
static unsigned threads_named(const char *name, bool *ret_blocked)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned count = 0;

	ASSERT_NOT_NULL(folder);
	while ((entry = readdir(folder))) {
		char path[300], text[4096], *at;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		if (entry->d_name[0] == '.' || os_read_text(path, text, sizeof(text)) < 0)
			continue;
		if (strncmp(text, "Name:\t", 6) != 0 || strncmp(text + 6, name, strlen(name)) != 0)
			continue;
		count++;
		at = strstr(text, "SigBlk:\t");
		/* all but KILL, STOP and the two that libc keeps for itself */
		*ret_blocked =
			at && (strtoull(at + 8, NULL, 16) | UINT64_C(0x180040100)) == UINT64_MAX;
	}
	closedir(folder);
	return count;
}

VARIANT_SET(page_kinds) = {{"4k", SHALE_PAGES_4K, NULL},
			   {"thp", SHALE_PAGES_THP, NULL},
			   {"2m", SHALE_PAGES_2M, NULL},
			   {"private", SHALE_PAGES_PRIVATE, NULL}};

TEST_V(heap_keeper, a_burst_goes_back_while_everybody_is_idle, page_kinds)
{
	struct shale_segment *segment = heap_segment(128u << 20, (enum shale_pages)variant->value);

	start(segment, 0);
	burst(segment, 20);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	EXPECT_TRUE(TEST_EVENTUALLY(status_of(segment).returned_bytes >= 19 * ARENA, LIMIT_MS));
	EXPECT_EQ(status_of(segment).error, 0);
	EXPECT_NE(heap_counts(segment).keeper, 0);
	burst(segment, 20);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	heap_expect_clean(segment);
	EXPECT_OK(shale_keeper_stop(segment));
	EXPECT_EQ(heap_counts(segment).keeper, 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* st_blocks, not our own count: live, one arena and the tables are left. */
TEST(heap_keeper, backing_returns_to_one_arena_and_the_tables)
{
	struct shale_segment *segment = heap_segment(256u << 20, SHALE_PAGES_4K);
	struct shale_segment_figures figures = {.size = sizeof(figures)};

	burst(segment, 60);
	ASSERT_OK(shale_segment_stat(segment, &figures));
	ASSERT_GE(figures.backing_bytes, 60 * ARENA);
	start(segment, 0);
	EXPECT_TRUE(TEST_EVENTUALLY((shale_segment_stat(segment, &figures),
				     figures.backing_bytes <= ARENA + figures.metadata_bytes),
				    LIMIT_MS));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_keeper, with_nothing_to_do_it_does_not_wake_up)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	uint64_t rounds;

	start(segment, 0);
	burst(segment, 4);
	ASSERT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	/* until the last look after the activity is over */
	do {
		rounds = status_of(segment).rounds;
		test_sleep_ms(300);
	} while (status_of(segment).rounds != rounds);
	/* nobody calls and nobody else is attached: not a single round */
	test_sleep_ms(1000);
	EXPECT_EQ(status_of(segment).rounds, rounds);
	burst(segment, 4);
	EXPECT_TRUE(TEST_EVENTUALLY(status_of(segment).rounds > rounds, LIMIT_MS));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_keeper, is_started_once_and_stopped_once)
{
	struct shale_segment *segment = heap_segment(32u << 20, SHALE_PAGES_4K);
	unsigned fds = test_fd_count();
	bool blocked = false;

	EXPECT_ERRNO(-ENOENT, shale_keeper_stop(segment));
	EXPECT_EQ(status_of(segment).state, SHALE_KEEPER_NONE);
	for (unsigned i = 0; i < 20; i++) {
		start(segment, i % 2 ? SHALE_KEEPER_URING : 0);
		EXPECT_ERRNO(-EALREADY, shale_keeper_start(segment, NULL));
		EXPECT_TRUE(
			TEST_EVENTUALLY(threads_named("shale-keeper", &blocked) == 1, LIMIT_MS));
		EXPECT_TRUE(blocked);
		if (i % 4 < 2)
			EXPECT_TRUE(TEST_EVENTUALLY(acts(segment), LIMIT_MS));
		ASSERT_OK(shale_keeper_stop(segment));
		EXPECT_EQ(threads_named("shale-", &blocked), 0);
		EXPECT_EQ(test_fd_count(), fds);
	}
	EXPECT_ERRNO(-ENOENT, shale_keeper_stop(segment));
	ASSERT_OK(shale_keeper_start(segment, NULL));
	EXPECT_OK(shale_segment_detach(segment)); /* stops it */
	EXPECT_EQ(threads_named("shale-", &blocked), 0);
}

TEST(heap_keeper, options_out_of_range_are_refused)
{
	struct shale_segment *segment = heap_segment(32u << 20, SHALE_PAGES_4K);
	struct shale_keeper_options options = {.size = sizeof(options) - 4};
	struct shale_keeper_figures status = {.size = 4};
	struct shale_attach_options look = {.size = sizeof(look), .read_only = true};
	struct shale_segment *reader = NULL;

	EXPECT_ERRNO(-EINVAL, shale_keeper_start(segment, &options));
	options = (struct shale_keeper_options){.size = sizeof(options), .flags = 1u << 20};
	EXPECT_ERRNO(-EINVAL, shale_keeper_start(segment, &options));
	options = (struct shale_keeper_options){.size = sizeof(options), .decay_ms = UINT32_MAX};
	EXPECT_ERRNO(-EINVAL, shale_keeper_start(segment, &options));
	EXPECT_ERRNO(-EINVAL, shale_keeper_stat(segment, &status));
	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), &look, &reader));
	EXPECT_ERRNO(-EROFS, shale_keeper_start(reader, NULL));
	ASSERT_NOT_NULL(shale_alloc(segment, 1));
	EXPECT_ERRNO(-EROFS, shale_pin(reader, view_at(reader, reader->heap_offset), 1));
	EXPECT_OK(shale_segment_detach(reader));
	EXPECT_OK(shale_segment_detach(segment));
}

/* Two views of one process are two peers: one keeper acts. */
TEST(heap_keeper, one_acts_and_the_other_takes_over)
{
	struct shale_segment *first = heap_segment(64u << 20, SHALE_PAGES_4K), *second = NULL;

	ASSERT_OK(shale_segment_attach(shale_segment_fd(first), NULL, &second));
	start(first, 0);
	ASSERT_TRUE(TEST_EVENTUALLY(acts(first), LIMIT_MS));
	start(second, 0);
	ASSERT_TRUE(TEST_EVENTUALLY(status_of(second).rounds > 3, LIMIT_MS));
	EXPECT_EQ(status_of(second).state, SHALE_KEEPER_STANDBY);
	EXPECT_EQ(status_of(second).acting, first->peer);
	EXPECT_OK(shale_keeper_stop(first));
	EXPECT_TRUE(TEST_EVENTUALLY(acts(second), LIMIT_MS));
	EXPECT_EQ(status_of(first).acting, second->peer);
	burst(first, 10);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(first) == ARENA, LIMIT_MS));
	EXPECT_OK(shale_segment_detach(second));
	EXPECT_OK(shale_segment_detach(first));
}

/* -- half-used arenas -------------------------------------------------------------------------------- */

enum { SMALL = 20000 };

static void *small[SMALL];

/* Blocks of 1000 bytes; every 100th is kept. */
static void thin_out(struct shale_segment *segment)
{
	for (unsigned i = 0; i < SMALL; i++) {
		small[i] = shale_alloc(segment, 1000);
		ASSERT_NOT_NULL(small[i]);
		memset(small[i], (int)(i / 100), 1000);
	}
	for (unsigned i = 0; i < SMALL; i++)
		if (i % 100)
			ASSERT_OK(shale_free(segment, small[i]));
}

TEST(heap_keeper, pages_between_survivors_go_back)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	struct shale_segment_figures figures = {.size = sizeof(figures)};
	uint64_t peak;

	thin_out(segment);
	ASSERT_OK(shale_segment_stat(segment, &figures));
	peak = figures.backing_bytes;
	start(segment, 0);
	/* a page for each survivor, what the lane is allocating from, and the tables */
	EXPECT_TRUE(TEST_EVENTUALLY(
		(shale_segment_stat(segment, &figures),
		 figures.backing_bytes < SMALL / 100 * 4096 + 64 * 65536 + (2u << 20)),
		LIMIT_MS));
	EXPECT_TRUE(TEST_EVENTUALLY(status_of(segment).purged_bytes > peak / 2, LIMIT_MS));
	for (unsigned i = 0; i < SMALL; i += 100)
		for (unsigned at = 0; at < 1000; at += 100)
			ASSERT_EQ(((unsigned char *)small[i])[at], (unsigned char)(i / 100));
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_keeper, leaves_half_used_arenas_alone_when_told)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	uint64_t rounds;

	start(segment, SHALE_KEEPER_NO_PURGE);
	thin_out(segment);
	rounds = status_of(segment).rounds;
	EXPECT_TRUE(TEST_EVENTUALLY(status_of(segment).rounds > rounds + 5, LIMIT_MS));
	test_sleep_ms(200);
	EXPECT_EQ(status_of(segment).purged_bytes, 0);
	EXPECT_OK(shale_segment_detach(segment));
}

static bool all_of_kind(struct shale_segment *segment, unsigned arenas, enum shale_pages kind)
{
	for (unsigned i = 0; i < arenas; i++)
		if (load_relaxed(&heap_arena(segment, i)->page_kind) != kind)
			return false;
	return true;
}

TEST(heap_keeper, an_arena_that_was_purged_and_is_full_again_becomes_a_huge_page)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_THP);
	unsigned arenas = SMALL * 1024 / ARENA_SIZE - 1;

	thin_out(segment);
	if (!all_of_kind(segment, arenas, SHALE_PAGES_THP))
		SKIP("no transparent huge pages here");
	ASSERT_GT(shale_trim(segment, 0), 0);
	EXPECT_TRUE(all_of_kind(segment, arenas, SHALE_PAGES_4K));
	start(segment, 0);
	for (unsigned i = 0; i < SMALL; i++)
		if (i % 100) {
			small[i] = shale_alloc(segment, 1000);
			ASSERT_NOT_NULL(small[i]);
			memset(small[i], (int)(i / 100), 1000);
		}
	EXPECT_TRUE(TEST_EVENTUALLY(all_of_kind(segment, arenas, SHALE_PAGES_THP), LIMIT_MS));
	for (unsigned i = 0; i < SMALL; i++)
		ASSERT_EQ(*(unsigned char *)small[i], (unsigned char)(i / 100));
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- fork ------------------------------------------------------------------------------------------ */

TEST_V(heap_keeper, a_forked_child_has_none_and_may_start_one, page_kinds)
{
	struct shale_segment *segment = heap_segment(64u << 20, (enum shale_pages)variant->value);
	pid_t child;

	start(segment, SHALE_KEEPER_URING);
	ASSERT_TRUE(TEST_EVENTUALLY(acts(segment), LIMIT_MS));
	child = test_fork();
	if (child == 0) {
		unsigned fds = test_fd_count();
		bool blocked;

		EXPECT_EQ(status_of(segment).state, SHALE_KEEPER_NONE);
		EXPECT_EQ(threads_named("shale-", &blocked), 0);
		EXPECT_ERRNO(-ENOENT, shale_keeper_stop(segment));
		EXPECT_LE(test_fd_count(), fds); /* what the parent's had open */
		start(segment, 0);
		EXPECT_TRUE(TEST_EVENTUALLY(status_of(segment).rounds > 0, LIMIT_MS));
		burst(segment, 2);
		EXPECT_EQ(acts(segment), segment->private_memory);
		EXPECT_OK(shale_keeper_stop(segment));
		EXPECT_OK(shale_segment_detach(segment));
		test_child_exit();
	}
	test_join(child, 20000);
	EXPECT_TRUE(acts(segment));
	burst(segment, 10);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_keeper, forks_while_it_works)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);

	start(segment, 0);
	for (unsigned i = 0; i < TEST_ROUNDS(30, 300); i++) {
		pid_t child;

		burst(segment, 4);
		test_sleep_ms((unsigned)test_random_below(60));
		child = test_fork();
		if (child == 0) {
			burst(segment, 3);
			EXPECT_OK(shale_segment_detach(segment));
			test_child_exit();
		}
		test_join(child, 20000);
	}
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

/* -- what the kernel does not give ----------------------------------------------------------------- */

TEST(heap_keeper, punches_through_io_uring_where_it_can)
{
	struct shale_segment *segment = heap_segment(128u << 20, SHALE_PAGES_4K);
	struct shale_segment_figures figures = {.size = sizeof(figures)};

	start(segment, SHALE_KEEPER_URING | SHALE_KEEPER_NO_PURGE);
	ASSERT_TRUE(TEST_EVENTUALLY(acts(segment), LIMIT_MS));
	if (status_of(segment).uring < 0)
		SKIP("no io_uring: %s", test_errno_name(status_of(segment).uring));
	EXPECT_EQ(status_of(segment).uring, 1);
	os_fault_arm(OS_CALL_PUNCH, 0, 0);
	os_fault_arm(OS_CALL_URING, 0, 0);
	burst(segment, 40);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	EXPECT_TRUE(TEST_EVENTUALLY((shale_segment_stat(segment, &figures),
				     figures.backing_bytes <= ARENA + figures.metadata_bytes),
				    LIMIT_MS));
	EXPECT_EQ(os_fault_count(OS_CALL_PUNCH), 0); /* not one by a call */
	EXPECT_GT(os_fault_count(OS_CALL_URING), 0);
	os_fault_disarm();
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_keeper, without_io_uring_it_punches_by_calls_and_says_why)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);

	os_fault_arm(OS_CALL_URING, 1, EPERM);
	start(segment, SHALE_KEEPER_URING);
	ASSERT_TRUE(TEST_EVENTUALLY(acts(segment), LIMIT_MS));
	EXPECT_EQ(status_of(segment).uring, -EPERM);
	os_fault_disarm();
	burst(segment, 10);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	EXPECT_OK(shale_segment_detach(segment));
}

/* The ring fails in the middle: nothing is lost, what it did not do is done by calls. */
TEST(heap_keeper, a_ring_that_breaks_loses_nothing)
{
	for (unsigned nth = 1; nth < 8; nth++) {
		struct shale_segment *segment = heap_segment(256u << 20, SHALE_PAGES_4K);

		start(segment, SHALE_KEEPER_URING);
		ASSERT_TRUE(TEST_EVENTUALLY(acts(segment), LIMIT_MS));
		if (status_of(segment).uring < 0)
			SKIP("no io_uring: %s", test_errno_name(status_of(segment).uring));
		os_fault_arm(OS_CALL_URING, nth, EBADF);
		burst(segment, 20);
		EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
		os_fault_disarm();
		heap_expect_clean(segment);
		burst(segment, 20);
		EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
		EXPECT_OK(shale_segment_detach(segment));
	}
}

TEST(heap_keeper, without_psi_it_works_by_age_and_says_why)
{
	static const struct {
		enum os_call call;
		int error;
	} failures[] = {{OS_CALL_OPEN, ENOENT}, {OS_CALL_WRITE, EINVAL}, {OS_CALL_EVENTFD, EMFILE}};

	for (unsigned i = 0; i < 3; i++) {
		struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
		unsigned fds = test_fd_count();

		os_fault_arm(failures[i].call, 1, failures[i].error);
		start(segment, 0);
		os_fault_disarm();
		EXPECT_LT(status_of(segment).psi, 0);
		burst(segment, 10);
		EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
		EXPECT_OK(shale_keeper_stop(segment));
		EXPECT_EQ(test_fd_count(), fds);
		EXPECT_OK(shale_segment_detach(segment));
	}
}

TEST(heap_keeper, pressure_is_watched_unless_told_not_to)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	bool blocked = false;

	start(segment, SHALE_KEEPER_NO_PSI);
	EXPECT_EQ(status_of(segment).psi, 0);
	EXPECT_EQ(threads_named("shale-pressure", &blocked), 0);
	EXPECT_OK(shale_keeper_stop(segment));
	start(segment, 0);
	if (status_of(segment).psi < 0)
		SKIP("no PSI: %s", test_errno_name(status_of(segment).psi));
	EXPECT_EQ(status_of(segment).psi, 1);
	EXPECT_TRUE(TEST_EVENTUALLY(threads_named("shale-pressure", &blocked) == 1, LIMIT_MS));
	EXPECT_TRUE(blocked);
	EXPECT_OK(shale_segment_detach(segment));
	EXPECT_EQ(threads_named("shale-", &blocked), 0);
}

TEST(heap_keeper, a_refused_punch_is_tried_again_later)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);

	os_fault_arm(OS_CALL_PUNCH, 2, EIO);
	start(segment, SHALE_KEEPER_NO_PURGE); /* the punch is that of an arena */
	burst(segment, 10);
	EXPECT_TRUE(TEST_EVENTUALLY(committed(segment) == ARENA, LIMIT_MS));
	EXPECT_EQ(status_of(segment).error, -EIO);
	os_fault_disarm();
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(heap_keeper, no_thread_is_an_error_that_leaves_nothing)
{
	struct shale_segment *segment = heap_segment(64u << 20, SHALE_PAGES_4K);
	unsigned fds = test_fd_count();

	for (unsigned nth = 1; nth <= 2; nth++) {
		os_fault_arm(OS_CALL_THREAD, nth, EAGAIN);
		if (nth == 1) /* that for pressure: done without */
			EXPECT_OK(shale_keeper_start(segment, NULL));
		else
			EXPECT_ERRNO(-EAGAIN, shale_keeper_start(segment, NULL));
		os_fault_disarm();
		(void)shale_keeper_stop(segment);
		EXPECT_EQ(test_fd_count(), fds);
	}
	EXPECT_OK(shale_segment_detach(segment));
}
