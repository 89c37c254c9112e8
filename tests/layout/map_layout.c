/* Every field of the map's structs in a segment is where format version 1 has it. */
#include <stddef.h>

#include "harness.h"
#include "map/map_layout.h"

TEST(map_layout, structs_are_those_of_format_1)
{
	EXPECT_EQ(SEGMENT_FORMAT_VERSION, 1);
	EXPECT_EQ(sizeof(struct map_shm), 128);
	EXPECT_EQ(offsetof(struct map_shm, kind), 64);
	EXPECT_EQ(offsetof(struct map_shm, bucket_bits), 68);
	EXPECT_EQ(offsetof(struct map_shm, table), 72);
	EXPECT_EQ(offsetof(struct map_shm, next_table), 80);
	EXPECT_EQ(sizeof(struct bucket_shm), 64);
	EXPECT_EQ(offsetof(struct bucket_shm, gate), 0);
	EXPECT_EQ(offsetof(struct bucket_shm, slot), 8);
	EXPECT_EQ(sizeof(struct record_shm), 48);
	EXPECT_EQ(offsetof(struct record_shm, incarnation), 0);
	EXPECT_EQ(offsetof(struct record_shm, hash), 8);
	EXPECT_EQ(offsetof(struct record_shm, state), 16);
	EXPECT_EQ(offsetof(struct record_shm, cell), 24);
	EXPECT_EQ(offsetof(struct record_shm, key_size), 32);
	EXPECT_EQ(offsetof(struct record_shm, expiry), 36);
	EXPECT_EQ(offsetof(struct record_shm, value_size), 40);
	EXPECT_EQ(MAP_BYTES, 1);
	EXPECT_EQ(INTENT_MAP_PUT, 16);
	EXPECT_EQ(INTENT_MAP_LINK, 17);
	EXPECT_EQ(INTENT_MAP_DELETE, 18);
}

/* Packing is the inverse of unpacking, up to the largest value of each field. */
TEST(map_layout, words_hold_their_fields)
{
	uint64_t ref = (UINT64_C(1) << 45) - 16;
	uint64_t gate = gate_pending(GATE_VERSION_MAX << GATE_VERSION_SHIFT, LANE_COUNT - 1,
				     GATE_LINK, CHAIN_MAX * BUCKET_SLOTS - 1);
	uint64_t word = slot_with_ref(slot_of_hash(UINT64_MAX, 30), ref);

	EXPECT_EQ(gate_version(gate), GATE_VERSION_MAX);
	EXPECT_EQ(gate_lane(gate), LANE_COUNT - 1);
	EXPECT_EQ(gate_op(gate), GATE_LINK);
	EXPECT_EQ(gate_position(gate), CHAIN_MAX * BUCKET_SLOTS - 1);
	EXPECT_TRUE(gate_is_open(gate));
	EXPECT_EQ(
		gate_idle_after(gate_pending(UINT64_C(7) << GATE_VERSION_SHIFT, 9, GATE_INSERT, 3)),
		UINT64_C(8) << GATE_VERSION_SHIFT);
	EXPECT_EQ(slot_ref(word), ref);
	EXPECT_EQ(slot_kind(word), SLOT_RECORD);
	EXPECT_TRUE(slot_is_sane(word));
	EXPECT_EQ(slot_ref(slot_with_ref(word, 4096)), 4096);
	EXPECT_EQ(slot_with_ref(slot_with_ref(word, 4096), ref), word);
	EXPECT_EQ(slot_kind(slot_empty(GATE_VERSION_MAX)), SLOT_EMPTY);
	EXPECT_TRUE(slot_is_sane(slot_empty(GATE_VERSION_MAX)));
	EXPECT_EQ(gate_version(slot_empty(GATE_VERSION_MAX)), GATE_VERSION_MAX);
	EXPECT_EQ(slot_kind(slot_link(ref)), SLOT_LINK);
	EXPECT_EQ(slot_ref(slot_link(ref)), ref);
	EXPECT_EQ(state_next(state_replaced(ref)), ref);
	EXPECT_EQ(state_of(state_replaced(ref)), RECORD_REPLACED);
	EXPECT_EQ(state_of(state_dead(4095, UINT64_MAX)), RECORD_DEAD);
	EXPECT_NE(state_dead(1, 2), state_dead(2, 1));
	EXPECT_EQ(state_of(state_live_after(state_live(41))), RECORD_LIVE);
	EXPECT_EQ(state_live_after(state_live(41)), state_live(42));
}
