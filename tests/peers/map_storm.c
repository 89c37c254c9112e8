/* Processes race on few keys, some are killed, some stopped, some only read: every value stays whole. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "maps.h"
#include "peers.h"

enum { READY = 1, GO = 2 };
enum { KEYS = 6, VALUE_MAX = 600 };

struct storm {
	struct shale_segment *segment;
	struct shale_map *map;
};

static struct storm storm_join(struct peer *parent, bool read_only)
{
	struct shale_attach_options options = {.size = sizeof(options), .read_only = read_only};
	struct storm storm = {0};
	int fd = peer_receive_fd(parent, PEER_LIMIT_MS);

	ASSERT_OK(fd);
	ASSERT_OK(shale_segment_attach(fd, &options, &storm.segment));
	close(fd);
	ASSERT_OK(shale_map_open(storm.segment, "m", NULL, &storm.map));
	return storm;
}

static void storm_leave(struct storm *storm)
{
	shale_map_close(storm->map);
	EXPECT_OK(shale_segment_detach(storm->segment));
}

/* One random change of one of the keys; the value shows which key it belongs to. */
static void storm_write(struct shale_map *map)
{
	unsigned char value[VALUE_MAX];
	uint64_t key = test_random_below(KEYS);
	uint64_t number = test_random_u64() / KEYS * KEYS - KEYS + key;
	size_t size = self_fill(value, number, VALUE_MAX);
	int r;

	switch (test_random_below(4)) {
	case 0:
		r = delete_u64(map, key);
		EXPECT_TRUE(r == 0 || r == -ENOENT);
		break;
	case 1:
		r = shale_map_insert(map, &key, sizeof(key), value, size);
		EXPECT_TRUE(r == 0 || r == -EEXIST);
		break;
	default:
		EXPECT_OK(shale_map_put(map, &key, sizeof(key), value, size));
	}
}

static void storm_read(struct shale_map *map)
{
	unsigned char value[VALUE_MAX];
	uint64_t key = test_random_below(KEYS), number;
	size_t size = 0;
	int r = shale_map_get(map, &key, sizeof(key), value, sizeof(value), &size);

	if (r == -ENOENT)
		return;
	ASSERT_OK(r);
	ASSERT_TRUE(self_holds(value, size, VALUE_MAX));
	memcpy(&number, value, sizeof(number));
	ASSERT_EQ(number % KEYS, key);
}

static void storm_scan(struct shale_map *map)
{
	unsigned char value[VALUE_MAX];
	unsigned seen[KEYS + 1] = {0};
	struct shale_map_cursor cursor;
	size_t key_size, size;
	uint64_t key;
	int r;

	shale_map_cursor_init(&cursor);
	while ((r = shale_map_cursor_next(map, &cursor, &key, sizeof(key), &key_size, value,
					  sizeof(value), &size)) == 1) {
		ASSERT_LE(key, KEYS);
		ASSERT_EQ(seen[key]++, 0);
		ASSERT_TRUE(self_holds(value, size, VALUE_MAX));
	}
	EXPECT_EQ(r, 0);
	EXPECT_EQ(seen[KEYS], 1); /* the key that nobody touches */
	EXPECT_LE(shale_map_count(map), KEYS + 1);
}

PEER_ROLE(writer)
{
	struct storm storm = storm_join(parent, false);
	unsigned rounds = (unsigned)TEST_ROUNDS(20000, 400000);

	for (const char *c = argument; *c; c++)
		for (char i = 0; i < *c; i++)
			(void)test_random_u64(); /* writers differ */
	ASSERT_OK(peer_meet(parent, READY, PEER_LIMIT_MS));
	for (unsigned i = 0; i < rounds; i++) {
		storm_write(storm.map);
		if (i % 4 == 0)
			storm_read(storm.map);
	}
	storm_leave(&storm);
}

PEER_ROLE(endless)
{
	struct storm storm = storm_join(parent, false);

	for (const char *c = argument; *c; c++)
		for (char i = 0; i < *c; i++)
			(void)test_random_u64();
	ASSERT_OK(peer_meet(parent, READY, PEER_LIMIT_MS));
	for (;;)
		storm_write(storm.map);
}

PEER_ROLE(reader)
{
	struct storm storm = storm_join(parent, true);
	unsigned rounds = (unsigned)TEST_ROUNDS(20000, 400000);

	ASSERT_OK(peer_meet(parent, READY, PEER_LIMIT_MS));
	for (unsigned i = 0; i < rounds; i++) {
		storm_read(storm.map);
		if (i % 50 == 0)
			storm_scan(storm.map);
	}
	storm_leave(&storm);
}

static struct storm storm_make(uint64_t expected)
{
	struct storm storm = {.segment = heap_segment(32u << 20, SHALE_PAGES_4K)};
	unsigned char value[VALUE_MAX];
	uint64_t key = KEYS;

	storm.map = map_named(storm.segment, "m", expected);
	ASSERT_EQ(
		shale_map_put(storm.map, &key, sizeof(key), value, self_fill(value, 7, VALUE_MAX)),
		0);
	return storm;
}

static void storm_start(struct storm *storm, struct peer *peer, const char *role, const char *name)
{
	ASSERT_OK(peer_exec(peer, role, name));
	ASSERT_OK(peer_send_fd(peer, shale_segment_fd(storm->segment)));
}

/* Recovers until nobody dead is left: one may hold what another one has retired. */
static void storm_recover(struct storm *storm)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	while (shale_recover(storm->segment) > 0)
		;
	ASSERT_OK(shale_segment_stat(storm->segment, &stat));
	EXPECT_EQ(stat.peers_dead, 0);
}

/*
 * Nothing is left over: with every key deleted, and everybody gone who might hold something, the
 * heap has the root, the table and at most one child bucket.
 */
static void storm_expect_exact(struct storm *storm)
{
	int fd = dup(shale_segment_fd(storm->segment));
	struct shale_segment *view = NULL;
	struct shale_heap_figures stat;

	heap_expect_clean(storm->segment);
	for (uint64_t key = 0; key <= KEYS; key++) {
		int r = delete_u64(storm->map, key);

		EXPECT_TRUE(r == 0 || r == -ENOENT);
	}
	EXPECT_EQ(shale_map_count(storm->map), 0);
	storm_leave(storm);
	ASSERT_OK(shale_segment_attach(fd, NULL, &view));
	heap_expect_clean(view);
	stat = heap_counts(view);
	EXPECT_GE(stat.live_blocks, 2);
	EXPECT_LE(stat.live_blocks, 3);
	EXPECT_EQ(stat.live_bytes, 128 + 64 * (stat.live_blocks - 1));
	EXPECT_OK(shale_segment_detach(view));
	close(fd);
}

TEST_TIMEOUT(map_storm, writers_and_a_reader_without_rights, 100)
{
	struct storm storm = storm_make(1);
	struct peer peers[4];

	storm_start(&storm, &peers[0], "writer", "a");
	storm_start(&storm, &peers[1], "writer", "b");
	storm_start(&storm, &peers[2], "writer", "c");
	storm_start(&storm, &peers[3], "reader", "d");
	ASSERT_OK(peer_meet_all(peers, 4, READY, PEER_LIMIT_MS));
	for (unsigned i = 0; i < 4; i++)
		peer_join(&peers[i], 90000);
	storm_expect_exact(&storm);
}

/* Two writers at a time, one of them killed again and again at a moment of chance. */
TEST_TIMEOUT(map_storm, killed_writers_leave_nothing_behind, 100)
{
	struct storm storm = storm_make(1);
	unsigned deaths = (unsigned)TEST_ROUNDS(25, 400);

	for (unsigned i = 0; i < deaths; i++) {
		char name[2] = {(char)('A' + i % 50), '\0'};
		struct peer peers[2];

		storm_start(&storm, &peers[0], "endless", name);
		storm_start(&storm, &peers[1], "endless", "z");
		ASSERT_OK(peer_meet_all(peers, 2, READY, PEER_LIMIT_MS));
		test_sleep_ms((unsigned)test_random_below(20));
		peer_kill(&peers[0]);
		for (unsigned j = 0; j < 100; j++) {
			storm_write(storm.map);
			storm_read(storm.map);
		}
		EXPECT_OK(shale_recover(storm.segment));
		peer_kill(&peers[1]);
		storm_recover(&storm);
		heap_expect_clean(storm.segment);
	}
	storm_expect_exact(&storm);
}

/* Many writers stand still in the middle of whatever they do: the others neither wait nor run out. */
TEST_TIMEOUT(map_storm, stopped_writers_delay_nobody, 100)
{
	enum { STOPPED = 12 };
	struct storm storm = storm_make(1);
	struct peer peers[STOPPED];

	for (unsigned i = 0; i < STOPPED; i++) {
		char name[2] = {(char)('A' + i), '\0'};

		storm_start(&storm, &peers[i], "endless", name);
	}
	ASSERT_OK(peer_meet_all(peers, STOPPED, READY, PEER_LIMIT_MS));
	for (unsigned i = 0; i < STOPPED; i++) {
		test_sleep_ms(5);
		ASSERT_OK(peer_stop(&peers[i]));
	}
	for (unsigned i = 0; i < 50000; i++) {
		storm_write(storm.map);
		storm_read(storm.map);
	}
	/* they keep no more than what they name */
	EXPECT_LE(heap_counts(storm.segment).live_blocks, 20u + STOPPED * 40u);
	for (unsigned i = 0; i < STOPPED; i++)
		peer_kill(&peers[i]);
	storm_recover(&storm);
	storm_write(storm.map);
	EXPECT_EQ(put_u64(storm.map, 99, 1), 0);
	EXPECT_EQ(delete_u64(storm.map, 99), 0);
	storm_expect_exact(&storm);
}
