/* With every root taken, a name that is asked for and not there is -ENOENT, not -ENOSPC. */
#include <shale/channel.h>

#include "maps.h"

TEST(root_table, a_name_that_is_not_there)
{
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	struct shale_map_options exist = {.size = sizeof(exist), .flags = SHALE_MAP_MUST_EXIST};
	struct shale_channel_options there = {.size = sizeof(there),
					      .flags = SHALE_CHANNEL_MUST_EXIST};
	struct shale_channel *channel = NULL;
	struct shale_map *map = NULL;
	char name[16];
	int r = 0;

	for (int i = 0; r == 0; i++) {
		(void)snprintf(name, sizeof(name), "root %d", i);
		r = shale_root_publish(segment, name, shale_alloc(segment, 16));
	}
	EXPECT_EQ(r, -ENOSPC);
	EXPECT_EQ(shale_map_open(segment, "m", &exist, &map), -ENOENT);
	EXPECT_EQ(shale_channel_open(segment, "c", &there, &channel), -ENOENT);
	EXPECT_EQ(shale_map_open(segment, "m", NULL, &map), -ENOSPC);
	EXPECT_OK(shale_segment_detach(segment));
}
