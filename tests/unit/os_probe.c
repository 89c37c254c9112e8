/* os_probe.c - probes say what they saw and leave nothing; pools and modes are read right. */
#define _GNU_SOURCE
#include <errno.h>

#include "os_test.h"

static enum os_status status_of(enum os_feature feature)
{
	struct os_feature_report report;

	ASSERT_OK(os_probe(feature, &report));
	return report.status;
}

TEST(os_probe, reports_every_feature_and_leaves_nothing)
{
	unsigned long pages;

	test_expect_no_fd_leak();
	status_of(OS_FEATURE_PIDFS); /* libc's own first-time mappings */
	pages = test_mapped_pages();
	for (unsigned i = 0; i < OS_FEATURE_COUNT; i++) {
		struct os_feature_report report = {0};
		unsigned fds = test_fd_count();

		ASSERT_OK(os_probe((enum os_feature)i, &report));
		EXPECT_NOT_NULL(report.name);
		EXPECT_NOT_NULL(report.fallback);
		EXPECT_NOT_NULL(report.since);
		EXPECT_LE(report.status, OS_OK);
		EXPECT_TRUE(report.status == OS_OK || report.detail[0] != '\0');
		EXPECT_EQ(test_fd_count(), fds);
		EXPECT_EQ(test_mapped_pages(), pages);
		TEST_LOG("%s: %d %s", report.name, (int)report.status, report.detail);
	}
}

TEST(os_probe, has_what_the_floor_promises)
{
	static const enum os_feature floor[] = {OS_FEATURE_FUTEX_WAITV, OS_FEATURE_OFD_LOCK,
						OS_FEATURE_POPULATE};

	for (unsigned i = 0; i < sizeof(floor) / sizeof(floor[0]); i++)
		EXPECT_EQ(status_of(floor[i]), OS_OK);
}

TEST(os_probe, refuses_an_unknown_feature)
{
	struct os_feature_report report = {.name = "x"};

	EXPECT_ERRNO(-EINVAL, os_probe(OS_FEATURE_COUNT, &report));
	EXPECT_STR_EQ(report.name, "x");
}

/* An old kernel or a filter: the call that matters is refused. */
struct lack {
	enum os_feature feature;
	enum os_call call;
	unsigned nth;
};
#define LACK(name_, feature_, call_, nth_, errno_)                   \
	{                                                            \
#name_, errno_, &(const struct lack)                 \
		{                                                    \
			OS_FEATURE_##feature_, OS_CALL_##call_, nth_ \
		}                                                    \
	}
VARIANT_SET(lacks) = {
	LACK(noexec_seal, NOEXEC_SEAL, MEMFD_CREATE, 1, EINVAL),
	LACK(collapse, COLLAPSE, MADVISE, 1, EINVAL),
	LACK(uring, URING, URING, 1, ENOSYS),
	LACK(uring_futex, URING_FUTEX, URING, 1, EPERM),
	LACK(uring_probe, URING_FUTEX, URING, 2, EINVAL),
	LACK(futex_waitv, FUTEX_WAITV, FUTEX_WAITV, 1, ENOSYS),
	LACK(pidfs, PIDFS, PIDFD_OPEN, 1, ENOSYS),
	LACK(pidfs_magic, PIDFS, FSTATFS, 1, ENOSYS),
	LACK(membarrier, MEMBARRIER, MEMBARRIER, 1, ENOSYS),
	LACK(ofd_lock, OFD_LOCK, LOCK, 1, EINVAL),
	LACK(ofd_proc, OFD_LOCK, OPEN, 1, ENOENT),
	LACK(ofd_sight, OFD_LOCK, LOCK_PROBE, 1, EINVAL),
	LACK(hugetlb_2m, HUGETLB_2M, MEMFD_CREATE, 1, ENOENT),
	LACK(hugetlb_1g, HUGETLB_1G, MEMFD_CREATE, 1, ENOENT),
	LACK(thp_shmem, THP_SHMEM, OPEN, 1, ENOENT),
	LACK(populate, POPULATE, MADVISE, 1, EINVAL),
	LACK(preferred_many, PREFERRED_MANY, MBIND, 1, EINVAL),
	LACK(weighted, WEIGHTED_INTERLEAVE, MBIND, 1, EINVAL),
	LACK(guard, GUARD, MADVISE, 1, EINVAL),
};

TEST_V(os_probe, says_missing_when_the_call_is_refused, lacks)
{
	const struct lack *lack = variant->data;
	struct os_feature_report report;
	unsigned long pages;

	test_expect_no_fd_leak();
	status_of(lack->feature);
	pages = test_mapped_pages();
	os_fault_arm(lack->call, lack->nth, (int)variant->value);
	ASSERT_OK(os_probe(lack->feature, &report));
	if (os_fault_count(lack->call) < lack->nth && lack->call == OS_CALL_MBIND)
		SKIP("built without libnuma");
	EXPECT_GE(os_fault_count(lack->call), lack->nth);
	EXPECT_EQ(report.status, OS_MISSING);
	EXPECT_STR_NE(report.detail, "");
	os_fault_disarm();
	EXPECT_EQ(test_mapped_pages(), pages);
}

/* ---- huge pages ------------------------------------------------------------------------------- */

TEST(os_probe_huge, follows_the_pool)
{
	hugepages_require_none(HUGE_2);
	EXPECT_EQ(status_of(OS_FEATURE_HUGETLB_2M), OS_DEGRADED);
	hugepages_require_free(HUGE_2, HUGEPAGES_ANY_NODE, 2);
	EXPECT_EQ(status_of(OS_FEATURE_HUGETLB_2M), OS_OK);
}

TEST(os_huge_pool, counts_as_the_kernel_does)
{
	struct os_huge_pool before, after;
	int fd;

	test_expect_no_fd_leak();
	hugepages_require_free(HUGE_2, HUGEPAGES_ANY_NODE, 2);
	ASSERT_OK(os_huge_pool(HUGE_2, &before));
	EXPECT_EQ(before.page_size, HUGE_2);
	EXPECT_EQ(before.total, hugepages_total(HUGE_2, HUGEPAGES_ANY_NODE));
	EXPECT_EQ(before.free, hugepages_free(HUGE_2, HUGEPAGES_ANY_NODE));
	fd = os_memfd_create("pool", OS_PAGES_2M);
	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, HUGE_2));
	ASSERT_OK(os_commit(fd, 0, HUGE_2));
	ASSERT_OK(os_huge_pool(HUGE_2, &after));
	EXPECT_EQ(after.free, before.free - 1);
	close(fd);
	ASSERT_OK(os_huge_pool(HUGE_2, &after));
	EXPECT_EQ(after.free, before.free);
}

TEST(os_huge_pool, nodes_add_up_to_the_machine)
{
	struct os_huge_pool all, part;
	uint64_t total = 0;
	unsigned nodes = 0;

	hugepages_require_free(HUGE_2, HUGEPAGES_ANY_NODE, 2);
	ASSERT_OK(os_huge_pool(HUGE_2, &all));
	for (unsigned node = 0; node < 1024; node++)
		if (os_huge_pool_node(HUGE_2, node, &part) == 0) {
			total += part.total;
			nodes++;
		}
	if (nodes == 0)
		SKIP("this kernel shows no nodes");
	EXPECT_EQ(total, all.total);
}

TEST(os_huge_pool, unknown_size_is_enoent)
{
	struct os_huge_pool pool = {.total = 77};

	EXPECT_ERRNO(-ENOENT, os_huge_pool(12345 * 1024, &pool));
	EXPECT_ERRNO(-ENOENT, os_huge_pool_node(12345 * 1024, 0, &pool));
	EXPECT_EQ(pool.total, 77);
}

TEST(os_thp_modes, gives_the_chosen_words)
{
	char anon[32] = "", shmem[32] = "", tiny[2] = "?";

	hugepages_require_thp("enabled", "madvise");
	hugepages_require_thp("shmem_enabled", "advise");
	ASSERT_OK(os_thp_modes(anon, sizeof(anon), shmem, sizeof(shmem)));
	EXPECT_STR_EQ(anon, "madvise");
	EXPECT_STR_EQ(shmem, "advise");
	EXPECT_EQ(status_of(OS_FEATURE_THP_SHMEM), OS_OK);
	hugepages_require_thp("shmem_enabled", "never");
	ASSERT_OK(os_thp_modes(anon, sizeof(anon), shmem, sizeof(shmem)));
	EXPECT_STR_EQ(shmem, "never");
	EXPECT_EQ(status_of(OS_FEATURE_THP_SHMEM), OS_DEGRADED);
	EXPECT_ERRNO(-ENAMETOOLONG, os_thp_modes(tiny, sizeof(tiny), shmem, sizeof(shmem)));
	EXPECT_STR_EQ(tiny, "?");
}
