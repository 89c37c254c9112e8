/*
 * A process killed with a published block in hand: recovery frees the block, and its slab with it. It
 * did not: the settled intent still named the block, so the sweep left the slab to whoever would adopt
 * it, and its arena could not be given back.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap/heap.h"
#include "heap/slab.h"
#include "map/map.h"
#include "maps.h"
#include "segment/lanes.h"

static void die(void)
{
	(void)raise(SIGKILL);
}

/* As heap_publish_at() up to the CAS that places the ref. */
static void die_publishing(struct shale_segment *segment)
{
	struct intent_shm *intent;
	struct lane *lane;
	uint64_t block;

	ASSERT_OK(lane_enter(segment, &lane));
	ASSERT_OK(heap_alloc_block(lane, 64, &block));
	intent = &lane->shm->intent;
	intent->block[0] = block;
	intent->argument[0] = segment->roots_offset;
	intent->argument[1] = 1;
	intent_set(lane, INTENT_PUBLISH_AT);
	ASSERT_EQ(heap_publish_block(segment, lane, block), 1);
	die();
}

/* As a put of a new key up to the gate. */
static void die_putting(struct shale_segment *segment)
{
	struct shale_map *map = map_named(segment, "m", 1);
	struct map_key key = map_key_make(map, "key", 3);
	struct lane *lane;
	uint64_t block;

	ASSERT_OK(lane_enter(segment, &lane));
	ASSERT_OK(heap_alloc_block(lane, record_bytes(3, 0), &block));
	record_fill(record_at(segment, block), 1, &key, NULL, 0);
	lane->shm->intent.block[0] = block;
	lane->shm->intent.argument[MAP_BUCKET] = map_bucket_ref(map, 0);
	intent_set(lane, (enum intent_kind)INTENT_MAP_PUT);
	ASSERT_EQ(heap_publish_block(segment, lane, block), 1);
	die();
}

static unsigned orphans(struct shale_segment *segment)
{
	uint64_t slabs = (uint64_t)view_arena_high(segment) * SLABS_PER_ARENA;
	unsigned count = 0;

	for (uint64_t slab = 0; slab < slabs; slab++)
		count += slab_word_state(*slab_word(segment, slab)) == SLAB_ORPHAN;
	return count;
}

static void expect_nothing_left(void (*body)(struct shale_segment *segment))
{
	struct shale_segment *segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	uint64_t live;
	pid_t pid;

	shale_map_close(map_named(segment, "m", 1));
	live = heap_counts(segment).live_bytes;
	pid = test_fork();
	ASSERT_SYS(pid);
	if (pid == 0) {
		body(segment);
		_exit(1);
	}
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
	EXPECT_EQ(shale_recover(segment), 1);
	EXPECT_EQ(heap_counts(segment).live_bytes, live);
	EXPECT_EQ(orphans(segment), 0);
	heap_expect_clean(segment);
	EXPECT_OK(shale_segment_detach(segment));
}

TEST(recovery_names, publish_at)
{
	expect_nothing_left(die_publishing);
}

TEST(recovery_names, map_put)
{
	expect_nothing_left(die_putting);
}
