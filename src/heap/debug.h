/*
 * debug.h - the debug aids inside the library: trailers, poison, guarded blocks.
 *
 * docs/design/debug.md has the bytes and why. Nothing here runs for a segment without flags: each
 * caller has looked at view->debug, on a path that is cold for the others.
 */
#ifndef SHALE_HEAP_DEBUG_H
#define SHALE_HEAP_DEBUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <shale/debug.h>

#include "heap/block.h"
#include "segment/lanes.h"
#include "segment/recovery.h"
#include "segment/view.h"

#define DEBUG_PAGE      4096u
#define DEBUG_FREED     0xdf
#define DEBUG_ALLOCATED 0xab

/* The last bytes of each block, and the beginning of a guarded block's card. */
struct debug_trailer {
	uint32_t magic;
	uint32_t check; /* hash of what follows */
	uint64_t self;  /* offset of the block */
	uint64_t size;  /* asked for */
	uint32_t thread;
	uint16_t lane;
	uint16_t peer;
};
_Static_assert(sizeof(struct debug_trailer) == 32, "docs/design/debug.md");

enum debug_magic {
	DEBUG_LIVE = 0x6576694c,
	DEBUG_DYING = 0x6e697944, /* a free has begun to fill it */
	DEBUG_DEAD = 0x64616544,
	DEBUG_CARD = 0x64726143
};

enum guard_state { GUARD_LIVE = 1, GUARD_FREED = 2 };

struct debug_card {
	struct debug_trailer block; /* self: 8192 .. 12287 bytes into the slab */
	uint64_t peer_key;          /* of the process that has the guards */
	uint32_t pages;             /* between the guards */
	uint32_t state;             /* enum guard_state, by CAS */
};

/* debug.c: in the place of the heap's own. `sample`: the block may be a guarded one. */
int debug_alloc(struct lane *lane, size_t size, size_t alignment, bool sample,
		uint64_t *ret_offset);
int debug_free(struct shale_segment *view, struct lane *lane, uint64_t offset);
void *debug_resize(struct shale_segment *segment, void *ptr, size_t size);
uint64_t debug_usable(struct shale_segment *view, uint64_t offset);

/* arena.c: the slab is CLAIMED and about to be OWNED. */
void debug_slab_taken(const struct shale_segment *view, uint64_t slab, uint64_t word);

/* The trailer of a block of so many usable bytes, copied; false: it is none of that block. */
bool debug_read(const struct shale_segment *view, uint64_t offset, uint64_t usable,
		struct debug_trailer *ret_trailer);
struct debug_trailer debug_describe(const struct lane *lane, uint64_t offset, uint64_t size);
bool debug_bytes_are(const unsigned char *bytes, uint64_t size, int value, bool holes);
/* Are the bytes behind the size asked for untouched? */
bool debug_slack_whole(const struct shale_segment *view, const struct debug_trailer *trailer,
		       uint64_t usable);
void debug_found(struct shale_segment *view, uint64_t *counter, uint64_t offset);

/* debug_guard.c */
bool guard_wanted(struct shale_segment *view, size_t size, size_t alignment);
int guard_alloc(struct lane *lane, size_t size, uint64_t *ret_offset);
/* Stands for this process as a peer. */
uint64_t guard_peer_key(const struct shale_segment *view);
/* Frees what others have freed of this process's guarded blocks; how many. */
unsigned guard_reap(struct lane *lane);
/* The card of the guarded block that begins at offset, an address inside the span at `slab`. */
bool guard_read(struct shale_segment *view, uint64_t slab, uint64_t offset,
		struct debug_card *ret_card);
bool guard_read_slab(struct shale_segment *view, uint64_t slab, struct debug_card *ret_card);
int guard_free(struct shale_segment *view, struct lane *lane, const struct block_place *place,
	       uint64_t offset);
/* Recovery: guarded blocks that were freed while their dead process had the guards. */
void guard_settle(struct shale_segment *view, uint32_t dead_lane);

/* debug_report.c: a check step, D1 to D3. */
void debug_check(struct check_context *check);

#endif
