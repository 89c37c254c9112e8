/*
 * geometry.h - where the parts of a segment lie: a function of capacity and page size alone.
 *
 * Pure arithmetic, no state. Create lays a segment out with it; attach computes it again from the
 * header's capacity and page size and refuses a header that says anything else, so nothing that a
 * peer wrote decides an address.
 */
#ifndef SHALE_SEGMENT_GEOMETRY_H
#define SHALE_SEGMENT_GEOMETRY_H

#include <stdint.h>

#include "segment/segment_layout.h"

struct shale_segment;

struct geometry {
	uint64_t page_size;
	uint64_t capacity_bytes; /* a multiple of 2 MiB and of the page */
	uint64_t file_size;
	uint64_t arena_table_offset;
	uint64_t short_facts_offset;
	uint64_t long_facts_offset;
	uint64_t heap_offset; /* a multiple of 2 MiB and of the page */
	uint32_t arena_count;
};

/*
 * page_size: 4 KiB, 2 MiB or 1 GiB. capacity is rounded up to 2 MiB and to the page.
 * -EINVAL: another page size, capacity 0 or above 16 TiB.
 */
int geometry_compute(uint64_t capacity_bytes, uint64_t page_size, struct geometry *ret_geometry);

/* A number that changes when the size or place of any member of a _shm struct does. */
uint64_t geometry_layout_hash(void);

/* Bytes that create commits at once: header, roots, peers and the first lanes. */
#define GEOMETRY_FIRST_BYTES (LANES_OFFSET + 4096u)

/* Metadata pages in use with these high-water marks, long facts left out. */
uint64_t geometry_metadata_bytes(const struct geometry *geometry, uint32_t lane_high,
				 uint32_t arena_high);

/* A budget must at least hold the first pages, an arena, and the tables of that arena. */
uint64_t geometry_least_budget(const struct geometry *geometry);

/* The same numbers out of a view. */
struct geometry geometry_of_view(const struct shale_segment *view);

#endif
