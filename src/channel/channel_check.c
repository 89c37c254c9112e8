/*
 * channel_check.c - the invariants C1 .. C6 of channel_layout.h, for every channel of a segment.
 *
 * A finding that may be a transient state is reported only if the ring's head and tail are the
 * same after the look as before it.
 *
 * Progress: walks as long as the rings are; each step moves on.
 * Death:    writes nothing to the segment.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "channel/channel.h"

struct ring_check {
	struct check_context *check;
	struct shale_channel *channel;
	struct ring_shm *ring;
	uint64_t offset; /* of the ring, for reports */
	uint64_t head;
	uint64_t tail;
};

DEFINE_CLEANUP(struct shale_channel *, shale_channel_close)

static void report(struct ring_check *ring, const char *invariant, const char *text)
{
	/* acquire: looked at after everything else */
	if (load_acquire(&ring->ring->head) == ring->head &&
	    load_acquire(&ring->ring->tail) == ring->tail)
		check_report(ring->check, invariant, ring->offset, text);
}

/* C5: the block of a message by reference. */
static void check_reference(struct ring_check *ring, const struct record *record)
{
	struct shale_segment *view = ring->channel->view;
	struct reference_shm reference;
	uint64_t usable = 0;

	ring_load(&reference, record->payload, sizeof(reference));
	if (heap_at(view, reference.block, reference.size) == NULL)
		report(ring, "C5", "a message by reference lies outside the heap");
	else if (heap_block_state(view, reference.block, &usable) != HEAP_BLOCK_PUBLISHED)
		report(ring, "C5", "a message's block is not a published block");
	else if (usable < reference.size)
		report(ring, "C5", "a message is larger than its block");
}

/* C4: records fill [head, tail). */
static void check_records(struct ring_check *ring)
{
	uint64_t position = head_position(ring->head), tail = ring->tail & POSITION_MASK;
	struct record record;
	int r;

	while ((r = ring_record(ring->channel, ring->ring, position, tail, &record)) > 0) {
		if (record.by_ref)
			check_reference(ring, &record);
		position = record.end;
	}
	if (r < 0)
		report(ring, "C4", "bytes between head and tail are not a record");
}

/* C3: positions. */
static void check_positions(struct ring_check *ring)
{
	uint64_t head = head_position(ring->head), tail = ring->tail & POSITION_MASK;
	uint64_t seen = load_relaxed(&ring->ring->head_seen) & POSITION_MASK; /* a look only */

	if (position_distance(head, tail) > ring->channel->units) {
		report(ring, "C3", "tail is further from head than the ring is long");
		return;
	}
	if (position_distance(seen, tail) > ring->channel->units ||
	    position_distance(seen, tail) < position_distance(head, tail))
		report(ring, "C3", "the head that the owner has seen is none that there was");
	check_records(ring);
}

/* C6: the owner, and that none of the rings before has the same. */
static void check_owner(struct ring_check *ring, uint32_t index)
{
	uint64_t owner = load_relaxed(&ring->ring->owner); /* a look only */
	struct ring_shm *other;

	if (owner == 0)
		return;
	if ((owner & 0xf) != OWNER_OWNED || (owner & UINT64_C(0xffff0000)) != 0 ||
	    owner_lane(owner) == 0) {
		report(ring, "C6", "the owner word is malformed");
		return;
	}
	for (uint32_t i = 0; i < index; i++)
		if (ring_at(ring->channel, i, &other) == 0 &&
		    load_relaxed(&other->owner) == owner &&
		    load_relaxed(&ring->ring->owner) == owner) /* looks only */
			report(ring, "C6", "a lane owns two rings");
}

/* C2 for one place of the directory; false: it is empty or unusable. */
static bool check_place(struct ring_check *ring, uint32_t index)
{
	struct shale_channel *channel = ring->channel;
	uint64_t place = view_offset_of(channel->view, &channel->directory[index]);
	/* pairs: channel.directory - the ring is complete. */
	uint64_t block = load_acquire(&channel->directory[index]);

	if (block == 0)
		return false;
	if (ring_at(channel, index, &ring->ring) != 0) {
		check_report(ring->check, "C2", place, "a ring's ref is not a published block");
		return false;
	}
	for (uint32_t i = 0; i < index; i++)
		if (load_relaxed(&channel->directory[i]) == block) /* never changes once set */
			check_report(ring->check, "C2", place, "a ring is in the directory twice");
	return true;
}

static void check_channel(struct check_context *check, struct shale_channel *channel)
{
	struct ring_check ring = {.check = check, .channel = channel};
	bool ended = false;

	for (uint32_t i = 0; i < channel->max_senders; i++) {
		/* relaxed: a look, check_place() loads it again */
		if (load_relaxed(&channel->directory[i]) == 0) {
			ended = true;
			continue;
		}
		/* Filled from the front: the place before is looked at again, it may have come since. */
		if (ended && load_acquire(&channel->directory[i - 1]) == 0)
			check_report(check, "C2",
				     view_offset_of(channel->view, &channel->directory[i]),
				     "a ring lies behind an empty place of the directory");
		if (!check_place(&ring, i))
			continue;
		ring.offset = view_offset_of(channel->view, ring.ring);
		ring.head = load_acquire(&ring.ring->head); /* pairs: ring.head - as a receiver */
		ring.tail = load_acquire(&ring.ring->tail); /* pairs: ring.tail - as a receiver */
		check_positions(&ring);
		check_owner(&ring, i);
	}
}

static int check_root(struct shale_segment *view, uint64_t offset, const struct root_shm *record,
		      void *context)
{
	_cleanup_(shale_channel_closep) struct shale_channel *channel = NULL;
	struct check_context *check = context;

	if (load_relaxed(&record->kind) != ROOT_CHANNEL) /* written before it could be found */
		return 0;
	channel = calloc(1, sizeof(*channel));
	if (channel == NULL)
		return -ENOMEM;
	if (channel_map_record(view, offset, channel) < 0) {
		check_report(check, "C1", offset, "the geometry of a channel is out of range");
		return 0;
	}
	channel->rings = calloc(channel->max_senders, sizeof(struct ring_shm *));
	if (channel->rings == NULL)
		return -ENOMEM;
	check_channel(check, channel);
	return 0;
}

void channel_check(struct check_context *check)
{
	if (root_walk(check->view, check_root, check) == -ENOMEM)
		check_report(check, "C1", 0, "no memory left to check the channels with");
}
