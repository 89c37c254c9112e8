/*
 * hugepages.h - change the machine's huge-page pools and THP modes for one test, and put them back.
 *
 *   TEST(segment, takes_huge_pages)
 *   {
 *           hugepages_require_free(2 << 20, HUGEPAGES_ANY_NODE, 4);
 *           ...
 *   }
 *
 * Owner:     one test program on the machine at a time, by a lock on a file; the others wait.
 * Invariant: G1  what a test changed is as before when its result is printed, however it ended
 *            G2  a setting is saved before it is changed
 * Ordering:  the lock; settings are restored before it is let go.
 * Lifetime:  a change lasts to the end of the test that asked for it.
 * Death:     of the test: the runner restores. Of the runner as well: the saved values lie in the
 *            lock file, and the next program that takes the lock restores them first.
 *
 * What cannot be had (no rights, no memory, no such file) ends the test as skipped, with a reason.
 */
#ifndef SHALE_TESTS_LIB_HUGEPAGES_H
#define SHALE_TESTS_LIB_HUGEPAGES_H

#include <stddef.h>
#include <stdint.h>

enum { HUGEPAGES_ANY_NODE = -1 };

/* Keep others from changing what we are about to read, without changing anything. */
void hugepages_lock(void);
/* At least `count` free pages of this size, in all or on one node. The pool only grows. */
void hugepages_require_free(size_t page_bytes, int node, uint64_t count);
/*
 * Takes memory of the node into the pool until about `leave_bytes` of it are free: then it is full.
 * Only in a guest of tests/guest: on a real machine it would be somebody's memory.
 */
void hugepages_fill_node(int node, uint64_t leave_bytes);
/* An empty pool: no page and no overcommit. */
void hugepages_require_none(size_t page_bytes);
/* file: "enabled", "shmem_enabled", "defrag"; mode: "always", "madvise", "never", "advise" ... */
void hugepages_require_thp(const char *file, const char *mode);

/* Pages in the pool and those of them free; 0 where there is no such pool. */
uint64_t hugepages_total(size_t page_bytes, int node);
uint64_t hugepages_free(size_t page_bytes, int node);

#endif
