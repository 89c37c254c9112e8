/* SPDX-License-Identifier: MIT */
/*
 * numa.c - on which nodes pages are put, and where they are.
 *
 * Owner:     nobody; policies live in the kernel, with the inode (shmem), the mapping (hugetlb,
 *            private) or the thread (os_numa_task_push).
 * Invariant: N1  a fallback is reported (result 1), never silent
 *            N2  push and pop nest: what pop sets is what push found
 * Build:     SHALE_HAVE_NUMA: through libnuma's numaif.h. Without it this machine has one node.
 * Ordering:  none.
 * Death:     a thread killed between push and pop takes its policy with it.
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <string.h>

#include "os/sys.h"

static bool nodes_empty(const struct os_nodes *nodes)
{
	for (unsigned i = 0; i < 16; i++)
		if (nodes->bits[i] != 0)
			return false;
	return true;
}

#ifdef SHALE_HAVE_NUMA

#include <numaif.h>

#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5 /* 5.15 */
#endif
#ifndef MPOL_WEIGHTED_INTERLEAVE
#define MPOL_WEIGHTED_INTERLEAVE 6 /* 6.9 */
#endif
#ifndef MPOL_LOCAL
#define MPOL_LOCAL 4
#endif

/* The kernel looks at one bit less than it is told. */
#define NODE_BITS (16 * 64 + 1)

/* The kernel's words for a set of nodes. */
struct node_mask {
	unsigned long words[16 * 64 / (8 * sizeof(long))];
};

static struct node_mask mask_of(const struct os_nodes *nodes)
{
	const unsigned width = 8 * sizeof(long);
	struct node_mask mask = {{0}};

	for (unsigned n = 0; n < 16 * 64; n++)
		if ((nodes->bits[n / 64] >> n % 64 & 1) != 0)
			mask.words[n / width] |= 1UL << n % width;
	return mask;
}

static struct os_nodes nodes_of(const struct node_mask *mask)
{
	const unsigned width = 8 * sizeof(long);
	struct os_nodes nodes = {{0}};

	for (unsigned n = 0; n < 16 * 64; n++)
		if ((mask->words[n / width] >> n % width & 1) != 0)
			nodes.bits[n / 64] |= 1ULL << n % 64;
	return nodes;
}

static struct os_nodes first_node(const struct os_nodes *nodes)
{
	struct os_nodes first = {{0}};

	for (unsigned i = 0; i < 16; i++)
		if (nodes->bits[i] != 0) {
			first.bits[i] = nodes->bits[i] & -nodes->bits[i];
			break;
		}
	return first;
}

/* ---- the raw calls --------------------------------------------------------------------------- */

/* What a policy is set on: a mapping, or (base NULL) the calling thread. */
struct target {
	void *base;
	size_t size;
};

static int sys_set_policy(const struct target *target, int mode, const unsigned long *words,
			  unsigned long bits)
{
	int r = os_fault(target->base != NULL ? OS_CALL_MBIND : OS_CALL_SET_MEMPOLICY);

	if (r < 0)
		return r;
	if (target->base != NULL)
		return sys_result((int)mbind(target->base, target->size, mode, words, bits, 0));
	return sys_result((int)set_mempolicy(mode, words, bits));
}

static int sys_get_policy(int *ret_mode, unsigned long *words, unsigned flags)
{
	int r = os_fault(OS_CALL_GET_MEMPOLICY);

	return r < 0 ? r : sys_result((int)get_mempolicy(ret_mode, words, NODE_BITS, NULL, flags));
}

/* nodes NULL: only asks. A positive result: so many were not moved. */
static int sys_move_pages(unsigned long count, void **pages, const int *nodes, int *ret_nodes,
			  int flags)
{
	int r = os_fault(OS_CALL_MOVE_PAGES);

	return r < 0 ? r : sys_result((int)move_pages(0, count, pages, nodes, ret_nodes, flags));
}

static int sys_node_of(const void *address)
{
	int r = os_fault(OS_CALL_GET_MEMPOLICY), node = 0;

	if (r == 0)
		r = sys_result((int)get_mempolicy(&node, NULL, 0, (void *)(uintptr_t)address,
						  MPOL_F_NODE | MPOL_F_ADDR));
	return r < 0 ? r : node;
}

/* No NUMA in this kernel, or seccomp: all the same to the caller. */
static int unsupported(int r)
{
	return r == -ENOSYS || r == -EPERM ? -EOPNOTSUPP : r;
}

static int set_policy(const struct target *target, int mode, const struct os_nodes *nodes)
{
	struct node_mask mask = mask_of(nodes);

	if (nodes_empty(nodes))
		return unsupported(sys_set_policy(target, mode, NULL, 0));
	return unsupported(sys_set_policy(target, mode, mask.words, NODE_BITS));
}

static int get_policy(int *ret_mode, struct os_nodes *ret_nodes, unsigned flags)
{
	struct node_mask mask = {{0}};
	int r = unsupported(sys_get_policy(ret_mode, mask.words, flags));

	if (r < 0)
		return r;
	*ret_nodes = nodes_of(&mask);
	return 0;
}

/* ---- placement with its fallbacks ------------------------------------------------------------ */

static bool node_zero_only(const struct os_nodes *nodes)
{
	for (unsigned i = 1; i < 16; i++)
		if (nodes->bits[i] != 0)
			return false;
	return nodes->bits[0] == 1;
}

/* EINVAL: the kernel lacks the mode, or no node is usable; the older mode tells which. */
static int set_or_fall_back(const struct target *target, int mode, const struct os_nodes *nodes,
			    int older_mode, const struct os_nodes *older_nodes)
{
	int r = set_policy(target, mode, nodes);

	if (r != -EINVAL)
		return r;
	r = set_policy(target, older_mode, older_nodes);
	return r < 0 ? r : 1;
}

static int place(const struct target *target, enum os_placement mode, const struct os_nodes *nodes)
{
	const struct os_nodes none = {{0}};
	struct os_nodes first;

	if (mode == OS_PLACE_LOCAL)
		return set_policy(target, MPOL_LOCAL, &none);
	if (nodes_empty(nodes))
		return -EINVAL;
	switch (mode) {
	case OS_PLACE_BIND:
		return set_policy(target, MPOL_BIND, nodes);
	case OS_PLACE_INTERLEAVE:
		return set_policy(target, MPOL_INTERLEAVE, nodes);
	case OS_PLACE_PREFERRED_MANY:
		first = first_node(nodes);
		return set_or_fall_back(target, MPOL_PREFERRED_MANY, nodes, MPOL_PREFERRED, &first);
	case OS_PLACE_WEIGHTED:
		return set_or_fall_back(target, MPOL_WEIGHTED_INTERLEAVE, nodes, MPOL_INTERLEAVE,
					nodes);
	case OS_PLACE_LOCAL:
		break;
	}
	return -EINVAL;
}

/* Where the kernel has no say, all memory is node 0's: asking for that is granted, not done. */
static int place_anywhere(const struct target *target, enum os_placement mode,
			  const struct os_nodes *nodes)
{
	int r = place(target, mode, nodes);

	if (r == -EOPNOTSUPP && (mode == OS_PLACE_LOCAL || node_zero_only(nodes)))
		return 1;
	return r;
}

/* ---- the doors ------------------------------------------------------------------------------- */

int os_numa_nodes(struct os_nodes *ret_nodes)
{
	int r = get_policy(NULL, ret_nodes, MPOL_F_MEMS_ALLOWED);

	if (r != -EOPNOTSUPP)
		return r;
	*ret_nodes = (struct os_nodes){{1}};
	return 0;
}

bool os_numa_several(void)
{
	char list[256];

	if (os_read_text("/sys/devices/system/node/has_memory", list, sizeof(list)) > 0)
		return strpbrk(list, ",-") != NULL;
	return false;
}

int os_numa_place(void *base, size_t size, enum os_placement mode, const struct os_nodes *nodes)
{
	struct target target = {.base = base, .size = size};

	return base == NULL ? -EFAULT : place_anywhere(&target, mode, nodes);
}

int os_numa_task_push(enum os_placement mode, const struct os_nodes *nodes,
		      struct os_numa_saved *ret_saved)
{
	const struct target thread = {0};
	struct os_numa_saved saved;
	int r;

	r = get_policy(&saved.mode, &saved.nodes, 0);
	if (r == -EOPNOTSUPP)
		saved = (struct os_numa_saved){.mode = MPOL_DEFAULT};
	else if (r < 0)
		return r;
	r = place_anywhere(&thread, mode, nodes);
	if (r < 0)
		return r;
	*ret_saved = saved;
	return r;
}

int os_numa_task_pop(const struct os_numa_saved *saved)
{
	const struct target thread = {0};
	int r = set_policy(&thread, saved->mode, &saved->nodes);

	/* Where nothing could be pushed there is nothing to take back. */
	return r == -EOPNOTSUPP && saved->mode == MPOL_DEFAULT ? 0 : r;
}

int os_numa_page_nodes(void *base, size_t page_size, size_t page_count, int *ret_nodes)
{
	void *pages[256];
	char *next = base;

	while (page_count > 0) {
		size_t count = page_count < 256 ? page_count : 256;
		int r;

		for (size_t i = 0; i < count; i++)
			pages[i] = next + i * page_size;
		r = sys_move_pages(count, pages, NULL, ret_nodes, 0);
		if (r < 0)
			return unsupported(r);
		next += count * page_size;
		ret_nodes += count;
		page_count -= count;
	}
	return 0;
}

int os_numa_nodes_of(void **pages, size_t count, int *ret_nodes)
{
	int r = count > 512 ? -EINVAL : sys_move_pages(count, pages, NULL, ret_nodes, 0);

	return r < 0 ? unsupported(r) : 0;
}

int os_numa_node_of(const void *address)
{
	return unsupported(sys_node_of(address));
}

/* What the pages that are not on the node say; the answers to a question, not those of a move. */
static int judge_move(const int *nodes, size_t count, unsigned node, int moved)
{
	int worst = 0;

	for (size_t i = 0; i < count && worst == 0; i++)
		worst = nodes[i] != (int)node;
	if (worst == 0)
		return 0;
	if (moved == -ENODEV || moved == -EINVAL || moved == -EACCES)
		return -EINVAL;
	return moved < 0 ? moved : 1;
}

/* The kernel's own word on why a page stayed; what it did not come to is left as it was. */
static int why_stayed(const int *nodes, size_t count, int moved)
{
	for (size_t i = 0; moved >= 0 && i < count; i++) {
		if (nodes[i] == -EACCES)
			return -EPERM;
		if (nodes[i] == -ENOMEM || nodes[i] == -EBUSY)
			moved = nodes[i];
	}
	return moved;
}

int os_numa_move(void **pages, size_t count, unsigned node, int *ret_nodes)
{
	int wanted[512], moved, r;

	if (count == 0 || count > 512 || node >= 16 * 64)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		wanted[i] = (int)node;
		ret_nodes[i] = -ENOENT;
	}
	moved = sys_move_pages(count, pages, wanted, ret_nodes, MPOL_MF_MOVE_ALL);
	if (moved == -EPERM)
		moved = sys_move_pages(count, pages, wanted, ret_nodes, MPOL_MF_MOVE);
	if (moved == -ENOSYS || moved == -EPERM)
		return -EOPNOTSUPP;
	moved = why_stayed(ret_nodes, count, moved);
	r = sys_move_pages(count, pages, NULL, ret_nodes, 0);
	return r < 0 ? unsupported(r) : judge_move(ret_nodes, count, node, moved);
}

#else /* one node */

static int place_on_one_node(enum os_placement mode, const struct os_nodes *nodes)
{
	if (mode == OS_PLACE_LOCAL)
		return 1;
	if (mode < OS_PLACE_LOCAL || mode > OS_PLACE_WEIGHTED || nodes_empty(nodes))
		return -EINVAL;
	for (unsigned i = 0; i < 16; i++)
		if (nodes->bits[i] != (i == 0))
			return -EOPNOTSUPP;
	return 1;
}

int os_numa_nodes(struct os_nodes *ret_nodes)
{
	*ret_nodes = (struct os_nodes){{1}};
	return 0;
}

bool os_numa_several(void)
{
	return false;
}

int os_numa_place(void *base, size_t size, enum os_placement mode, const struct os_nodes *nodes)
{
	(void)size;
	return base == NULL ? -EFAULT : place_on_one_node(mode, nodes);
}

int os_numa_task_push(enum os_placement mode, const struct os_nodes *nodes,
		      struct os_numa_saved *ret_saved)
{
	int r = place_on_one_node(mode, nodes);

	if (r >= 0)
		*ret_saved = (struct os_numa_saved){0};
	return r;
}

int os_numa_task_pop(const struct os_numa_saved *saved)
{
	(void)saved;
	return 0;
}

int os_numa_page_nodes(void *base, size_t page_size, size_t page_count, int *ret_nodes)
{
	(void)base, (void)page_size, (void)page_count, (void)ret_nodes;
	return -EOPNOTSUPP;
}

int os_numa_nodes_of(void **pages, size_t count, int *ret_nodes)
{
	(void)pages, (void)count, (void)ret_nodes;
	return -EOPNOTSUPP;
}

int os_numa_node_of(const void *address)
{
	(void)address;
	return -EOPNOTSUPP;
}

int os_numa_move(void **pages, size_t count, unsigned node, int *ret_nodes)
{
	(void)pages, (void)count, (void)node, (void)ret_nodes;
	return -EOPNOTSUPP;
}

#endif
