/*
 * geometry.c - the one place that knows how a segment is laid out (geometry.h).
 *
 *   0 header | 4K roots | 8K peers | 136K lanes | arena table | short facts | long facts | heap
 *   |<---- at fixed offsets, any page size ---->|<-- at multiples of min(page, 2 MiB) -->| at multiples
 *                                                                             of max(page, 2 MiB)
 *
 * Owner:     nobody; pure functions.
 * Invariant: parts do not overlap; no heap page holds metadata, so giving an arena back cannot
 *            touch it. With 1 GiB pages the tables share pages, which the sum of pages respects.
 * Death:     writes nothing.
 */
#include "segment/geometry.h"

#include <errno.h>
#include <stddef.h>

#include "base/bits.h"
#include "base/hash.h"
#include "segment/view.h"

static bool page_size_known(uint64_t page_size)
{
	return page_size == KIB(4) || page_size == MIB(2) || page_size == GIB(1);
}

int geometry_compute(uint64_t capacity_bytes, uint64_t page_size, struct geometry *ret_geometry)
{
	struct geometry g = {.page_size = page_size};
	uint64_t small, large;

	if (!page_size_known(page_size) || capacity_bytes == 0 || capacity_bytes > CAPACITY_MAX)
		return -EINVAL;
	small = page_size < ARENA_SIZE ? page_size : ARENA_SIZE;
	large = page_size > ARENA_SIZE ? page_size : ARENA_SIZE;
	g.capacity_bytes = round_up(capacity_bytes, large);
	g.arena_count = (uint32_t)(g.capacity_bytes >> ARENA_SHIFT);
	g.arena_table_offset = round_up(LANES_OFFSET + LANE_COUNT * sizeof(struct lane_shm), small);
	g.short_facts_offset =
		round_up(g.arena_table_offset + g.arena_count * ARENA_TABLE_STRIDE, small);
	g.long_facts_offset =
		round_up(g.short_facts_offset + g.arena_count * SHORT_FACTS_ARENA, small);
	g.heap_offset = round_up(g.long_facts_offset + g.arena_count * LONG_FACTS_ARENA, large);
	g.file_size = g.heap_offset + g.capacity_bytes;
	*ret_geometry = g;
	return 0;
}

#define MEMBER(type, member) \
	(uint32_t) offsetof(struct type, member), (uint32_t)sizeof(((struct type *)0)->member)

uint64_t geometry_layout_hash(void)
{
	static const uint32_t numbers[] = {
		sizeof(struct header_shm),
		MEMBER(header_shm, magic),
		MEMBER(header_shm, format_version),
		MEMBER(header_shm, features_compat),
		MEMBER(header_shm, layout_hash),
		MEMBER(header_shm, id),
		MEMBER(header_shm, file_size),
		MEMBER(header_shm, arena_count),
		MEMBER(header_shm, roots_offset),
		MEMBER(header_shm, hash_seed),
		MEMBER(header_shm, pages),
		MEMBER(header_shm, nodes),
		MEMBER(header_shm, label),
		MEMBER(header_shm, pages_reason),
		MEMBER(header_shm, checksum),
		HEADER_MUTABLE_OFFSET,
		sizeof(struct header_mutable_shm),
		MEMBER(header_mutable_shm, ready),
		MEMBER(header_mutable_shm, lane_high),
		MEMBER(header_mutable_shm, arena_high),
		MEMBER(header_mutable_shm, orphan_hint),
		MEMBER(header_mutable_shm, returned_bytes),
		MEMBER(header_mutable_shm, peer_event),
		MEMBER(header_mutable_shm, memory_event),
		MEMBER(header_mutable_shm, rank_top),
		sizeof(struct peer_shm),
		MEMBER(peer_shm, word),
		MEMBER(peer_shm, pid),
		MEMBER(peer_shm, flags),
		MEMBER(peer_shm, start_ticks),
		MEMBER(peer_shm, pid_ns),
		MEMBER(peer_shm, pidfs_ino),
		MEMBER(peer_shm, attached_ns),
		MEMBER(peer_shm, command),
		sizeof(struct lane_shm),
		MEMBER(lane_shm, word),
		MEMBER(lane_shm, thread_id),
		MEMBER(lane_shm, intent),
		MEMBER(lane_shm, hazards),
		MEMBER(lane_shm, retired),
		MEMBER(lane_shm, freeing),
		MEMBER(lane_shm, pins),
		sizeof(struct intent_shm),
		MEMBER(intent_shm, word),
		MEMBER(intent_shm, block),
		MEMBER(intent_shm, argument),
		PEER_COUNT,
		LANE_COUNT,
		ROOT_COUNT,
		SLABS_PER_ARENA,
		(uint32_t)ARENA_TABLE_STRIDE,
		(uint32_t)SHORT_FACTS_ARENA,
		(uint32_t)LONG_FACTS_ARENA,
	};

	return hash_bytes(numbers, sizeof(numbers), 0);
}

/* Adds the pages of [offset, offset + size) that lie at or above *end, and moves *end. */
static uint64_t pages_above(uint64_t offset, uint64_t size, uint64_t page_size, uint64_t *end)
{
	uint64_t from = round_down(offset, page_size);
	uint64_t to = round_up(offset + size, page_size);

	if (size == 0)
		return 0;
	if (from < *end)
		from = *end;
	if (to <= from)
		return 0;
	*end = to;
	return to - from;
}

uint64_t geometry_metadata_bytes(const struct geometry *geometry, uint32_t lane_high,
				 uint32_t arena_high)
{
	const struct geometry *g = geometry;
	uint64_t end = 0, bytes = 0, first = LANES_OFFSET + lane_high * sizeof(struct lane_shm);

	if (first < GEOMETRY_FIRST_BYTES)
		first = GEOMETRY_FIRST_BYTES;
	bytes += pages_above(0, first, g->page_size, &end);
	bytes += pages_above(g->arena_table_offset, arena_high * ARENA_TABLE_STRIDE, g->page_size,
			     &end);
	bytes += pages_above(g->short_facts_offset, arena_high * SHORT_FACTS_ARENA, g->page_size,
			     &end);
	return bytes;
}

uint64_t geometry_least_budget(const struct geometry *geometry)
{
	uint64_t page = geometry->page_size;
	uint64_t long_facts = LONG_FACTS_ARENA / SLABS_PER_ARENA;

	return geometry_metadata_bytes(geometry, 1, 1) + page +
	       (page > ARENA_SIZE ? page : ARENA_SIZE) + (page > long_facts ? page : long_facts);
}

struct geometry geometry_of_view(const struct shale_segment *view)
{
	return (struct geometry){
		.page_size = view->page_size,
		.capacity_bytes = view->capacity_bytes,
		.file_size = view->file_size,
		.arena_table_offset = view->arena_table_offset,
		.short_facts_offset = view->short_facts_offset,
		.long_facts_offset = view->long_facts_offset,
		.heap_offset = view->heap_offset,
		.arena_count = view->arena_count,
	};
}
