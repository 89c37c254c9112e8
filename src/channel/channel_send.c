/*
 * channel_send.c - sending: a record written behind the tail, and one store of the tail.
 *
 *   inline     room -> [pad] record -> tail                                   tail sends it
 *   by ref     room -> block, filled -> SEND intent -> publish -> record -> tail -> clear
 *
 * Owner:     the ring's owner lane, which is ours: nobody else stores to tail or records.
 * Progress:  wait-free if there is room, but for the heap's part of a large message.
 * Ordering:  ring.tail: the record is complete before the tail passes it.
 *            ring.head: a receiver has read a record before we overwrite it.
 *            event.announce (data): the tail is stored before the waiters' mark is looked at.
 * Death:     before the tail store nothing was sent: bytes behind the tail mean nothing, and the
 *            block is unpublished or named by the intent; channel_settle_lane() frees it. After the
 *            tail store it is sent, and only the intent is left to clear. Between the tail store
 *            and the wake: receivers asleep look again after a slice (channel_wait()).
 */
#include <errno.h>
#include <string.h>

#include "channel/channel.h"

/* What a record of `need` units takes, the pad in front included. */
static uint64_t send_total(const struct shale_channel *channel, uint64_t tail, uint64_t need)
{
	uint64_t left = channel->units - (tail & (channel->units - 1));

	return left < need ? left + need : need;
}

/* 1 there is room, 0 there is not, -EUCLEAN. */
static int send_has_room(struct shale_channel *channel, struct ring_shm *ring, uint64_t need)
{
	uint64_t tail = load_relaxed(&ring->tail) & POSITION_MASK;      /* only we write it */
	uint64_t seen = load_relaxed(&ring->head_seen) & POSITION_MASK; /* only we write it */
	uint64_t total = send_total(channel, tail, need);
	uint64_t used = position_distance(seen, tail);

	if (likely(used <= channel->units && channel->units - used >= total))
		return 1;
	/* pairs: ring.head - receivers have read what lies before it. */
	seen = head_position(load_acquire(&ring->head));
	store_relaxed(&ring->head_seen, seen); /* only we read it */
	used = position_distance(seen, tail);
	if (used > channel->units)
		return view_damaged(channel->view);
	return channel->units - used >= total;
}

static int send_wait(struct shale_channel *channel, struct ring_shm *ring, uint64_t need,
		     uint64_t deadline)
{
	uint32_t ticket;
	int r;

	for (;;) {
		if (channel_is_shut_down(channel))
			return -EPIPE;
		r = send_has_room(channel, ring, need);
		if (r != 0)
			return r < 0 ? r : 0;
		if (deadline == SHALE_NO_WAIT)
			return -EAGAIN;
		ticket = shale_event_prepare(&ring->room);
		r = send_has_room(channel, ring, need);
		if (r != 0 || channel_is_shut_down(channel)) {
			shale_event_cancel(&ring->room, ticket);
			continue;
		}
		r = channel_wait(channel, &ring->room, ticket, deadline);
		if (r < 0)
			return r;
	}
}

/* Writes pad and record behind the tail; *ret_tail is where the tail goes. There is room. */
static void send_write(struct shale_channel *channel, struct ring_shm *ring, enum record_kind kind,
		       const void *payload, uint32_t size, uint64_t *ret_tail)
{
	uint64_t tail = load_relaxed(&ring->tail) & POSITION_MASK; /* only we write it */
	uint64_t index = tail & (channel->units - 1);
	uint64_t need = record_units(size), left = channel->units - index;
	unsigned char *bytes = ring_bytes(ring);

	/* relaxed: the store of the tail publishes both headers and the payload */
	if (left < need) {
		store_relaxed(
			(uint64_t *)(void *)(bytes + index * RECORD_UNIT),
			record_word(RECORD_PAD, (uint32_t)(left * RECORD_UNIT - RECORD_HEADER)));
		tail = position_after(tail, left);
		index = 0;
	}
	bytes += index * RECORD_UNIT;
	store_relaxed((uint64_t *)(void *)bytes, record_word(kind, size));
	ring_store(bytes + RECORD_HEADER, payload, size);
	*ret_tail = position_after(tail, need);
}

static void send_commit(struct shale_channel *channel, struct ring_shm *ring, uint64_t tail)
{
	/* pairs: ring.tail - the record is complete; this store sends it. */
	store_release(&ring->tail, tail);
	(void)event_wake(&channel->shm->data);
}

static int send_by_ref(struct shale_channel *channel, struct lane *lane, struct ring_shm *ring,
		       const void *data, size_t size)
{
	uint64_t start = load_relaxed(&ring->tail) & POSITION_MASK; /* only we write it */
	struct reference_shm reference = {.size = size};
	uint64_t end;
	int r;

	r = heap_alloc_block(lane, size, &reference.block);
	if (r < 0)
		return r;
	memcpy(view_at(channel->view, reference.block), data, size);
	end = send_total(channel, start, record_units(sizeof(reference)));
	end = position_after(start, end);
	channel_intent_set(lane, INTENT_CHANNEL_SEND, reference.block,
			   view_offset_of(channel->view, ring), start, end);
	r = heap_publish_block(channel->view, lane, reference.block);
	if (r < 0) {
		(void)heap_free_block(channel->view, lane, reference.block);
		channel_intent_clear(lane);
		return r == -EUCLEAN ? r : view_damaged(channel->view);
	}
	send_write(channel, ring, RECORD_BY_REF, &reference, sizeof(reference), &end);
	order_for_death();
	send_commit(channel, ring, end);
	channel_intent_clear(lane);
	return 0;
}

SHALE_API int shale_channel_send(struct shale_channel *channel, const void *data, size_t size,
				 uint64_t deadline)
{
	bool by_ref;
	struct ring_shm *ring;
	struct lane *lane;
	uint64_t tail;
	int r;

	if (channel == NULL || (data == NULL && size > 0))
		return -EINVAL;
	r = lane_enter(channel->view, &lane);
	if (r < 0)
		return r;
	if (channel_is_shut_down(channel))
		return -EPIPE;
	r = ring_of_lane(channel, lane, &ring);
	if (r < 0)
		return r;
	by_ref = size > channel->inline_limit;
	r = send_wait(channel, ring, record_units(by_ref ? sizeof(struct reference_shm) : size),
		      deadline);
	if (r < 0)
		return r;
	if (by_ref)
		return send_by_ref(channel, lane, ring, data, size);
	send_write(channel, ring, RECORD_INLINE, data, (uint32_t)size, &tail);
	send_commit(channel, ring, tail);
	return 0;
}
