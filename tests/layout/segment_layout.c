/*
 * segment_layout.c - size and place of every field of a segment's structs, for format version 1.
 *
 * A failure here means: raise SEGMENT_FORMAT_VERSION, say so in the changelog, then change the table.
 *
 * Owner:     nobody.
 * Death:     nothing is written.
 */
#include <stddef.h>

#include "lib/harness.h"
#include "segment/segment_layout.h"

#define FIELD(type, field, offset, bytes)                            \
	do {                                                         \
		EXPECT_EQ(offsetof(struct type, field), offset);     \
		EXPECT_EQ(sizeof(((struct type *)0)->field), bytes); \
	} while (0)

TEST(segment_layout, header_shm)
{
	EXPECT_EQ(sizeof(struct header_shm), 488);
	FIELD(header_shm, magic, 0, 8);
	FIELD(header_shm, format_version, 8, 4);
	FIELD(header_shm, header_size, 12, 4);
	FIELD(header_shm, features_compat, 16, 8);
	FIELD(header_shm, features_ro_compat, 24, 8);
	FIELD(header_shm, features_incompat, 32, 8);
	FIELD(header_shm, layout_hash, 40, 8);
	FIELD(header_shm, id, 48, 16);
	FIELD(header_shm, file_size, 64, 8);
	FIELD(header_shm, page_size, 72, 8);
	FIELD(header_shm, capacity_bytes, 80, 8);
	FIELD(header_shm, budget_bytes, 88, 8);
	FIELD(header_shm, arena_count, 96, 4);
	FIELD(header_shm, peer_count, 100, 4);
	FIELD(header_shm, lane_count, 104, 4);
	FIELD(header_shm, root_count, 108, 4);
	FIELD(header_shm, roots_offset, 112, 8);
	FIELD(header_shm, peers_offset, 120, 8);
	FIELD(header_shm, lanes_offset, 128, 8);
	FIELD(header_shm, arena_table_offset, 136, 8);
	FIELD(header_shm, short_facts_offset, 144, 8);
	FIELD(header_shm, long_facts_offset, 152, 8);
	FIELD(header_shm, heap_offset, 160, 8);
	FIELD(header_shm, hash_seed, 168, 8);
	FIELD(header_shm, created_ns, 176, 8);
	FIELD(header_shm, pages, 184, 4);
	FIELD(header_shm, placement, 188, 4);
	FIELD(header_shm, nodes, 192, 128);
	FIELD(header_shm, label, 320, 32);
	FIELD(header_shm, pages_reason, 352, 128);
	FIELD(header_shm, checksum, 480, 8);
}

TEST(segment_layout, header_mutable_shm)
{
	EXPECT_EQ(sizeof(struct header_mutable_shm), 512);
	FIELD(header_mutable_shm, ready, 0, 4);
	FIELD(header_mutable_shm, reserved0, 4, 60);
	FIELD(header_mutable_shm, lane_high, 64, 4);
	FIELD(header_mutable_shm, arena_high, 68, 4);
	FIELD(header_mutable_shm, reserved1, 72, 56);
	FIELD(header_mutable_shm, orphan_hint, 132, 4);
	FIELD(header_mutable_shm, returned_bytes, 136, 8);
	FIELD(header_mutable_shm, reserved2, 144, 48);
	FIELD(header_mutable_shm, peer_event, 192, 8);
	FIELD(header_mutable_shm, reserved3, 200, 56);
	FIELD(header_mutable_shm, memory_event, 256, 8);
	FIELD(header_mutable_shm, keeper, 264, 4);
	FIELD(header_mutable_shm, giveback_ms, 268, 4);
	FIELD(header_mutable_shm, keeper_event, 272, 8);
	FIELD(header_mutable_shm, budget_bytes, 280, 8);
	FIELD(header_mutable_shm, wanted_ns, 288, 8);
	FIELD(header_mutable_shm, rank_top, 320, 64);
	FIELD(header_mutable_shm, node_top, 384, 64);
	FIELD(header_mutable_shm, purged_bytes, 448, 8);
	FIELD(header_mutable_shm, releases, 456, 8);
	FIELD(header_mutable_shm, debug_written, 488, 8);
	FIELD(header_mutable_shm, debug_overrun, 496, 8);
	FIELD(header_mutable_shm, debug_first, 504, 8);
}

TEST(segment_layout, peer_shm)
{
	EXPECT_EQ(sizeof(struct peer_shm), 128);
	FIELD(peer_shm, word, 0, 8);
	FIELD(peer_shm, pid, 8, 4);
	FIELD(peer_shm, flags, 12, 4);
	FIELD(peer_shm, start_ticks, 16, 8);
	FIELD(peer_shm, pid_ns, 24, 8);
	FIELD(peer_shm, pidfs_ino, 32, 8);
	FIELD(peer_shm, attached_ns, 40, 8);
	FIELD(peer_shm, command, 48, 16);
	FIELD(peer_shm, reserved, 64, 64);
}

TEST(segment_layout, intent_shm)
{
	EXPECT_EQ(sizeof(struct intent_shm), 64);
	FIELD(intent_shm, word, 0, 8);
	FIELD(intent_shm, block, 8, 16);
	FIELD(intent_shm, argument, 24, 40);
}

TEST(segment_layout, lane_shm)
{
	EXPECT_EQ(sizeof(struct lane_shm), 512);
	FIELD(lane_shm, word, 0, 8);
	FIELD(lane_shm, thread_id, 8, 4);
	FIELD(lane_shm, reserved0, 12, 4);
	FIELD(lane_shm, freeing, 16, 8);
	FIELD(lane_shm, reserved1, 24, 40);
	FIELD(lane_shm, intent, 64, 64);
	FIELD(lane_shm, hazards, 128, 64);
	FIELD(lane_shm, retired, 192, 256);
	FIELD(lane_shm, pins, 448, 64);
}

TEST(segment_layout, constants)
{
	EXPECT_EQ(SEGMENT_FORMAT_VERSION, 1);
	EXPECT_EQ(SEGMENT_MAGIC, UINT64_C(0x6d6765734c414853));
	EXPECT_EQ(HEADER_READY, 0x59444552);
	EXPECT_EQ(HEADER_MUTABLE_OFFSET, 1024);
	EXPECT_EQ(ROOTS_OFFSET, 4096);
	EXPECT_EQ(PEERS_OFFSET, 8192);
	EXPECT_EQ(LANES_OFFSET, 139264);
	EXPECT_EQ(PEER_COUNT, 1024);
	EXPECT_EQ(LANE_COUNT, 4096);
	EXPECT_EQ(ROOT_COUNT, 512);
	EXPECT_EQ(ARENA_TABLE_STRIDE, 2048);
	EXPECT_EQ(SHORT_FACTS_ARENA, 32768);
	EXPECT_EQ(LONG_FACTS_ARENA, 262144);
	EXPECT_EQ(LOCK_LIFE_BASE, UINT64_C(1) << 62);
	EXPECT_EQ(LOCK_RECOVER_BASE, (UINT64_C(1) << 62) + (1 << 20));
	EXPECT_EQ(LOCK_KEEPER, (UINT64_C(1) << 62) + (2 << 20));
}
