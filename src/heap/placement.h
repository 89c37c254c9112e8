/*
 * placement.h - where arenas were put and of which pages they are; collapse, moving and looking.
 * docs/design/numa.md has the words: home, placed, elsewhere.
 */
#ifndef SHALE_HEAP_PLACEMENT_H
#define SHALE_HEAP_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include <shale/numa.h>

#include "segment/lanes.h"
#include "segment/view.h"

/*
 * Commits the memory of an arena whose state is COMMITTING by the caller, for lanes on the node
 * `home` (1 + node, 0: any), and records what came of it. As view_commit_arena().
 */
int placement_commit(struct shale_segment *view, uint64_t arena, uint8_t home);

/* Sets arenas_on_node, arenas_elsewhere and arenas_small. */
void placement_fill_stat(struct shale_segment *view, struct shale_segment_figures *stat);

/* All pages of the arena are on the node now. */
void placement_moved(struct shale_segment *view, uint64_t arena, unsigned node);
/* Sets home, placed and pages. */
void placement_show(struct shale_segment *view, uint64_t arena, struct shale_numa_part *part);

/*
 * Makes a huge page of an arena of a THP segment that is mostly used, has none and misses no page;
 * true if so. Cheap when it is not such an arena.
 */
bool placement_collapse(struct lane *lane, uint64_t arena);

#endif
