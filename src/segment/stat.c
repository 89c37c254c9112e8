/*
 * stat.c - what a segment is and holds.
 *
 * Owner:     nobody; reads only, a snapshot that peers change meanwhile.
 * Invariant: nothing above a high-water mark is read.
 * Death:     writes nothing.
 */
#include "segment/internal.h"

#include <errno.h>
#include <string.h>

#include "segment/lanes.h"
#include "segment/recovery.h"

static void stat_header(const struct shale_segment *view, struct shale_segment_figures *stat)
{
	const struct header_shm *h = &view->header;

	memcpy(stat->id, h->id, sizeof(stat->id));
	memcpy(stat->label, h->label, sizeof(stat->label));
	memcpy(stat->pages_reason, h->pages_reason, sizeof(stat->pages_reason));
	memcpy(stat->nodes.bits, h->nodes, sizeof(stat->nodes.bits));
	stat->format_version = h->format_version;
	stat->read_only = view->read_only;
	stat->pages = (enum shale_pages)h->pages;
	stat->placement = (enum shale_placement)h->placement;
	stat->capacity_bytes = view->capacity_bytes;
	stat->budget_bytes = view_budget(view);
	stat->arenas = view->arena_count;
}

static void stat_peers(struct shale_segment *view, struct shale_segment_figures *stat)
{
	for (uint32_t peer = 1; peer < PEER_COUNT; peer++) {
		/* relaxed: a count for people */
		uint64_t word = load_relaxed(&view_peer(view, peer)->word);

		if ((word & PEER_STATE_MASK) == PEER_FREE)
			continue;
		stat->peers++;
		stat->peers_dead += peer_is_dead(view, peer) == 1;
	}
}

static void stat_lanes_and_roots(const struct shale_segment *view,
				 struct shale_segment_figures *stat)
{
	const uint64_t *roots = view_at(view, view->roots_offset);
	uint32_t high = view_lane_high(view);

	/* relaxed: counts for people */
	for (uint32_t lane = 1; lane < high; lane++)
		stat->lanes += lane_word_active(load_relaxed(&view_lane(view, lane)->word));
	for (uint32_t root = 0; root < ROOT_COUNT; root++)
		stat->roots += load_relaxed(&roots[root]) != 0;
}

int shale_segment_stat(struct shale_segment *segment, struct shale_segment_figures *ret_stat)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	int fd;

	if (ret_stat->size != sizeof(stat))
		return -EINVAL;
	stat_header(segment, &stat);
	stat_peers(segment, &stat);
	stat_lanes_and_roots(segment, &stat);
	stat.metadata_bytes = view_metadata_bytes(segment);
	stat.committed_bytes = stat.metadata_bytes;
	segment_stat_fill(segment, &stat);
	segment_stat_places(segment, &stat);
	fd = view_fd(segment);
	if (fd < 0 || os_backing_bytes(fd, &stat.backing_bytes) < 0)
		stat.backing_bytes = segment->private_memory ? stat.committed_bytes : 0;
	/* relaxed: a sticky mark */
	stat.damaged = load_relaxed(&segment->damaged) != 0;
	*ret_stat = stat;
	return 0;
}
