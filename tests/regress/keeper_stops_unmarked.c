/*
 * A peer that takes away the mark of the event on which the keeper sleeps: stopping the keeper woke
 * nobody, and waited for ever.
 */
#include <unistd.h>

#include <shale/keeper.h>

#include "heaps.h"
#include "segment/view.h"

static bool sleeps(struct shale_segment *segment)
{
	struct shale_keeper_figures status = {.size = sizeof(status)};

	ASSERT_OK(shale_keeper_stat(segment, &status));
	return status.state == SHALE_KEEPER_ACTING && view_hints(segment)->keeper_event[1] != 0;
}

TEST_TIMEOUT(keeper_stops_unmarked, whatever_a_peer_writes, 10)
{
	struct shale_segment *segment = heap_segment(8u << 20, SHALE_PAGES_4K);
	struct shale_keeper_options options = {.size = sizeof(options), .decay_ms = 40};

	ASSERT_OK(shale_keeper_start(segment, &options));
	ASSERT_TRUE(TEST_EVENTUALLY(sleeps(segment), 5000));
	/* alone and with nothing to give back it sleeps for ever; sooner the test proves nothing */
	usleep(300000);
	store_relaxed(&view_hints(segment)->keeper_event[1], 0u);
	EXPECT_OK(shale_keeper_stop(segment));
	EXPECT_OK(shale_segment_detach(segment));
}
