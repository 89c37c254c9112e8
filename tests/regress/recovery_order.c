/*
 * Two processes are dead; the one with the lower slot had retired a record that the other was looking
 * at. One recovery settles both: it went over the slots once, and the first could not be settled yet.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "map/map.h"
#include "maps.h"
#include "segment/lanes.h"

/* The record of the only key of a map with one bucket. */
static uint64_t only_record(struct shale_segment *segment, struct shale_map *map)
{
	struct chain chain = chain_start(segment, bucket_at(segment, map_bucket_ref(map, 0)));
	uint64_t *slot, word;

	while (chain_next(&chain, &slot, &word) > 0)
		if (slot_kind(word) == SLOT_RECORD)
			return slot_ref(word);
	return 0;
}

TEST(recovery_order, one_pass_is_not_enough)
{
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	struct shale_map *map = map_named(segment, "m", 1);
	struct lane *lane;
	uint64_t ref, live;
	int ready[2], go[2];
	pid_t first, second;
	char byte = 0;

	ASSERT_EQ(put_u64(map, 1, 1), 0);
	live = heap_counts(segment).live_bytes;
	ref = only_record(segment, map);
	ASSERT_SYS(pipe(ready));
	ASSERT_SYS(pipe(go));
	first = test_fork();
	ASSERT_SYS(first);
	if (first == 0) {
		ASSERT_OK(lane_enter(segment, &lane));
		ASSERT_EQ(write(ready[1], &byte, 1), 1);
		ASSERT_EQ(read(go[0], &byte, 1), 1);
		ASSERT_EQ(put_u64(map, 1, 2), 1);
		(void)raise(SIGKILL);
	}
	ASSERT_EQ(read(ready[0], &byte, 1), 1);
	second = test_fork();
	ASSERT_SYS(second);
	if (second == 0) {
		ASSERT_OK(lane_enter(segment, &lane));
		lane->shm->hazards[MAP_HAZARD_FIND] = ref;
		ASSERT_EQ(write(go[1], &byte, 1), 1);
		(void)raise(SIGKILL);
	}
	ASSERT_EQ(waitpid(first, NULL, 0), first);
	ASSERT_EQ(waitpid(second, NULL, 0), second);
	EXPECT_EQ(shale_recover(segment), 2);
	EXPECT_EQ(heap_counts(segment).live_bytes, live);
	heap_expect_clean(segment);
	shale_map_close(map);
	EXPECT_OK(shale_segment_detach(segment));
}
