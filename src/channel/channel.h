/*
 * channel.h - a process's handle on a channel, and what the files of this folder share.
 *
 * The handle is private memory: a checked copy of the geometry, the addresses of rings that were
 * checked when first seen, and per lane of this process which ring it sends to. A lane's entry is
 * used by the thread that has the lane. After a fork the child has lanes of its own; an entry that
 * it inherits is tested against the ring's owner word before it is used.
 */
#ifndef SHALE_CHANNEL_CHANNEL_H
#define SHALE_CHANNEL_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shale/channel.h>

#include "base/atomic.h"
#include "channel/channel_layout.h"
#include "heap/heap.h"
#include "segment/lanes.h"
#include "segment/recovery.h"
#include "segment/view.h"
#include "sync/event.h"

struct channel_lane {
	uint16_t ring;  /* index + 1 of the ring that the lane sends to, 0: not looked up */
	uint16_t start; /* index of the ring at which its next receive starts */
};

struct shale_channel {
	struct shale_segment *view;
	struct channel_shm *shm;
	uint64_t *directory; /* in the segment: max_senders words */
	uint64_t offset;     /* of the root record, for reports */
	uint64_t units;      /* capacity of a ring, 16 bytes each; a power of two */
	uint32_t max_senders;
	uint32_t inline_limit;   /* bytes; larger messages go by reference */
	struct ring_shm **rings; /* max_senders; NULL: not seen yet */
	struct channel_lane lanes[LANE_COUNT];
};

/* What a record's header says, checked against the handle's geometry. */
struct record {
	uint64_t start; /* position of the pad in front, or of the record */
	uint64_t end;   /* position behind the record */
	unsigned char *payload;
	uint32_t size; /* of the payload */
	bool by_ref;
};

/* channel.c: fills the geometry of *channel from the record at `offset`. 0, -EUCLEAN. */
int channel_map_record(struct shale_segment *view, uint64_t offset, struct shale_channel *channel);
/*
 * Sleeps on `event` until it moves on from the ticket, the deadline, or the end of a slice, after
 * which the dead are recovered and the caller looks again. 0, -ETIMEDOUT, -EINTR.
 */
int channel_wait(struct shale_channel *channel, struct shale_event *event, uint32_t ticket,
		 uint64_t deadline);
bool channel_is_shut_down(const struct shale_channel *channel);

/* channel_ring.c */
/* Bytes of a ring block, alignment included. */
uint64_t ring_block_size(uint64_t units);
/* The ring at that place of the directory. 0, -ENOENT nothing there (nor behind it), -EUCLEAN. */
int ring_at(struct shale_channel *channel, uint32_t index, struct ring_shm **ret_ring);
/* The ring that this lane sends to, found, adopted or made. -EUSERS, -ENOMEM, -EUCLEAN. */
int ring_of_lane(struct shale_channel *channel, struct lane *lane, struct ring_shm **ret_ring);
/*
 * The first message at or behind `position`, when the ring ends at `tail`. 1 found, 0 there is none,
 * -EUCLEAN the bytes are not a record (they may also be stale: the caller looks at head again).
 */
int ring_record(const struct shale_channel *channel, struct ring_shm *ring, uint64_t position,
		uint64_t tail, struct record *ret_record);

static inline unsigned char *ring_bytes(struct ring_shm *ring)
{
	return (unsigned char *)(ring + 1);
}

/*
 * Copies to and from the records of a ring: a receiver reads while the owner may already overwrite,
 * and throws away what it has read if it then loses the CAS of head. Up to 64 bytes each word is
 * loaded once, so a reference may be checked and used after the copy.
 */
void ring_store(unsigned char *payload, const void *data, uint32_t size);
void ring_load(void *buffer, const unsigned char *payload, uint32_t size);

/* channel_recovery.c: the step of recovery_steps[]: settles what the lane of a dead peer was doing. */
int channel_settle_lane(struct shale_segment *view, uint32_t lane);
/* channel_check.c: the step of check_steps[]: C1 .. C6 for each channel. */
void channel_check(struct check_context *check);

static inline void channel_intent_set(struct lane *lane, enum channel_intent kind, uint64_t block,
				      uint64_t ring, uint64_t start, uint64_t end)
{
	struct intent_shm *intent = &lane->shm->intent;

	/* relaxed: intent_set() publishes them */
	store_relaxed(&intent->block[0], block);
	store_relaxed(&intent->block[1], UINT64_C(0));
	/* pairs: map.intent - a helper of our last gate that sees one of them sees the gate passed. */
	store_release(&intent->argument[0], ring);
	store_release(&intent->argument[1], start); /* pairs: map.intent */
	store_release(&intent->argument[2], end);   /* pairs: map.intent */
	intent_set(lane, (enum intent_kind)kind);
}

static inline void channel_intent_clear(struct lane *lane)
{
	intent_clear(lane);
	order_for_death();
	/* relaxed: the name goes after the word; in between it keeps a block from being collected */
	store_relaxed(&lane->shm->intent.block[0], UINT64_C(0));
}

#endif
