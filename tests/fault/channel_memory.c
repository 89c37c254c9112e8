/*
 * channel_memory.c - a channel when memory cannot be committed: an error, and nothing left behind.
 */
#include <errno.h>
#include <stdlib.h>

#include <shale/channel.h>
#include <shale/heap.h>
#include <shale/segment.h>

#include "harness.h"
#include "os/os.h"

#define LARGE (3u << 20) /* more than the arenas that are there */

static uint64_t live_bytes(struct shale_segment *segment)
{
	struct shale_heap_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_heap_stat(segment, &stat));
	return stat.live_bytes;
}

TEST(channel_fault, a_send_whose_memory_is_refused_sends_nothing)
{
	struct shale_segment_options options = {
		.size = sizeof(options),
		.capacity_bytes = 64u << 20,
		.pages = SHALE_PAGES_4K,
	};
	struct shale_segment *segment;
	struct shale_channel *channel;
	void *message = calloc(1, LARGE);
	uint64_t before;
	unsigned nth;
	size_t size;
	int r = -ENOMEM;

	ASSERT_OK(shale_segment_create(&options, &segment));
	ASSERT_OK(shale_channel_open(segment, "c", NULL, &channel));
	ASSERT_OK(shale_channel_send(channel, "x", 1, SHALE_NO_WAIT));
	before = live_bytes(segment);
	for (nth = 1; nth < 100 && r == -ENOMEM; nth++) {
		os_fault_arm(OS_CALL_FALLOCATE, nth, ENOSPC);
		r = shale_channel_send(channel, message, LARGE, SHALE_NO_WAIT);
		os_fault_disarm();
		if (r != 0) {
			EXPECT_EQ(r, -ENOMEM);
			EXPECT_EQ(live_bytes(segment), before);
			EXPECT_EQ(shale_channel_depth(channel), 1);
			EXPECT_EQ(shale_check(segment, NULL, NULL), 0);
		}
	}
	EXPECT_OK(r);
	EXPECT_GT(nth, 2); /* at least one was refused */
	EXPECT_OK(shale_channel_receive(channel, message, LARGE, &size, SHALE_NO_WAIT));
	EXPECT_OK(shale_channel_receive(channel, message, LARGE, &size, SHALE_NO_WAIT));
	EXPECT_EQ(size, LARGE);
	EXPECT_EQ(live_bytes(segment), before);
	shale_channel_close(channel);
	EXPECT_OK(shale_segment_detach(segment));
	free(message);
}
