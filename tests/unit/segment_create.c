/*
 * segment_create.c - creating, looking at and leaving a segment, alone.
 *
 * Owner:     each test owns its segments.
 * Invariant: whatever fails, no descriptor and no mapping of a segment stays.
 * Ordering:  none.
 * Lifetime:  a segment ends with its test.
 * Death:     not tested here.
 */
#include "unit/segment_test.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "lib/hugepages.h"
#include "os/os.h"

TEST(segment_create, says_what_it_made)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = (UINT64_C(5) << 20) + 1,
		.label = "a label that is much longer than the thirty-one bytes that are kept",
		.pages = SHALE_PAGES_4K,
	};
	struct shale_segment_figures stat;
	struct shale_segment *segment;
	int seals;

	test_expect_no_fd_leak();
	ASSERT_OK(shale_segment_create(&options, &segment));
	stat = segment_look(segment);
	EXPECT_EQ(stat.capacity_bytes, UINT64_C(6) << 20);
	EXPECT_EQ(stat.arenas, 3);
	EXPECT_EQ(strlen(stat.label), 31);
	EXPECT_EQ(stat.pages, SHALE_PAGES_4K);
	EXPECT_STR_EQ(stat.pages_reason, "asked for");
	EXPECT_EQ(stat.peers, 1);
	EXPECT_EQ(stat.peers_dead, 0);
	EXPECT_EQ(stat.lanes, 0);
	EXPECT_EQ(stat.roots, 0);
	EXPECT_EQ(stat.metadata_bytes, stat.backing_bytes);
	EXPECT_FALSE(stat.damaged);
	EXPECT_FALSE(stat.read_only);
	seals = fcntl(shale_segment_fd(segment), F_GET_SEALS);
	EXPECT_EQ(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	EXPECT_EQ(fcntl(shale_segment_fd(segment), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	EXPECT_EQ((uintptr_t)shale_segment_base(segment) % (2u << 20), 0);
	segment_expect_clean(segment);
	EXPECT_EQ(shale_segment_detach(segment), 0);
	EXPECT_EQ(segment_count_mappings(), 0);
}

TEST(segment_create, default_is_sparse_64_gib)
{
	struct shale_segment *segment;
	struct shale_segment_figures stat;

	ASSERT_OK(shale_segment_create(NULL, &segment));
	stat = segment_look(segment);
	EXPECT_EQ(stat.capacity_bytes, UINT64_C(1) << 36);
	EXPECT_NE(stat.pages, SHALE_PAGES_AUTO);
	EXPECT_LE(stat.backing_bytes, UINT64_C(2) << 20);
	EXPECT_STR_EQ(stat.label, "shale");
	shale_segment_detach(segment);
}

static void expect_refused(struct shale_segment_options options, int error)
{
	struct shale_segment *segment = NULL;
	char reason[200] = "untouched";

	options.reason = reason;
	options.reason_size = sizeof(reason);
	EXPECT_ERRNO(error, shale_segment_create(&options, &segment));
	EXPECT_NULL(segment);
	EXPECT_STR_NE(reason, "untouched");
	EXPECT_STR_NE(reason, "");
	EXPECT_STR_NE(reason, "no memory");
}

TEST(segment_create, refuses_each_bad_option_with_a_reason)
{
	struct shale_segment_options good = {.size = sizeof(good), .capacity_bytes = TEST_CAPACITY};
	struct shale_segment_options options;

	test_expect_no_fd_leak();
	options = good;
	options.capacity_bytes = (UINT64_C(1) << 44) + 1;
	expect_refused(options, -EINVAL);
	options = good;
	options.pages = 99;
	expect_refused(options, -EINVAL);
	options = good;
	options.placement = 99;
	expect_refused(options, -EINVAL);
	options = good;
	options.placement = SHALE_PLACE_BIND;
	expect_refused(options, -EINVAL);
	options = good;
	options.placement = SHALE_PLACE_INTERLEAVE;
	options.nodes.bits[15] = UINT64_C(1) << 63;
	expect_refused(options, -EINVAL);
	options = good;
	options.budget_bytes = 4096;
	expect_refused(options, -EINVAL);
	EXPECT_EQ(segment_count_mappings(), 0);
}

TEST(segment_create, options_of_another_version)
{
	struct {
		struct shale_segment_options known;
		uint64_t later;
	} options = {.known = {.size = sizeof(options), .capacity_bytes = TEST_CAPACITY}};
	struct shale_segment *segment;

	ASSERT_OK(shale_segment_create(&options.known, &segment));
	shale_segment_detach(segment);
	options.later = 1;
	EXPECT_ERRNO(-EINVAL, shale_segment_create(&options.known, &segment));
	options.known.size = 8;
	EXPECT_ERRNO(-EINVAL, shale_segment_create(&options.known, &segment));
}

TEST(segment_create, stat_of_another_size_is_refused)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct shale_segment_figures stat = {.size = sizeof(stat) - 8};

	EXPECT_ERRNO(-EINVAL, shale_segment_stat(segment, &stat));
	shale_segment_detach(segment);
}

TEST(segment_create, private_segment_has_no_descriptor)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_PRIVATE);
	struct lane *lane;

	EXPECT_ERRNO(-EBADF, shale_segment_fd(segment));
	EXPECT_ERRNO(-EBADF, shale_segment_send(segment, 0));
	ASSERT_OK(lane_enter(segment, &lane));
	EXPECT_EQ(segment_look(segment).lanes, 1);
	EXPECT_EQ(shale_recover(segment), 0);
	segment_expect_clean(segment);
	shale_segment_detach(segment);
}

TEST(segment_create, placement_on_node_0_is_accepted)
{
	for (int placement = SHALE_PLACE_BIND; placement <= SHALE_PLACE_WEIGHTED; placement++) {
		struct shale_segment_options options = {
			.size = sizeof(options),
			.capacity_bytes = TEST_CAPACITY,
			.placement = (enum shale_placement)placement,
			.nodes.bits[0] = 1,
		};
		struct shale_segment *segment;

		ASSERT_OK(shale_segment_create(&options, &segment));
		EXPECT_EQ(segment_look(segment).placement, placement);
		EXPECT_EQ(segment_look(segment).nodes.bits[0], 1);
		EXPECT_OK(view_commit(segment, segment->heap_offset, ARENA_SIZE));
		shale_segment_detach(segment);
	}
}

/* Every new page of lanes is asked of the budget before it is taken. */
TEST(segment_create, budget_holds_for_lanes)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);
	struct lane *lane;

	segment->budget_bytes = view_metadata_bytes(segment);
	EXPECT_TRUE(view_budget_allows(segment, 0));
	EXPECT_FALSE(view_budget_allows(segment, 1));
	store_relaxed(&view_hints(segment)->lane_high, 16u);
	for (uint32_t slot = 1; slot < 8; slot++)
		store_relaxed(&view_lane(segment, slot)->word, UINT64_C(0x11));
	ASSERT_OK(view_commit(segment, LANES_OFFSET, 16 * sizeof(struct lane_shm)));
	segment->budget_bytes = view_metadata_bytes(segment);
	for (uint32_t slot = 8; slot < 16; slot++)
		store_relaxed(&view_lane(segment, slot)->word, UINT64_C(0x11));
	EXPECT_ERRNO(-ENOMEM, lane_enter(segment, &lane));
	EXPECT_EQ(load_relaxed(&view_hints(segment)->lane_high), 16);
	segment->budget_bytes += 4096;
	EXPECT_OK(lane_enter(segment, &lane));
	shale_segment_detach(segment);
}

/* ---- huge pages ---- */

TEST(segment_create, huge_pages_absent)
{
	struct shale_segment_options options = {
		.size = sizeof(options), .capacity_bytes = TEST_CAPACITY, .pages = SHALE_PAGES_2M};
	struct shale_segment_figures stat;
	struct shale_segment *segment;

	hugepages_require_none(2 << 20);
	expect_refused(options, -ENOMEM);
	options.pages = SHALE_PAGES_AUTO;
	ASSERT_OK(shale_segment_create(&options, &segment));
	stat = segment_look(segment);
	EXPECT_NE(stat.pages, SHALE_PAGES_2M);
	EXPECT_NOT_NULL(strstr(stat.pages_reason, "2 MiB pool has 0"));
	shale_segment_detach(segment);
}

TEST(segment_create, huge_pages_present)
{
	struct shale_segment_options options = {.size = sizeof(options),
						.capacity_bytes = TEST_CAPACITY};
	struct shale_segment_figures stat;
	struct shale_segment *segment, *other;
	uint64_t free_before;
	struct lane *lane;

	hugepages_require_free(2 << 20, HUGEPAGES_ANY_NODE, 24);
	free_before = hugepages_free(2 << 20, HUGEPAGES_ANY_NODE);
	ASSERT_OK(shale_segment_create(&options, &segment));
	stat = segment_look(segment);
	EXPECT_EQ(stat.pages, SHALE_PAGES_2M);
	EXPECT_EQ(stat.metadata_bytes, 2 << 20);
	EXPECT_EQ(stat.backing_bytes, 2 << 20);
	ASSERT_OK(shale_segment_attach(shale_segment_fd(segment), NULL, &other));
	ASSERT_OK(lane_enter(other, &lane));
	segment_expect_clean(other);
	EXPECT_OK(view_commit(other, other->heap_offset, ARENA_SIZE));
	memset(view_at(segment, segment->heap_offset), 1, ARENA_SIZE);
	shale_segment_detach(segment);
	shale_segment_detach(other);
	EXPECT_EQ(hugepages_free(2 << 20, HUGEPAGES_ANY_NODE), free_before);
}

/* The pool runs out under a segment: an error of the call that wanted memory, and no signal. */
TEST(segment_create, huge_pages_run_out)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = UINT64_C(1) << 40,
		.pages = SHALE_PAGES_2M,
	};
	struct shale_segment *segment;
	uint64_t at;
	int r = 0;

	hugepages_require_free(2 << 20, HUGEPAGES_ANY_NODE, 4);
	ASSERT_OK(shale_segment_create(&options, &segment));
	for (at = 0; r == 0 && at < UINT64_C(64) << 30; at += ARENA_SIZE)
		r = view_commit(segment, segment->heap_offset + at, ARENA_SIZE);
	EXPECT_ERRNO(-ENOMEM, r);
	segment_expect_clean(segment);
	shale_segment_detach(segment);
}

/* An arena of a THP segment is one huge page where the kernel can collapse. */
TEST(segment_create, thp_arena_is_committed_whole)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_THP);
	uint64_t before = segment_look(segment).backing_bytes;

	ASSERT_OK(view_commit(segment, segment->heap_offset + 2 * ARENA_SIZE, ARENA_SIZE));
	EXPECT_EQ(segment_look(segment).backing_bytes, before + ARENA_SIZE);
	EXPECT_EQ(*((unsigned char *)view_at(segment, segment->heap_offset + 3 * ARENA_SIZE) - 1),
		  0);
	shale_segment_detach(segment);
}

TEST(segment_create, commit_refuses_what_is_outside)
{
	struct shale_segment *segment = segment_make(SHALE_PAGES_4K);

	EXPECT_ERRNO(-EINVAL, view_commit(segment, segment->file_size, 4096));
	EXPECT_ERRNO(-EINVAL, view_commit(segment, UINT64_MAX - 100, 4096));
	EXPECT_ERRNO(-EINVAL, view_commit(segment, 0, 0));
	shale_segment_detach(segment);
}

/* ---- every kernel call failing in turn ---- */

/* *ret_calls: how many calls of the armed kind were made. */
static void cycle(enum os_call call, unsigned *ret_calls)
{
	struct shale_segment_options options = {.size = sizeof(options),
						.capacity_bytes = TEST_CAPACITY};
	struct shale_segment *segment = NULL, *other = NULL;
	struct lane *lane;

	if (shale_segment_create(&options, &segment) == 0) {
		(void)shale_segment_attach(shale_segment_fd(segment), NULL, &other);
		(void)lane_enter(segment, &lane);
		if (other)
			(void)lane_enter(other, &lane);
		(void)shale_recover(segment);
		shale_segment_detach(other);
	}
	*ret_calls = os_fault_count(call);
	os_fault_disarm();
	if (!segment)
		return;
	/* what failed in the other's way out is finished by us: nothing half done stays */
	EXPECT_OK(shale_recover(segment));
	EXPECT_EQ(segment_look(segment).peers, 1);
	EXPECT_LE(segment_look(segment).lanes, 1);
	segment_expect_clean(segment);
	shale_segment_detach(segment);
}

TEST_TIMEOUT(segment_create, every_call_failing_leaves_nothing, 120)
{
	unsigned fds, calls, runs = 0;

	cycle(OS_CALL_OPEN, &calls); /* what is opened once for good */
	fds = test_fd_count();
	for (int call = 0; call < OS_CALL_COUNT; call++) {
		/* these two are the undoing itself: failing them leaks by definition */
		if (call == OS_CALL_MUNMAP || call == OS_CALL_CLOSE)
			continue;
		for (unsigned nth = 1;; nth++) {
			os_fault_arm((enum os_call)call, nth, ENOMEM);
			cycle((enum os_call)call, &calls);
			if (calls < nth)
				break;
			runs++;
			if (!EXPECT_EQ(segment_count_mappings(), 0) ||
			    !EXPECT_EQ(test_fd_count(), fds)) {
				TEST_LOG("%s, call %u", os_call_name((enum os_call)call), nth);
				return;
			}
		}
	}
	TEST_LOG("%u failures injected", runs);
	EXPECT_GT(runs, 30);
}
