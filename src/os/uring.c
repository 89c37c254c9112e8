/* SPDX-License-Identifier: MIT */
/*
 * uring.c - several hole punches handed to the kernel at once, through io_uring.
 *
 * A ring of its own, set up with raw calls: the library needs nothing of liburing for this.
 *
 * Owner:     one thread at a time; the ring's memory is shared with the kernel alone.
 * Invariant: U1  between calls nothing is in flight and both queues are empty
 * Ordering:  uring.sq: entries before the tail, which the kernel reads in io_uring_enter.
 *            uring.cq: the kernel's tail before its entries; entries read before our head.
 * Death:     punches in flight are carried out by threads of this process that share its memory map,
 *            so they end before its life lock goes (docs/design/giveback.md).
 */
#define _GNU_SOURCE
#include "os/os.h"

#include <linux/io_uring.h>
#include <linux/falloc.h>
#include <string.h>

#include "os/sys.h"

static void *ring_at(const struct os_uring *ring, uint32_t offset)
{
	return (char *)ring->ring + offset;
}

static int ring_map(struct os_uring *ring, const struct io_uring_params *params)
{
	size_t sq = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
	size_t cq = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	int r;

	ring->ring_size = sq > cq ? sq : cq;
	ring->slots_size = params->sq_entries * sizeof(struct io_uring_sqe);
	r = sys_mmap(NULL, ring->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
		     IORING_OFF_SQ_RING, &ring->ring);
	if (r < 0)
		return r;
	r = sys_mmap(NULL, ring->slots_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
		     IORING_OFF_SQES, &ring->slots);
	if (r < 0)
		return r;
	/* a forked child has no business here, and no lane that its punches would name */
	(void)os_advise(ring->ring, ring->ring_size, OS_DONTFORK);
	(void)os_advise(ring->slots, ring->slots_size, OS_DONTFORK);
	ring->sq_tail = ring_at(ring, params->sq_off.tail);
	ring->sq_array = ring_at(ring, params->sq_off.array);
	ring->sq_mask = *(uint32_t *)ring_at(ring, params->sq_off.ring_mask);
	ring->cq_head = ring_at(ring, params->cq_off.head);
	ring->cq_tail = ring_at(ring, params->cq_off.tail);
	ring->cq_mask = *(uint32_t *)ring_at(ring, params->cq_off.ring_mask);
	ring->completions = ring_at(ring, params->cq_off.cqes);
	return 0;
}

void os_uring_close(struct os_uring *ring)
{
	if (ring->slots != NULL)
		(void)sys_munmap(ring->slots, ring->slots_size);
	if (ring->ring != NULL)
		(void)sys_munmap(ring->ring, ring->ring_size);
	(void)os_fd_close_if(ring->fd, OS_FD_URING);
	*ring = (struct os_uring){.fd = -EBADF};
}

int os_uring_open(struct os_uring *ret_ring)
{
	struct io_uring_params params = {0};
	struct os_uring ring = {.fd = -EBADF};
	int r;

	ring.fd = sys_uring_setup(OS_URING_BATCH, &params);
	if (ring.fd < 0)
		return ring.fd;
	/* one mapping for both queues, 5.4; FALLOCATE came in 5.6 with this feature */
	if (!(params.features & IORING_FEAT_SINGLE_MMAP) ||
	    !(params.features & IORING_FEAT_RW_CUR_POS))
		r = -EOPNOTSUPP;
	else
		r = ring_map(&ring, &params);
	if (r < 0) {
		os_uring_close(&ring);
		return r;
	}
	*ret_ring = ring;
	return 0;
}

static void queue_punch(struct os_uring *ring, int fd, const struct os_uring_punch *punch,
			unsigned number)
{
	uint32_t tail = load_relaxed(ring->sq_tail); /* only we write it */
	struct io_uring_sqe *sqe = (struct io_uring_sqe *)ring->slots + (tail & ring->sq_mask);

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_FALLOCATE;
	sqe->fd = fd;
	sqe->off = punch->offset;
	sqe->addr = punch->size;
	sqe->len = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	sqe->user_data = number;
	ring->sq_array[tail & ring->sq_mask] = tail & ring->sq_mask;
	/* pairs: uring.sq - the entry is whole before the kernel sees the new tail. */
	store_release(ring->sq_tail, tail + 1);
}

/* Takes what has completed; how many. */
static unsigned reap(struct os_uring *ring, struct os_uring_punch *punches, unsigned count)
{
	uint32_t head = load_relaxed(ring->cq_head); /* only we write it */
	/* pairs: uring.cq - the entries below the tail are whole. */
	uint32_t tail = load_acquire(ring->cq_tail);
	unsigned taken = 0;

	for (; head != tail; head++, taken++) {
		const struct io_uring_cqe *cqe =
			(const struct io_uring_cqe *)ring->completions + (head & ring->cq_mask);

		if (cqe->user_data < count)
			punches[cqe->user_data].result = cqe->res;
	}
	/* pairs: uring.cq - the entries are read before the kernel may reuse them. */
	store_release(ring->cq_head, head);
	return taken;
}

/* The ring does not answer any more, but what is in flight completes into its memory. */
static void reap_without_calls(struct os_uring *ring, struct os_uring_punch *punches,
			       unsigned count, unsigned waiting)
{
	while (waiting > 0) {
		unsigned taken = reap(ring, punches, count);

		waiting -= taken < waiting ? taken : waiting;
		if (waiting > 0)
			(void)os_futex_wait(ring->cq_tail, load_relaxed(ring->cq_tail),
					    OS_FUTEX_ANY, os_clock_ns() + 1000000u);
	}
}

/* Submits; how many the kernel took. The others are taken out of the queue again. */
static unsigned submit(struct os_uring *ring, unsigned count, int *ret_error)
{
	unsigned taken = 0;
	int r = 0;

	while (taken < count && r >= 0) {
		/* pairs: uring.sq - the kernel reads the tail in this call. */
		retry_eintr(r, sys_uring_enter(ring->fd, count - taken, 0, 0));
		if (r == 0)
			r = -EBUSY;
		if (r > 0)
			taken += (unsigned)r;
	}
	if (taken < count) {
		*ret_error = r;
		/* the kernel reads the tail in the call alone: what it did not take was never there */
		store_relaxed(ring->sq_tail, load_relaxed(ring->sq_tail) - (count - taken));
	}
	return taken;
}

int os_uring_decommit(struct os_uring *ring, int fd, struct os_uring_punch *punches, unsigned count)
{
	unsigned taken, waiting;
	int error = 0, r = 0;

	if (count > OS_URING_BATCH)
		return -EINVAL;
	for (unsigned i = 0; i < count; i++)
		queue_punch(ring, fd, &punches[i], i);
	taken = submit(ring, count, &error);
	for (unsigned i = taken; i < count; i++)
		punches[i].result = error;
	for (waiting = taken; waiting > 0;) {
		unsigned done = reap(ring, punches, count);

		waiting -= done < waiting ? done : waiting;
		if (waiting == 0)
			break;
		retry_eintr(r, sys_uring_enter(ring->fd, 0, 1, IORING_ENTER_GETEVENTS));
		if (r < 0) {
			reap_without_calls(ring, punches, count, waiting);
			return r;
		}
	}
	return error;
}
