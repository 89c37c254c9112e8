/*
 * channel_recovery.c - settling what a dead lane was in the middle of sending or receiving.
 *
 * Owner:     the recoverer, who holds the recover lock of the dead peer; the lane is not ours.
 * Invariant: after it the intent is clear, and the named block is either free or the message's.
 * Progress:  wait-free.
 * Ordering:  channel.taken: whoever replaced the head word that told of the dead taker has marked
 *            its intent before. ring.tail: of the dead lane itself; it stores no more.
 * Death:     idempotent: a named block is not reused before the name goes, so its facts tell the
 *            next recoverer whether the last one had freed it.
 *
 * A ring needs no settling: tail is one store, and what lies behind it means nothing. It keeps its
 * owner word; when the lane's slot is free that word is that of a lane that is gone.
 */
#include <errno.h>

#include "channel/channel.h"

/* The ring that a dead lane names, if its first lines lie in the heap. */
static struct ring_shm *settle_ring(struct shale_segment *view, const struct intent_shm *intent)
{
	/* relaxed: stored before the intent's word, which was loaded with acquire */
	uint64_t offset = load_relaxed(&intent->argument[0]);

	if ((offset & (CHANNEL_ALIGNMENT - 1)) != 0)
		return NULL;
	return heap_at(view, offset, sizeof(struct ring_shm));
}

/* Was the message sent? Then its block belongs to the record, or to who received it. */
static bool was_sent(struct ring_shm *ring, uint64_t end)
{
	/* pairs: ring.tail - the last store of the dead owner; the ring has no other until then. */
	return (load_acquire(&ring->tail) & POSITION_MASK) == end;
}

/* Did the lane take the message before it died? Then its block is the dead lane's. */
static bool was_taken(struct ring_shm *ring, struct intent_shm *intent, uint64_t end, uint32_t lane)
{
	/* pairs: channel.taken - if head has gone on from the dead taker's word, the note is there. */
	uint64_t head = load_acquire(&ring->head);

	if (head == head_make(end, true, lane))
		return true;
	/* relaxed: ordered by the acquire of head */
	return (load_relaxed(&intent->word) & INTENT_STATUS_TAKEN) != 0;
}

static int settle_block(struct shale_segment *view, uint32_t lane, uint64_t block)
{
	int r;

	/* Not live: the dead lane, or an earlier recoverer, had freed it. */
	if (block == 0 || heap_block_state(view, block, NULL) < HEAP_BLOCK_LIVE)
		return 0;
	r = heap_free_for(view, lane, block);
	return r == -EALREADY || r == -EINVAL ? 0 : r;
}

int channel_settle_lane(struct shale_segment *view, uint32_t lane)
{
	struct intent_shm *intent = &view_lane(view, lane)->intent;
	/* pairs: lane.intent - the arguments were stored before it. */
	uint64_t word = load_acquire(&intent->word);
	unsigned kind = intent_word_kind(word);
	struct ring_shm *ring;
	uint64_t block, end;
	bool ours;
	int r;

	if (kind != INTENT_CHANNEL_SEND && kind != INTENT_CHANNEL_RECEIVE)
		return 0;
	ring = settle_ring(view, intent);
	block = load_relaxed(&intent->block[0]);  /* relaxed: stored before the word */
	end = load_relaxed(&intent->argument[2]); /* relaxed: the same */
	if (ring != NULL) {
		ours = kind == INTENT_CHANNEL_SEND ? !was_sent(ring, end)
						   : was_taken(ring, intent, end, lane);
		r = ours ? settle_block(view, lane, block) : 0;
		if (r < 0)
			return r;
	} else {
		(void)view_damaged(view); /* nothing can be told: the block stays */
	}
	/* pairs: lane.intent - what was named is settled before the name goes. */
	store_release(&intent->word, UINT64_C(0));
	order_for_death();
	store_relaxed(&intent->block[0], UINT64_C(0)); /* relaxed: the name goes last */
	return 0;
}
