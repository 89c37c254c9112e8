/* os_numa.c - placement, its named fallbacks, and where pages are. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "os_test.h"

enum { POLICY_DEFAULT = 0, POLICY_PREFERRED = 1, POLICY_BIND = 2, POLICY_INTERLEAVE = 3 };

/* Asked of the kernel directly: the policy at an address, or (NULL) of this thread. */
static int policy_at(void *address)
{
	unsigned long mask[16] = {0};
	int mode = -1;

	ASSERT_SYS(syscall(SYS_get_mempolicy, &mode, mask, 16 * 64 + 1, address,
			   address != NULL ? 2 /* MPOL_F_ADDR */ : 0));
	return mode;
}

static bool has_numa(void)
{
	int node;
	char byte = 0;

	return os_numa_page_nodes((void *)((uintptr_t)&byte & ~(PAGE - 1)), PAGE, 1, &node) == 0;
}

FIXTURE(os_numa)
{
	struct os_nodes all;
	struct os_nodes first;
	void *base;
};

FIXTURE_SETUP(os_numa)
{
	test_expect_no_fd_leak();
	ASSERT_OK(os_numa_nodes(&self->all));
	self->first = (struct os_nodes){{0}};
	for (unsigned i = 0; i < 16 && self->first.bits[i == 0 ? 0 : i - 1] == 0; i++)
		self->first.bits[i] = self->all.bits[i] & -self->all.bits[i];
	ASSERT_OK(os_map_private(64 * PAGE, 0, &self->base));
}

FIXTURE_TEARDOWN(os_numa)
{
	os_fault_disarm();
}

TEST_F(os_numa, has_a_node)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < 16; i++)
		any |= self->all.bits[i];
	EXPECT_NE(any, 0);
	os_fault_arm(OS_CALL_GET_MEMPOLICY, 1, ENOSYS);
	ASSERT_OK(os_numa_nodes(&self->all));
	if (os_fault_count(OS_CALL_GET_MEMPOLICY) == 1)
		EXPECT_EQ(self->all.bits[0], 1);
}

VARIANT_SET(modes) = {
	{"local", OS_PLACE_LOCAL, NULL},
	{"bind", OS_PLACE_BIND, NULL},
	{"preferred_many", OS_PLACE_PREFERRED_MANY, NULL},
	{"interleave", OS_PLACE_INTERLEAVE, NULL},
	{"weighted", OS_PLACE_WEIGHTED, NULL},
};

/* On anonymous and on shared memory, for a mapping and for the thread. */
TEST_V(os_numa_mode, is_taken_everywhere, modes)
{
	enum os_placement mode = (enum os_placement)variant->value;
	int fd = os_memfd_create("numa", OS_PAGES_4K);
	struct os_numa_saved saved;
	struct os_nodes nodes;
	void *anon, *shared;
	int before, r;

	if (!has_numa())
		SKIP("no NUMA in this kernel or build");
	before = policy_at(NULL);
	ASSERT_OK(fd);
	ASSERT_OK(os_memfd_set_size(fd, PAGE));
	ASSERT_OK(os_map_private(PAGE, 0, &anon));
	ASSERT_OK(os_map_shared(fd, 0, PAGE, true, 0, &shared));
	ASSERT_OK(os_numa_nodes(&nodes));
	r = os_numa_place(anon, PAGE, mode, &nodes);
	ASSERT_OK(r);
	EXPECT_LE(r, mode == OS_PLACE_PREFERRED_MANY || mode == OS_PLACE_WEIGHTED);
	EXPECT_NE(policy_at(anon), POLICY_DEFAULT);
	EXPECT_OK(os_numa_place(shared, PAGE, mode, &nodes));
	EXPECT_EQ(policy_at(shared), policy_at(anon));
	memset(anon, 1, PAGE);
	memset(shared, 1, PAGE);
	ASSERT_OK(os_numa_task_push(mode, &nodes, &saved));
	EXPECT_EQ(policy_at(NULL), policy_at(anon));
	ASSERT_OK(os_numa_task_pop(&saved));
	EXPECT_EQ(policy_at(NULL), before);
	close(fd);
}

TEST_F(os_numa, falls_back_by_name_on_old_kernels)
{
	if (!has_numa())
		SKIP("no NUMA in this kernel or build");
	os_fault_arm(OS_CALL_MBIND, 1, EINVAL);
	EXPECT_EQ(os_numa_place(self->base, PAGE, OS_PLACE_PREFERRED_MANY, &self->all), 1);
	EXPECT_EQ(policy_at(self->base), POLICY_PREFERRED);
	os_fault_arm(OS_CALL_MBIND, 1, EINVAL);
	EXPECT_EQ(os_numa_place(self->base, PAGE, OS_PLACE_WEIGHTED, &self->all), 1);
	EXPECT_EQ(policy_at(self->base), POLICY_INTERLEAVE);
	os_fault_arm(OS_CALL_MBIND, 1, EINVAL);
	EXPECT_ERRNO(-EINVAL, os_numa_place(self->base, PAGE, OS_PLACE_BIND, &self->all));
}

TEST_F(os_numa, refused_calls_grant_only_what_needs_none)
{
	struct os_nodes far = {{0}};
	struct os_nodes zero = {{1}};

	far.bits[0] = 3;
	os_fault_arm(OS_CALL_MBIND, 1, ENOSYS);
	EXPECT_EQ(os_numa_place(self->base, PAGE, OS_PLACE_BIND, &zero), 1);
	os_fault_arm(OS_CALL_MBIND, 1, EPERM);
	EXPECT_EQ(os_numa_place(self->base, PAGE, OS_PLACE_LOCAL, NULL), 1);
	os_fault_arm(OS_CALL_MBIND, 1, ENOSYS);
	EXPECT_ERRNO(-EOPNOTSUPP, os_numa_place(self->base, PAGE, OS_PLACE_BIND, &far));
}

TEST_F(os_numa, refuses_no_node_unusable_nodes_and_no_mapping)
{
	struct os_nodes none = {{0}}, far = {{0}};

	far.bits[15] = 1ULL << 63;
	for (unsigned mode = OS_PLACE_BIND; mode <= OS_PLACE_WEIGHTED; mode++) {
		EXPECT_ERRNO(-EINVAL,
			     os_numa_place(self->base, PAGE, (enum os_placement)mode, &none));
		EXPECT_LT(os_numa_place(self->base, PAGE, (enum os_placement)mode, &far), 0);
	}
	EXPECT_ERRNO(-EINVAL, os_numa_place(self->base, PAGE, (enum os_placement)9, &self->all));
	EXPECT_ERRNO(-EFAULT, os_numa_place(NULL, PAGE, OS_PLACE_LOCAL, NULL));
	if (!has_numa())
		SKIP("no NUMA in this kernel or build");
	EXPECT_ERRNO(-EINVAL, os_numa_place((char *)self->base + 1, PAGE, OS_PLACE_LOCAL, NULL));
	ASSERT_OK(os_unmap(self->base, 64 * PAGE));
	EXPECT_ERRNO(-EFAULT, os_numa_place(self->base, PAGE, OS_PLACE_LOCAL, NULL));
}

TEST_F(os_numa, push_and_pop_nest)
{
	struct os_numa_saved outer, inner;
	int before;

	if (!has_numa())
		SKIP("no NUMA in this kernel or build");
	before = policy_at(NULL);
	ASSERT_OK(os_numa_task_push(OS_PLACE_BIND, &self->first, &outer));
	ASSERT_OK(os_numa_task_push(OS_PLACE_INTERLEAVE, &self->all, &inner));
	EXPECT_EQ(policy_at(NULL), POLICY_INTERLEAVE);
	ASSERT_OK(os_numa_task_pop(&inner));
	EXPECT_EQ(policy_at(NULL), POLICY_BIND);
	ASSERT_OK(os_numa_task_pop(&outer));
	EXPECT_EQ(policy_at(NULL), before);
}

TEST_F(os_numa, failed_push_changes_nothing)
{
	struct os_numa_saved saved = {.mode = 77};
	int before;

	if (!has_numa())
		SKIP("no NUMA in this kernel or build");
	before = policy_at(NULL);
	os_fault_arm(OS_CALL_SET_MEMPOLICY, 1, ENOMEM);
	EXPECT_ERRNO(-ENOMEM, os_numa_task_push(OS_PLACE_BIND, &self->first, &saved));
	os_fault_arm(OS_CALL_GET_MEMPOLICY, 1, ENOMEM);
	EXPECT_ERRNO(-ENOMEM, os_numa_task_push(OS_PLACE_BIND, &self->first, &saved));
	EXPECT_EQ(saved.mode, 77);
	EXPECT_EQ(policy_at(NULL), before);
}

TEST_F(os_numa, shows_touched_pages_and_touches_none)
{
	enum { COUNT = 600 };
	int nodes[COUNT];
	unsigned char resident[COUNT];
	char *bytes;
	void *base;

	if (!has_numa())
		SKIP("no NUMA in this kernel or build");
	ASSERT_OK(os_map_private(COUNT * PAGE, 0, &base));
	/* EINVAL: no huge pages in this kernel, so none to keep away. */
	EXPECT_NE(os_advise(base, COUNT * PAGE, OS_NOHUGEPAGE), -ENOMEM);
	bytes = base;
	for (unsigned i = 0; i < COUNT; i += 2)
		bytes[i * PAGE] = 1;
	ASSERT_OK(os_numa_page_nodes(base, PAGE, COUNT, nodes));
	ASSERT_SYS(mincore(base, COUNT * PAGE, resident));
	for (unsigned i = 0; i < COUNT; i++) {
		EXPECT_EQ(nodes[i] >= 0, i % 2 == 0);
		EXPECT_EQ(resident[i] & 1, i % 2 == 0);
	}
	os_fault_arm(OS_CALL_MOVE_PAGES, 2, EPERM);
	EXPECT_ERRNO(-EOPNOTSUPP, os_numa_page_nodes(base, PAGE, COUNT, nodes));
}
