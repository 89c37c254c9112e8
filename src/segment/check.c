/*
 * check.c - does the segment keep its invariants? The segment layer's own part, and shale_check().
 *
 *   S1 the header is what it was when we attached      S2 the segment is ready
 *   S3 the high-water marks lie within the tables      S4 a peer word is FREE, ACTIVE or DEAD
 *   S5 a lane word is FREE or ACTIVE                   S6 an ACTIVE lane names a peer in use
 *   S7 a FREE lane has no intent, no hazard and no retired ref
 *
 * Owner:     nobody; reads only, may run while peers work: what a step leaves for an instant is
 *            looked at again before it is reported.
 * Death:     writes nothing.
 */
#include "segment/internal.h"

#include <string.h>

#include "segment/lanes.h"
#include "segment/recovery.h"

void check_report(struct check_context *check, const char *invariant, uint64_t offset,
		  const char *text)
{
	struct shale_finding finding = {invariant, offset, text};

	check->findings++;
	if (check->callback)
		check->callback(&finding, check->context);
}

static void check_header(struct check_context *check)
{
	struct shale_segment *view = check->view;
	struct header_mutable_shm *hints = view_hints(view);

	if (memcmp(view->base, &view->header, sizeof(view->header)) != 0)
		check_report(check, "S1", 0, "the header has changed since attach");
	/* pairs: header.ready - nothing rides on it here. */
	if (load_acquire(&hints->ready) != HEADER_READY)
		check_report(check, "S2", HEADER_MUTABLE_OFFSET, "the ready word is gone");
	/* relaxed: compared, not used */
	if (load_relaxed(&hints->lane_high) < 1 || load_relaxed(&hints->lane_high) > LANE_COUNT)
		check_report(check, "S3", HEADER_MUTABLE_OFFSET, "lane_high is out of range");
	if (load_relaxed(&hints->arena_high) > view->arena_count)
		check_report(check, "S3", HEADER_MUTABLE_OFFSET, "arena_high is out of range");
}

static uint64_t offset_in(const struct shale_segment *view, const void *at)
{
	return view_offset_of(view, at);
}

static void check_peers(struct check_context *check)
{
	for (uint32_t peer = 1; peer < PEER_COUNT; peer++) {
		struct peer_shm *slot = view_peer(check->view, peer);
		/* relaxed: one word, judged by itself */
		uint64_t word = load_relaxed(&slot->word);

		if ((word & (PEER_GENERATION - 1)) > PEER_DEAD)
			check_report(check, "S4", offset_in(check->view, slot),
				     "a peer word that no transition makes");
	}
}

static bool lane_is_clean(const struct lane_shm *slot)
{
	/* relaxed: the caller looks at the state word again */
	uint64_t any = load_relaxed(&slot->intent.word);

	for (unsigned i = 0; i < ARRAY_SIZE(slot->intent.block); i++)
		any |= load_relaxed(&slot->intent.block[i]);
	for (unsigned i = 0; i < LANE_HAZARDS; i++)
		any |= load_relaxed(&slot->hazards[i]);
	for (unsigned i = 0; i < LANE_RETIRED; i++)
		any |= load_relaxed(&slot->retired[i]);
	any |= load_relaxed(&slot->freeing);
	for (unsigned i = 0; i < LANE_PINS; i++)
		any |= load_relaxed(&slot->pins[i]);
	return any == 0;
}

static void check_lane(struct check_context *check, uint32_t lane)
{
	struct shale_segment *view = check->view;
	struct lane_shm *slot = view_lane(view, lane);
	const char *invariant = NULL, *text = NULL;
	/* pairs: lane.word - a FREE slot was cleaned before. */
	uint64_t word = load_acquire(&slot->word);
	uint64_t peer_word;

	if ((word & LANE_STATE_MASK) > LANE_ACTIVE) {
		invariant = "S5";
		text = "a lane word that no transition makes";
	} else if (lane_word_active(word)) {
		/* pairs: peer.word - a peer is freed after its lanes. */
		peer_word = load_acquire(&view_peer(view, lane_word_peer(word))->word);
		if (lane_word_peer(word) == 0 || (peer_word & PEER_STATE_MASK) == PEER_FREE) {
			invariant = "S6";
			text = "an active lane of a peer that is not there";
		}
	} else if (!lane_is_clean(slot)) {
		invariant = "S7";
		text = "a free lane that still names blocks";
	}
	/* pairs: lane.word - it has not changed hands while we looked. */
	if (invariant && load_acquire(&slot->word) == word)
		check_report(check, invariant, offset_in(view, slot), text);
}

void segment_check(struct check_context *check)
{
	uint32_t high = view_lane_high(check->view);

	check_header(check);
	check_peers(check);
	for (uint32_t lane = 1; lane < high; lane++)
		check_lane(check, lane);
}

int shale_check(struct shale_segment *segment, shale_check_callback callback, void *context)
{
	struct check_context check = {segment, callback, context, 0};

	for (const struct check_step *step = check_steps; step->name; step++)
		step->run(&check);
	return check.findings;
}
