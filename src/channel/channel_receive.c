/*
 * channel_receive.c - receiving: read the first record of a ring, then move the ring's head past it.
 *
 *   inline     head, tail, record -> copy -> CAS head                      the CAS takes it and
 *                                                                          says the copy is good
 *   by ref     head, tail, record -> RECEIVE intent -> CAS head -> copy -> free block -> clear
 *
 * Before a CAS replaces a head word that tells of a message by reference taken by another lane,
 * that lane's RECEIVE intent, if it is still there, is marked TAKEN: the head word was the only
 * other place that said so.
 *
 * Owner:     nobody; receivers compete by the CAS.
 * Progress:  lock-free (a CAS fails because another receiver took a message); gives up on a ring
 *            after RECEIVE_TRIES lost races, so that a hostile peer cannot hold us there.
 * Ordering:  ring.tail: the record is complete. ring.head: our reads of the record are before the
 *            CAS, the owner's next stores to its bytes behind it. lane.intent: the intent is there
 *            before head tells of the taker. event.announce (room): head moves before the mark is
 *            looked at.
 * Lifetime:  a message's block belongs to the record until the CAS, to the taker from then on. A
 *            loser of the CAS has not touched the block, only asked its facts.
 * Death:     before the CAS nothing was taken. After it, the message goes with the receiver; a
 *            block is freed by channel_settle_lane(), which finds in head or in the status that it
 *            was taken. Between the CAS and the wake of room: the sender looks again after a slice.
 */
#include <errno.h>
#include <string.h>

#include "channel/channel.h"

#define RECEIVE_TRIES 256u
#define RECEIVE_LOST  1 /* another receiver was faster, or the bytes were stale: look again */

struct receiver {
	struct shale_channel *channel;
	struct lane *lane;
	void *buffer;
	size_t buffer_size;
	size_t *ret_size;
	bool outrun; /* a ring was left to other receivers, and may have messages still */
};

/* The word of head that was read is still there: what was read from the record is not stale. */
static bool head_still(struct ring_shm *ring, uint64_t head)
{
	/*
	 * pairs: ring.head - a reference and its block's facts were read by relaxed loads: what is
	 * newer than the head's next word must not be taken for what was there before.
	 */
	fence_seq_cst();
	return load_acquire(&ring->head) == head;
}

/*
 * `head` says that a lane took a message by reference. If that lane still has its intent, note
 * there that it took it, since our CAS is about to wipe that out of the head word.
 */
static void note_previous_taker(struct receiver *receiver, struct ring_shm *ring, uint64_t head)
{
	struct shale_segment *view = receiver->channel->view;
	uint32_t taker = head_lane(head);
	struct intent_shm *intent;
	uint64_t word;

	if (likely((head & HEAD_BY_REF) == 0) || taker == receiver->lane->index)
		return;
	if (taker >= view_lane_high(view))
		return; /* no such lane: damage, and slots beyond the mark may be holes */
	intent = &view_lane(view, taker)->intent;
	/* pairs: lane.intent - with the word come the arguments stored before it. */
	word = load_acquire(&intent->word);
	if (intent_word_kind(word) != INTENT_CHANNEL_RECEIVE || (word & INTENT_STATUS_TAKEN) != 0)
		return;
	/* relaxed: if the lane has gone on meanwhile, the CAS below fails or hits a finished intent */
	if (load_relaxed(&intent->argument[0]) != view_offset_of(view, ring) ||
	    load_relaxed(&intent->argument[2]) != head_position(head))
		return;
	/* pairs: channel.taken - recovery that sees our head word sees this too. Failing is fine:
	 * then the lane has cleared the intent itself, or somebody else has marked it. */
	(void)cas_acq_rel(&intent->word, &word, word | INTENT_STATUS_TAKEN);
}

static bool take(struct receiver *receiver, struct ring_shm *ring, uint64_t head,
		 const struct record *record)
{
	uint64_t next = head_make(record->end, record->by_ref, receiver->lane->index);

	note_previous_taker(receiver, ring, head);
	/* pairs: ring.head - the owner overwrites the record after this, we have read it before. */
	/* pairs: channel.taken - the note about the previous taker is before this. */
	return cas_acq_rel(&ring->head, &head, next);
}

static int too_small(struct receiver *receiver, struct ring_shm *ring, uint64_t head, size_t size)
{
	if (!head_still(ring, head))
		return RECEIVE_LOST;
	*receiver->ret_size = size;
	return -EMSGSIZE;
}

static int take_inline(struct receiver *receiver, struct ring_shm *ring, uint64_t head,
		       const struct record *record)
{
	if (record->size > receiver->buffer_size)
		return too_small(receiver, ring, head, record->size);
	ring_load(receiver->buffer, record->payload, record->size);
	if (!take(receiver, ring, head, record))
		return RECEIVE_LOST;
	(void)event_wake(&ring->room);
	*receiver->ret_size = record->size;
	return 0;
}

/* Copies the message out of its block and frees the block; both are ours now. */
static int take_block(struct receiver *receiver, const struct reference_shm *reference)
{
	struct shale_segment *view = receiver->channel->view;
	const void *message = heap_at(view, reference->block, reference->size);
	int r;

	if (message != NULL && reference->size > 0)
		memcpy(receiver->buffer, message, reference->size);
	r = heap_free_block(view, receiver->lane, reference->block);
	if (r < 0 || message == NULL)
		return view_damaged(view); /* somebody else has freed it: not ours to explain */
	*receiver->ret_size = reference->size;
	return 0;
}

static int take_by_ref(struct receiver *receiver, struct ring_shm *ring, uint64_t head,
		       const struct record *record)
{
	struct shale_segment *view = receiver->channel->view;
	struct reference_shm reference;
	uint64_t usable = 0;
	bool sound;
	int r;

	ring_load(&reference, record->payload, sizeof(reference));
	sound = heap_at(view, reference.block, reference.size) != NULL &&
		heap_block_state(view, reference.block, &usable) == HEAP_BLOCK_PUBLISHED &&
		usable >= reference.size;
	if (!sound)
		return head_still(ring, head) ? view_damaged(view) : RECEIVE_LOST;
	if (reference.size > receiver->buffer_size)
		return too_small(receiver, ring, head, reference.size);
	channel_intent_set(receiver->lane, INTENT_CHANNEL_RECEIVE, reference.block,
			   view_offset_of(view, ring), record->start, record->end);
	if (!take(receiver, ring, head, record)) {
		channel_intent_clear(receiver->lane);
		return RECEIVE_LOST;
	}
	r = take_block(receiver, &reference);
	channel_intent_clear(receiver->lane);
	(void)event_wake(&ring->room);
	return r;
}

static int receive_from(struct receiver *receiver, struct ring_shm *ring)
{
	struct record record;
	uint64_t head, tail;
	int r = RECEIVE_LOST;

	for (unsigned i = 0; i < RECEIVE_TRIES && r == RECEIVE_LOST; i++) {
		/* pairs: ring.head - a head this new comes with the tail that was there before it. */
		head = load_acquire(&ring->head);
		/* pairs: ring.tail - the records before it are complete. */
		tail = load_acquire(&ring->tail) & POSITION_MASK;
		r = ring_record(receiver->channel, ring, head_position(head), tail, &record);
		if (r == 0)
			return -EAGAIN;
		if (r < 0)
			r = head_still(ring, head) ? view_damaged(receiver->channel->view)
						   : RECEIVE_LOST;
		else if (record.by_ref)
			r = take_by_ref(receiver, ring, head, &record);
		else
			r = take_inline(receiver, ring, head, &record);
	}
	if (r != RECEIVE_LOST)
		return r;
	receiver->outrun = true;
	return -EAGAIN;
}

/* Rings `from` .. `to` - 1, as far as there are any. -EAGAIN none of them has a message. */
static int receive_range(struct receiver *receiver, uint32_t from, uint32_t to)
{
	struct shale_channel *channel = receiver->channel;
	struct channel_lane *mine = &channel->lanes[receiver->lane->index & (LANE_COUNT - 1)];
	struct ring_shm *ring;
	int r;

	for (uint32_t i = from; i < to; i++) {
		r = ring_at(channel, i, &ring);
		if (r == -ENOENT)
			break; /* the directory is filled from the front */
		if (r == 0)
			r = receive_from(receiver, ring);
		if (r == -EAGAIN)
			continue;
		/* A ring that gave something, or is damaged, is asked last the next time. */
		if (r != -EMSGSIZE)
			mine->start = (uint16_t)(i + 1);
		return r;
	}
	return -EAGAIN;
}

/* One look at every ring, starting behind the one that gave the last message. */
static int receive_try(struct receiver *receiver)
{
	struct shale_channel *channel = receiver->channel;
	uint32_t start = channel->lanes[receiver->lane->index & (LANE_COUNT - 1)].start;
	int r;

	r = receive_range(receiver, start, channel->max_senders);
	if (r == -EAGAIN && start > 0)
		r = receive_range(receiver, 0, start);
	return r;
}

/* -EAGAIN nothing there; -EPIPE nothing there, and no more will come. */
static int receive_or_end(struct receiver *receiver)
{
	/* before the look: what was sent before the shutdown is then seen by it */
	bool ended = channel_is_shut_down(receiver->channel);
	int r;

	receiver->outrun = false;
	r = receive_try(receiver);
	return r == -EAGAIN && ended && !receiver->outrun ? -EPIPE : r;
}

static int receive_spin(struct receiver *receiver)
{
	unsigned turns = event_spin_begin();
	int r = -EAGAIN;

	for (unsigned i = 0; i < turns && r == -EAGAIN; i++) {
		os_cpu_relax();
		r = receive_or_end(receiver);
	}
	if (turns > 0)
		event_spin_end(r != -EAGAIN);
	return r;
}

SHALE_API int shale_channel_receive(struct shale_channel *channel, void *buffer, size_t buffer_size,
				    size_t *ret_size, uint64_t deadline)
{
	struct receiver receiver = {
		.channel = channel,
		.buffer = buffer,
		.buffer_size = buffer_size,
		.ret_size = ret_size,
	};
	struct shale_event *data;
	size_t unwanted;
	uint32_t ticket;
	int r;

	if (channel == NULL || !bytes_given(buffer, buffer_size))
		return -EINVAL;
	if (ret_size == NULL)
		receiver.ret_size = &unwanted;
	r = lane_enter(channel->view, &receiver.lane);
	if (r < 0)
		return r;
	data = &channel->shm->data;
	r = receive_or_end(&receiver);
	if (r != -EAGAIN || deadline == SHALE_NO_WAIT)
		return r;
	r = receive_spin(&receiver);
	while (r == -EAGAIN) {
		ticket = shale_event_prepare(data);
		r = receive_or_end(&receiver);
		if (r != -EAGAIN) {
			shale_event_cancel(data, ticket);
			break;
		}
		r = channel_wait(channel, data, ticket, deadline);
		if (r == 0)
			r = -EAGAIN;
		if (r != -ETIMEDOUT)
			continue;
		/* a sender killed before its wake has sent all the same */
		r = receive_or_end(&receiver);
		if (r == -EAGAIN)
			r = -ETIMEDOUT;
	}
	return r;
}
