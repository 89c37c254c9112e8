/*
 * channel_ring.c - rings: finding, adopting and making them, and reading what lies in them.
 *
 * Owner:     a lane; its owner word changes by CAS, from 0 or from the word of a lane that is gone.
 * Invariant: C2, C3, C4, C6 of channel_layout.h.
 * Progress:  finding is wait-free; adopting and making are lock-free (a CAS fails because another
 *            sender got that ring), at most max_senders tries.
 * Ordering:  channel.directory: a ring is complete before its ref is placed.
 *            ring.owner: what the last owner did is before what the next one does. A lane's word
 *            changes only after recovery has settled the lane, so nothing of the old owner is open.
 *            ring.tail: a record is complete before the tail passes it.
 * Lifetime:  rings are published and never freed: one that was seen may be used for ever.
 * Death:     before the ref is placed, the block is freed by recovery (heap_publish_at()); after
 *            the owner CAS the ring is the dead lane's and is adopted when the lane is gone.
 */
#include <errno.h>
#include <string.h>

#include "channel/channel.h"

/* Rings start this many rounds below the wrap of positions. */
#define RING_START_ROUNDS 2u

uint64_t ring_block_size(uint64_t units)
{
	return sizeof(struct ring_shm) + units * RECORD_UNIT + CHANNEL_ALIGNMENT - 16u;
}

/* Where the ring lies in its block: blocks are aligned to 16 bytes. */
static uint64_t ring_offset(uint64_t block)
{
	return round_up(block, CHANNEL_ALIGNMENT);
}

/* Checks a ref of the directory; this happens once for each ring and handle. */
static int ring_check(struct shale_channel *channel, uint64_t block, struct ring_shm **ret_ring)
{
	struct shale_segment *view = channel->view;
	uint64_t usable;

	if ((block & 15) != 0 || !view_in_heap(view, block, ring_block_size(channel->units)))
		return -EUCLEAN;
	if (heap_block_state(view, block, &usable) != HEAP_BLOCK_PUBLISHED)
		return -EUCLEAN;
	if (usable < ring_block_size(channel->units))
		return -EUCLEAN;
	*ret_ring = view_at(view, ring_offset(block));
	return 0;
}

int ring_at(struct shale_channel *channel, uint32_t index, struct ring_shm **ret_ring)
{
	struct ring_shm *ring;
	uint64_t block;

	/* pairs: channel.rings - the thread that stored it had seen the ring's first bytes. */
	ring = load_acquire(&channel->rings[index]);
	if (likely(ring != NULL)) {
		*ret_ring = ring;
		return 0;
	}
	/* pairs: channel.directory - the ring is complete. */
	block = load_acquire(&channel->directory[index]);
	if (block == 0)
		return -ENOENT;
	if (ring_check(channel, block, &ring) != 0)
		return view_damaged(channel->view);
	/* pairs: channel.rings - other threads of this process need not check it again. */
	store_release(&channel->rings[index], ring);
	*ret_ring = ring;
	return 0;
}

static uint64_t owner_of_lane(const struct lane *lane)
{
	/* relaxed: our own lane's word, which nobody changes while we live */
	return owner_make(lane->index, load_relaxed(&lane->shm->word));
}

/* Nobody sends to a ring with this owner word any more. */
static bool owner_is_gone(const struct shale_segment *view, uint64_t owner)
{
	uint64_t word;

	if (owner == 0 || owner_lane(owner) >= view_lane_high(view))
		return true;
	/* pairs: lane.word - the lane was settled, and all that it did came, before it was freed. */
	word = load_acquire(&view_lane(view, owner_lane(owner))->word);
	return !lane_word_active(word) || (word >> 32) != (owner >> 32);
}

/* The lane's own ring, if it has one already (through another handle). */
static int ring_find_own(struct shale_channel *channel, uint64_t own, struct ring_shm **ret_ring,
			 uint32_t *ret_index)
{
	int r;

	for (uint32_t i = 0; i < channel->max_senders; i++) {
		r = ring_at(channel, i, ret_ring);
		if (r != 0)
			return r;
		/* relaxed: our own word, stored by this lane */
		if (load_relaxed(&(*ret_ring)->owner) == own) {
			*ret_index = i;
			return 0;
		}
	}
	return -ENOENT;
}

/* Takes over a ring whose owner is gone, with the messages that are still in it. */
static int ring_adopt(struct shale_channel *channel, uint64_t own, struct ring_shm **ret_ring,
		      uint32_t *ret_index)
{
	uint64_t owner;
	int r;

	for (uint32_t i = 0; i < channel->max_senders; i++) {
		r = ring_at(channel, i, ret_ring);
		if (r != 0)
			return r;
		/* pairs: ring.owner - tail and head_seen are as the last owner left them. */
		owner = load_acquire(&(*ret_ring)->owner);
		if (!owner_is_gone(channel->view, owner))
			continue;
		/* pairs: ring.owner - the ring is ours from here on. */
		if (cas_acq_rel(&(*ret_ring)->owner, &owner, own)) {
			*ret_index = i;
			return 0;
		}
	}
	return -ENOENT;
}

static void ring_init(struct ring_shm *ring, uint64_t units, uint64_t own)
{
	uint64_t start = position_distance(units * RING_START_ROUNDS, 0);

	memset(ring, 0, sizeof(*ring));
	/* plain: nobody else knows the block yet */
	ring->owner = own;
	ring->tail = start;
	ring->head_seen = start;
	ring->head = head_make(start, false, 0);
}

/* Makes a ring and places it at the first free word of the directory. */
static int ring_make(struct shale_channel *channel, struct lane *lane, uint64_t own,
		     struct ring_shm **ret_ring, uint32_t *ret_index)
{
	struct shale_segment *view = channel->view;
	uint64_t block, place;
	int r;

	/* relaxed: a look before the allocation; placing it decides */
	if (load_relaxed(&channel->directory[channel->max_senders - 1]) != 0)
		return -EUSERS;
	r = heap_alloc_block(lane, ring_block_size(channel->units), &block);
	if (r < 0)
		return r;
	ring_init(view_at(view, ring_offset(block)), channel->units, own);
	for (uint32_t i = 0; i < channel->max_senders; i++) {
		/* relaxed: placing it decides */
		if (load_relaxed(&channel->directory[i]) != 0)
			continue;
		place = view_offset_of(view, &channel->directory[i]);
		/* pairs: channel.directory - the ring is complete before it can be found. */
		r = heap_publish_at(view, lane, block, 0, place, 0);
		if (r == -EAGAIN)
			continue; /* another sender was faster */
		if (r < 0)
			break;
		*ret_index = i;
		return ring_at(channel, i, ret_ring);
	}
	(void)heap_free_block(view, lane, block);
	return r < 0 && r != -EAGAIN ? r : -EUSERS;
}

static SHALE_COLD int ring_of_lane_slow(struct shale_channel *channel, struct lane *lane,
					struct ring_shm **ret_ring)
{
	uint64_t own = owner_of_lane(lane);
	uint32_t index = 0;
	int r;

	r = ring_find_own(channel, own, ret_ring, &index);
	for (unsigned round = 0; r == -ENOENT; round++) {
		r = ring_adopt(channel, own, ret_ring, &index);
		if (r == -ENOENT)
			r = ring_make(channel, lane, own, ret_ring, &index);
		if (r != -EUSERS || round > 0)
			break;
		/* All are taken: by the dead, perhaps. */
		if (recovery_run(channel->view) <= 0)
			break;
		r = -ENOENT;
	}
	if (r == 0)
		channel->lanes[lane->index & (LANE_COUNT - 1)].ring = (uint16_t)(index + 1);
	return r;
}

int ring_of_lane(struct shale_channel *channel, struct lane *lane, struct ring_shm **ret_ring)
{
	uint32_t known = channel->lanes[lane->index & (LANE_COUNT - 1)].ring;
	struct ring_shm *ring;

	if (likely(known != 0)) {
		/* relaxed: this lane stored it, or a thread that had the lane before us */
		ring = load_relaxed(&channel->rings[known - 1]);
		/* relaxed: our own word, stored by this lane */
		if (likely(ring != NULL && load_relaxed(&ring->owner) == owner_of_lane(lane))) {
			*ret_ring = ring;
			return 0;
		}
	}
	return ring_of_lane_slow(channel, lane, ret_ring);
}

/* One record at `position`: fills *ret and its kind. false: these bytes are no record. */
static bool record_parse(const struct shale_channel *channel, struct ring_shm *ring,
			 uint64_t position, uint64_t available, struct record *ret,
			 enum record_kind *ret_kind)
{
	uint64_t index = position & (channel->units - 1);
	unsigned char *bytes = ring_bytes(ring) + index * RECORD_UNIT;
	/* pairs: ring.head - read before the caller looks at head once more. */
	uint64_t word = load_acquire((uint64_t *)(void *)bytes);
	uint32_t kind = (uint32_t)(word >> 32), size = (uint32_t)word;
	uint64_t units = record_units(size);

	if (units > available || index + units > channel->units)
		return false;
	if (kind == RECORD_INLINE   ? size > channel->inline_limit
	    : kind == RECORD_BY_REF ? size != sizeof(struct reference_shm)
				    : kind != RECORD_PAD || index + units != channel->units)
		return false;
	ret->end = position_after(position, units);
	ret->payload = bytes + RECORD_HEADER;
	ret->size = size;
	ret->by_ref = kind == RECORD_BY_REF;
	*ret_kind = (enum record_kind)kind;
	return true;
}

int ring_record(const struct shale_channel *channel, struct ring_shm *ring, uint64_t position,
		uint64_t tail, struct record *ret_record)
{
	uint64_t available = position_distance(position, tail);
	struct record record = {.start = position};
	enum record_kind kind;

	if (available == 0)
		return 0;
	if (available > channel->units)
		return -EUCLEAN;
	if (!record_parse(channel, ring, position, available, &record, &kind))
		return -EUCLEAN;
	if (kind == RECORD_PAD) {
		/* A pad is sent in one store with the record behind it, which starts the ring. */
		available -= position_distance(position, record.end);
		if (!record_parse(channel, ring, record.end, available, &record, &kind) ||
		    kind == RECORD_PAD)
			return -EUCLEAN;
	}
	*ret_record = record;
	return 1;
}

/*
 * Beyond this many bytes records are copied by memcpy(), which is several times faster than single
 * words. The thread sanitizer would see a race there, between a receiver that is about to lose and
 * the owner that overwrites; there is one, and what was read is thrown away.
 */
#define WORDS_MOST 64u
_Static_assert(sizeof(struct reference_shm) <= WORDS_MOST, "a reference is loaded word by word");

#if defined(__SANITIZE_THREAD__)
#define COPY_BY_WORDS true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define COPY_BY_WORDS true
#endif
#endif
#ifndef COPY_BY_WORDS
#define COPY_BY_WORDS false
#endif

void ring_store(unsigned char *payload, const void *data, uint32_t size)
{
	uint64_t *words = (uint64_t *)(void *)payload;
	const unsigned char *bytes = data;
	uint32_t whole = size / 8, rest = size % 8;
	uint64_t word;

	if (!COPY_BY_WORDS && size > WORDS_MOST) {
		memcpy(payload, data, size); /* plain: behind the tail, only we write */
		return;
	}
	/* relaxed, all of them: the store of the tail publishes the record */
	for (uint32_t i = 0; i < whole; i++) {
		memcpy(&word, bytes + 8 * (size_t)i, 8);
		store_relaxed(&words[i], word);
	}
	if (rest > 0) {
		word = 0;
		memcpy(&word, bytes + 8 * (size_t)whole, rest);
		store_relaxed(&words[whole], word);
	}
}

void ring_load(void *buffer, const unsigned char *payload, uint32_t size)
{
	const uint64_t *words = (const uint64_t *)(const void *)payload;
	unsigned char *bytes = buffer;
	uint32_t whole = size / 8, rest = size % 8;
	uint64_t word;

	if (!COPY_BY_WORDS && size > WORDS_MOST) {
		memcpy(buffer, payload,
		       size); /* plain: a message, on which nothing of ours depends */
		return;
	}
	/* relaxed, all of them: the CAS of head says whether they were still the record's */
	for (uint32_t i = 0; i < whole; i++) {
		word = load_relaxed(&words[i]);
		memcpy(bytes + 8 * (size_t)i, &word, 8);
	}
	if (rest > 0) {
		word = load_relaxed(&words[whole]);
		memcpy(bytes + 8 * (size_t)whole, &word, rest);
	}
}
