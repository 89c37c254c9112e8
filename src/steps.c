/*
 * steps.c - the one file that sees all layers: what each adds to recovery, checking and statistics.
 *
 * The segment layer declares these tables (segment/recovery.h) and walks them; a layer above adds a
 * row here. Order of recovery: a free that had begun, then
 * hand-overs (they decide which blocks live on), slabs last.
 *
 * Owner: nobody; constant tables.
 * Death: the steps say it themselves.
 */
#include <stddef.h>

#include "channel/channel.h"
#include "heap/debug.h"
#include "heap/heap_check.h"
#include "heap/heap_recovery.h"
#include "heap/placement.h"
#include "heap/sparse.h"
#include "map/map.h"
#include "segment/lanes.h"
#include "segment/recovery.h"

const struct recovery_step recovery_steps[] = {
	{"heap frees", heap_settle_free},
	{"map", map_settle_lane},
	{"channel", channel_settle_lane},
	{"heap intents", heap_settle_intent},
	{"heap leases", sparse_settle_lane},
	{"heap slabs", heap_settle_slabs},
	{NULL, NULL},
};

const struct check_step check_steps[] = {
	{"segment", segment_check},
	{"heap", heap_check},
	{"roots", roots_check},
	{"map", map_check},
	{"channel", channel_check},
	{"debug", debug_check},
	{NULL, NULL},
};

void segment_stat_fill(struct shale_segment *view, struct shale_segment_figures *stat)
{
	heap_fill_segment_stat(view, stat);
}

void segment_stat_places(struct shale_segment *view, struct shale_segment_figures *stat)
{
	placement_fill_stat(view, stat);
}

void lane_finish(struct lane *lane)
{
	heap_lane_finish(lane);
}
