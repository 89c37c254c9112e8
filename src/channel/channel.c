/*
 * channel.c - opening and closing a channel, waiting on it, ending it, and counting what is in it.
 *
 * Owner:     the handle is the process's; the root record belongs to nobody and is never freed.
 * Invariant: C1 of channel_layout.h; every number that decides an address is in the handle.
 * Progress:  open is lock-free but for the allocation; shutdown is wait-free; depth walks rings.
 * Ordering:  the root's ref is stored after the record is complete (root_open()).
 *            channel.flags: what was sent before the shutdown is seen by who sees the flag.
 *            event.announce: the flag is set before the waiters' marks are looked at.
 * Lifetime:  the handle until shale_channel_close(); it must not outlive its view.
 * Death:     a maker killed before the root is placed leaves nothing; one killed in shutdown leaves
 *            the flag set, and sleepers see it after their slice.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "channel/channel.h"

/* Nobody sleeps longer than this without looking again: for whom a killed peer did not wake. */
#define CHANNEL_SLICE_NS UINT64_C(100000000)

DEFINE_CLEANUP(struct shale_channel *, shale_channel_close)

/* Where the channel's words lie in its record: records are aligned to 16 bytes. */
static uint64_t channel_offset(uint64_t record)
{
	return round_up(record + sizeof(struct root_shm), CHANNEL_ALIGNMENT);
}

static uint64_t channel_record_size(uint32_t max_senders)
{
	return sizeof(struct root_shm) + CHANNEL_ALIGNMENT - 16u + sizeof(struct channel_shm) +
	       sizeof(uint64_t) * (uint64_t)max_senders;
}

static int options_read(const struct shale_channel_options *options,
			struct shale_channel_options *ret)
{
	struct shale_channel_options own = {.size = sizeof(own)};

	if (options != NULL) {
		if (options->size != sizeof(own))
			return -EINVAL;
		own = *options;
	}
	if (own.capacity_bytes == 0)
		own.capacity_bytes = UINT64_C(1) << CHANNEL_SHIFT_DEFAULT;
	if (own.max_senders == 0)
		own.max_senders = 64;
	if (own.capacity_bytes < UINT64_C(1) << CHANNEL_SHIFT_LEAST ||
	    own.capacity_bytes > UINT64_C(1) << CHANNEL_SHIFT_MOST ||
	    own.max_senders > CHANNEL_SENDERS_MOST ||
	    (own.flags & ~(SHALE_CHANNEL_MUST_EXIST | SHALE_CHANNEL_MUST_MAKE)) != 0 ||
	    own.flags == (SHALE_CHANNEL_MUST_EXIST | SHALE_CHANNEL_MUST_MAKE))
		return -EINVAL;
	*ret = own;
	return 0;
}

/* root_init: nobody else knows the record yet. */
static int channel_init(struct shale_segment *view, struct lane *lane, struct root_shm *record,
			uint64_t *ret_companion, void *context)
{
	const struct shale_channel_options *options = context;
	struct channel_shm *shm = view_at(view, channel_offset(view_offset_of(view, record)));
	unsigned shift = log2_floor(options->capacity_bytes);

	(void)lane;
	if (!is_power_of_two(options->capacity_bytes))
		shift++;
	memset(shm, 0, sizeof(*shm) + sizeof(uint64_t) * (size_t)options->max_senders);
	shm->magic = CHANNEL_MAGIC;
	shm->capacity_shift = shift;
	shm->max_senders = options->max_senders;
	*ret_companion = 0;
	return 0;
}

int channel_map_record(struct shale_segment *view, uint64_t offset, struct shale_channel *channel)
{
	const struct root_shm *record = heap_at(view, offset, channel_record_size(1));
	struct channel_shm *shm;
	uint32_t shift, senders;
	uint64_t size;

	if (record == NULL || (offset & 15) != 0)
		return -EUCLEAN;
	/* relaxed, all of them: written before the record could be found; each is loaded once */
	size = load_relaxed(&record->size);
	shm = view_at(view, channel_offset(offset));
	shift = load_relaxed(&shm->capacity_shift);
	senders = load_relaxed(&shm->max_senders);
	if (load_relaxed(&shm->magic) != CHANNEL_MAGIC || shift < CHANNEL_SHIFT_LEAST ||
	    shift > CHANNEL_SHIFT_MOST || senders < 1 || senders > CHANNEL_SENDERS_MOST)
		return -EUCLEAN;
	if (size < channel_record_size(senders) || heap_at(view, offset, size) == NULL)
		return -EUCLEAN;
	channel->view = view;
	channel->shm = shm;
	channel->directory = (uint64_t *)(void *)(shm + 1);
	channel->offset = offset;
	channel->units = (UINT64_C(1) << shift) / RECORD_UNIT;
	channel->max_senders = senders;
	channel->inline_limit = (1u << shift) / 8;
	if (channel->inline_limit > CHANNEL_INLINE_MOST)
		channel->inline_limit = CHANNEL_INLINE_MOST;
	return 0;
}

SHALE_API int shale_channel_open(struct shale_segment *segment, const char *name,
				 const struct shale_channel_options *options,
				 struct shale_channel **ret_channel)
{
	_cleanup_(shale_channel_closep) struct shale_channel *channel = NULL;
	struct shale_channel_options own;
	struct lane *lane;
	uint64_t offset;
	bool made = false;
	int r;

	if (segment == NULL || name == NULL || ret_channel == NULL)
		return -EINVAL;
	r = options_read(options, &own);
	if (r < 0)
		return r;
	r = lane_enter(segment, &lane);
	if (r < 0)
		return r;
	channel = calloc(1, sizeof(*channel));
	if (channel == NULL)
		return -ENOMEM;
	r = root_open(segment, lane, name, ROOT_CHANNEL, channel_record_size(own.max_senders),
		      (own.flags & SHALE_CHANNEL_MUST_EXIST) ? NULL : channel_init, &own, &offset,
		      &made);
	if (r < 0)
		return r;
	if (!made && (own.flags & SHALE_CHANNEL_MUST_MAKE))
		return -EEXIST;
	r = channel_map_record(segment, offset, channel);
	if (r < 0)
		return view_damaged(segment);
	channel->rings = calloc(channel->max_senders, sizeof(struct ring_shm *));
	if (channel->rings == NULL)
		return -ENOMEM;
	*ret_channel = TAKE_PTR(channel);
	return 0;
}

SHALE_API void shale_channel_close(struct shale_channel *channel)
{
	if (channel == NULL)
		return;
	free(channel->rings);
	free(channel);
}

bool channel_is_shut_down(const struct shale_channel *channel)
{
	/* pairs: channel.flags - what was sent before the shutdown is visible to who sees it. */
	return (load_acquire(&channel->shm->flags) & CHANNEL_SHUTDOWN) != 0;
}

int channel_wait(struct shale_channel *channel, struct shale_event *event, uint32_t ticket,
		 uint64_t deadline)
{
	uint64_t now = os_clock_ns(), slice = now + CHANNEL_SLICE_NS;
	int r;

	/* before the wait: a peer that wakes all the time must not keep us beyond the deadline */
	if (now >= deadline)
		return -ETIMEDOUT;
	if (deadline <= slice)
		return shale_event_wait(event, ticket, deadline);
	r = shale_event_wait(event, ticket, slice);
	if (r != -ETIMEDOUT)
		return r;
	(void)recovery_run(channel->view);
	return 0;
}

SHALE_API int shale_channel_shutdown(struct shale_channel *channel)
{
	struct ring_shm *ring;
	struct lane *lane;
	int r;

	if (channel == NULL)
		return -EINVAL;
	r = lane_enter(channel->view, &lane);
	if (r < 0)
		return r;
	/* pairs: channel.flags - our sends are before it. */
	(void)fetch_or_seq_cst(&channel->shm->flags, CHANNEL_SHUTDOWN);
	(void)event_wake(&channel->shm->data);
	for (uint32_t i = 0; i < channel->max_senders; i++) {
		r = ring_at(channel, i, &ring);
		if (r == -ENOENT)
			break;
		if (r == 0)
			(void)event_wake(&ring->room);
	}
	return 0;
}

/* Messages between head and tail: of one instant if the head did not move during the walk. */
static int64_t depth_of(struct shale_channel *channel, struct ring_shm *ring)
{
	struct record record;
	uint64_t head, tail, position;
	int64_t count;
	int r;

	for (unsigned tries = 0;; tries++) {
		/* pairs: ring.head - a head this new comes with the tail that was there before it. */
		head = load_acquire(&ring->head);
		/* pairs: ring.tail - the records before it are complete. */
		tail = load_acquire(&ring->tail) & POSITION_MASK;
		position = head_position(head);
		/* Ends: each record is at least one of at most `units` units long. */
		for (count = 0; (r = ring_record(channel, ring, position, tail, &record)) > 0;
		     count++)
			position = record.end;
		/* acquire: the next round reads the tail again */
		if (load_acquire(&ring->head) == head)
			return r < 0 ? view_damaged(channel->view) : count;
		if (tries == 16)
			return r < 0 ? 0 : count; /* receivers are busy: an older figure */
	}
}

SHALE_API int64_t shale_channel_depth(struct shale_channel *channel)
{
	struct ring_shm *ring;
	int64_t sum = 0, one;
	int r;

	if (channel == NULL)
		return -EINVAL;
	for (uint32_t i = 0; i < channel->max_senders; i++) {
		r = ring_at(channel, i, &ring);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
		one = depth_of(channel, ring);
		if (one < 0)
			return one;
		sum += one;
	}
	return sum;
}
