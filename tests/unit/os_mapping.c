/* os_mapping.c - shared and private mappings at aligned addresses; advice. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "os_test.h"

static int new_memfd(enum os_page_kind kind, uint64_t size)
{
	int fd = os_memfd_create("mapping", kind);

	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, size));
	return fd;
}

static bool is_mapped(void *base)
{
	unsigned char resident;

	return mincore(base, PAGE, &resident) == 0;
}

/* ---- shared ----------------------------------------------------------------------------------- */

VARIANT_SET(alignments) = {
	{"page", 0, NULL},
	{"64k", 64 << 10, NULL},
	{"2m", 2 << 20, NULL},
	{"1g", 1 << 30, NULL},
};

TEST_V(os_map_shared, is_aligned_and_leaves_nothing_around, alignments)
{
	int fd = new_memfd(OS_PAGES_4K, 5 * PAGE);
	unsigned long before = test_mapped_pages();
	void *base;

	for (unsigned i = 0; i < 20; i++) {
		ASSERT_OK(os_map_shared(fd, 0, 5 * PAGE, true, variant->value, &base));
		EXPECT_EQ((uintptr_t)base % (variant->value != 0 ? variant->value : PAGE), 0);
		EXPECT_EQ(test_mapped_pages(), before + 5);
		memset(base, 1, 5 * PAGE);
		ASSERT_OK(os_unmap(base, 5 * PAGE));
		EXPECT_EQ(test_mapped_pages(), before);
	}
	close(fd);
}

TEST(os_map_shared, shows_one_file_twice_and_at_an_offset)
{
	int fd = new_memfd(OS_PAGES_4K, 4 * PAGE);
	void *a, *b;

	ASSERT_OK(os_map_shared(fd, 0, 4 * PAGE, true, 0, &a));
	ASSERT_OK(os_map_shared(fd, 2 * PAGE, 2 * PAGE, false, HUGE_2, &b));
	((char *)a)[2 * PAGE + 7] = 'x';
	EXPECT_EQ(((char *)b)[7], 'x');
	close(fd);
}

TEST(os_map_shared, takes_no_page)
{
	int fd = new_memfd(OS_PAGES_4K, 1 << 30);
	uint64_t bytes = 1;
	void *base;

	ASSERT_OK(os_map_shared(fd, 0, 1 << 30, true, HUGE_2, &base));
	ASSERT_OK(os_backing_bytes(fd, &bytes));
	EXPECT_EQ(bytes, 0);
	close(fd);
}

TEST(os_map_shared, read_only_cannot_be_written)
{
	int fd = new_memfd(OS_PAGES_4K, PAGE);
	int status;
	void *base;
	pid_t pid;

	ASSERT_OK(os_map_shared(fd, 0, PAGE, false, 0, &base));
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)base = 1;
		_exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(fd);
}

TEST(os_map_shared, names_each_refusal_and_maps_nothing)
{
	int fd = new_memfd(OS_PAGES_4K, 4 * PAGE);
	int reader = os_reopen(fd, false);
	int ends[2];
	unsigned long before = test_mapped_pages();
	void *base = &fd;

	ASSERT_OK(reader);
	ASSERT_SYS(pipe(ends));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, 0, 0, true, 0, &base));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, 1, PAGE, true, 0, &base));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, 0, PAGE + 1, true, 0, &base));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, 0, PAGE, true, 3 * PAGE, &base));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, 0, PAGE, true, 16, &base));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, (uint64_t)1 << 63, PAGE, true, 0, &base));
	EXPECT_ERRNO(-EACCES, os_map_shared(reader, 0, PAGE, true, 0, &base));
	EXPECT_ERRNO(-EBADF, os_map_shared(1 << 19, 0, PAGE, true, 0, &base));
	EXPECT_ERRNO(-ENODEV, os_map_shared(ends[0], 0, PAGE, false, 0, &base));
	EXPECT_ERRNO(-ENOMEM, os_map_shared(fd, 0, (size_t)1 << 60, true, HUGE_2, &base));
	EXPECT_ERRNO(-ENOMEM, os_map_shared(fd, 0, SIZE_MAX - PAGE + 1, true, HUGE_2, &base));
	ASSERT_SYS(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_ERRNO(-EPERM, os_map_shared(fd, 0, PAGE, true, 0, &base));
	EXPECT_PTR_EQ(base, &fd);
	EXPECT_EQ(test_mapped_pages(), before);
	EXPECT_OK(os_map_shared(fd, 0, PAGE, false, 0, &base));
}

/* ---- huge pages ------------------------------------------------------------------------------- */

TEST(os_map_huge, maps_whole_huge_pages_at_their_alignment)
{
	int fd;
	void *base;

	hugepages_require_free(HUGE_2, HUGEPAGES_ANY_NODE, 2);
	fd = new_memfd(OS_PAGES_2M, 2 * HUGE_2);
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, 0, PAGE, true, HUGE_2, &base));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, PAGE, HUGE_2, true, HUGE_2, &base));
	EXPECT_ERRNO(-EINVAL, os_map_shared(fd, 0, HUGE_2, true, PAGE, &base));
	ASSERT_OK(os_map_shared(fd, HUGE_2, HUGE_2, true, 0, &base));
	EXPECT_EQ((uintptr_t)base % HUGE_2, 0);
	ASSERT_OK(os_commit(fd, HUGE_2, HUGE_2));
	memset(base, 1, HUGE_2);
	ASSERT_OK(os_unmap(base, HUGE_2));
	close(fd);
}

TEST(os_map_huge, populating_from_an_empty_pool_is_enomem)
{
	int fd;
	void *base;

	hugepages_require_none(HUGE_2);
	fd = new_memfd(OS_PAGES_2M, HUGE_2);
	ASSERT_OK(os_map_shared(fd, 0, HUGE_2, true, HUGE_2, &base));
	EXPECT_ERRNO(-ENOMEM, os_advise(base, HUGE_2, OS_POPULATE_WRITE));
	EXPECT_ERRNO(-ENOMEM, os_commit(fd, 0, HUGE_2));
	close(fd);
}

/* ---- private ---------------------------------------------------------------------------------- */

TEST_V(os_map_private, is_zero_writable_and_aligned, alignments)
{
	unsigned long before = test_mapped_pages();
	char *base;
	void *mapped;

	ASSERT_OK(os_map_private(3 * PAGE, variant->value, &mapped));
	base = mapped;
	EXPECT_EQ((uintptr_t)base % (variant->value != 0 ? variant->value : PAGE), 0);
	EXPECT_EQ(test_mapped_pages(), before + 3);
	EXPECT_EQ(base[3 * PAGE - 1], 0);
	base[3 * PAGE - 1] = 1;
	ASSERT_OK(os_unmap(base, 3 * PAGE));
	EXPECT_ERRNO(-EINVAL, os_map_private(0, 0, &mapped));
	EXPECT_ERRNO(-EINVAL, os_map_private(PAGE + 1, 0, &mapped));
	EXPECT_ERRNO(-EINVAL, os_map_private(PAGE, 3 * PAGE, &mapped));
	EXPECT_ERRNO(-ENOMEM, os_map_private((size_t)1 << 60, 0, &mapped));
}

TEST(os_map_wipe, is_zero_in_a_forked_child_only)
{
	uint64_t *word;
	void *base;
	pid_t pid;

	ASSERT_OK(os_map_wipe_on_fork(PAGE, &base));
	word = base;
	*word = 42;
	pid = test_fork();
	if (pid == 0) {
		EXPECT_EQ(*word, 0);
		*word = 7;
		test_child_exit();
	}
	ASSERT_TRUE(test_join(pid, 10000));
	EXPECT_EQ(*word, 42);
}

/* A mapping that cannot be trimmed or advised is taken away whole. */
TEST(os_map, leaves_nothing_when_a_step_fails)
{
	int fd = new_memfd(OS_PAGES_4K, PAGE);
	void *base;

	for (unsigned nth = 1; nth <= 2; nth++) {
		unsigned long before = test_mapped_pages();

		os_fault_arm(OS_CALL_MUNMAP, nth, ENOMEM);
		EXPECT_ERRNO(-ENOMEM, os_map_private(PAGE, HUGE_2, &base));
		EXPECT_EQ(test_mapped_pages(), before);
		os_fault_arm(OS_CALL_MUNMAP, nth, ENOMEM);
		EXPECT_ERRNO(-ENOMEM, os_map_shared(fd, 0, PAGE, true, HUGE_2, &base));
		EXPECT_EQ(test_mapped_pages(), before);
		os_fault_disarm();
		os_fault_arm(OS_CALL_MMAP, nth, EPERM);
		EXPECT_ERRNO(-EPERM, os_map_shared(fd, 0, PAGE, true, HUGE_2, &base));
		EXPECT_EQ(test_mapped_pages(), before);
		os_fault_disarm();
		os_fault_arm(OS_CALL_MADVISE, 1, EINVAL);
		EXPECT_ERRNO(-EINVAL, os_map_wipe_on_fork(PAGE, &base));
		EXPECT_EQ(test_mapped_pages(), before);
		os_fault_disarm();
	}
	close(fd);
}

/* ---- advice ----------------------------------------------------------------------------------- */

TEST(os_advise, dontfork_keeps_it_from_the_child)
{
	void *base;
	pid_t pid;

	ASSERT_OK(os_map_private(PAGE, 0, &base));
	ASSERT_OK(os_advise(base, PAGE, OS_DONTFORK));
	pid = test_fork();
	if (pid == 0) {
		EXPECT_FALSE(is_mapped(base));
		test_child_exit();
	}
	ASSERT_TRUE(test_join(pid, 10000));
	EXPECT_TRUE(is_mapped(base));
}

TEST(os_advise, populate_makes_pages_resident)
{
	int fd = new_memfd(OS_PAGES_4K, 2 * PAGE);
	unsigned char resident[2];
	uint64_t bytes = 0;
	void *base;

	ASSERT_OK(os_map_shared(fd, 0, 2 * PAGE, true, 0, &base));
	ASSERT_OK(os_advise(base, PAGE, OS_POPULATE_WRITE));
	ASSERT_OK(os_backing_bytes(fd, &bytes));
	EXPECT_EQ(bytes, PAGE);
	ASSERT_OK(os_advise(base, 2 * PAGE, OS_POPULATE_READ));
	ASSERT_SYS(mincore(base, 2 * PAGE, resident));
	EXPECT_EQ(resident[0] & resident[1] & 1, 1);
	close(fd);
}

TEST(os_advise, dontneed_gives_back_private_pages)
{
	char *bytes;
	void *base;

	ASSERT_OK(os_map_private(PAGE, 0, &base));
	bytes = base;
	bytes[5] = 1;
	ASSERT_OK(os_advise(base, PAGE, OS_DONTNEED));
	EXPECT_EQ(bytes[5], 0);
}

TEST(os_advise, collapse_makes_one_huge_page)
{
	int fd = new_memfd(OS_PAGES_4K, HUGE_2);
	uint64_t bytes = 0;
	void *base;
	int r;

	ASSERT_OK(os_map_shared(fd, 0, HUGE_2, true, HUGE_2, &base));
	ASSERT_OK(os_advise(base, PAGE, OS_POPULATE_WRITE));
	r = os_advise(base, HUGE_2, OS_COLLAPSE);
	if (r < 0)
		SKIP("the kernel does not collapse shared memory: %s", test_errno_name(r));
	ASSERT_OK(os_backing_bytes(fd, &bytes));
	EXPECT_EQ(bytes, HUGE_2);
	close(fd);
}

TEST(os_advise, hints_are_accepted_and_nonsense_is_not)
{
	void *base;

	ASSERT_OK(os_map_private(HUGE_2, HUGE_2, &base));
	EXPECT_OK(os_advise(base, HUGE_2, OS_DONTDUMP));
	if (access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0) {
		EXPECT_OK(os_advise(base, HUGE_2, OS_HUGEPAGE));
		EXPECT_OK(os_advise(base, HUGE_2, OS_NOHUGEPAGE));
	}
	EXPECT_ERRNO(-EINVAL, os_advise((char *)base + 1, PAGE, OS_DONTNEED));
	EXPECT_ERRNO(-EINVAL, os_advise(base, PAGE, (enum os_advice)99));
	ASSERT_OK(os_unmap(base, HUGE_2));
	EXPECT_ERRNO(-ENOMEM, os_advise(base, PAGE, OS_DONTNEED));
	EXPECT_ERRNO(-EINVAL, os_unmap((char *)base + 1, PAGE));
}
