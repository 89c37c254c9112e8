/*
 * cmd_heap.c - `shale heap`: the live blocks by size, and in a debug segment by who allocated them.
 *
 * Owner:     one process, one thread.
 * Invariant: the segment is mapped read-only; peers that work meanwhile change the counts, never more.
 * Ordering, lifetime: none of its own.
 * Death:     see target.h.
 */
#include "cli.h"
#include "target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shale/debug.h>

enum { SIZES_MAX = 128, OWNERS_SHOWN = 20 };

struct owner {
	uint32_t peer;
	uint32_t lane;
	uint32_t thread;
	uint64_t blocks;
	uint64_t requested;
	uint64_t guarded;
};

struct heap_all {
	struct shale_debug_figures debug;
	struct shale_size_row sizes[SIZES_MAX];
	unsigned size_count;
	struct owner *owners;
	unsigned owner_count;
	unsigned owner_room;
	unsigned last; /* the owner of the block before: neighbours mostly have the same */
};

static bool owner_is(const struct owner *owner, const struct shale_block *block)
{
	return owner->peer == block->peer && owner->lane == block->lane &&
	       owner->thread == block->thread;
}

/* NULL: no memory; the rows by size still count the block. */
static struct owner *owner_of(struct heap_all *all, const struct shale_block *block)
{
	if (all->last < all->owner_count && owner_is(&all->owners[all->last], block))
		return &all->owners[all->last];
	for (all->last = 0; all->last < all->owner_count; all->last++)
		if (owner_is(&all->owners[all->last], block))
			return &all->owners[all->last];
	if (all->owner_count == all->owner_room) {
		unsigned room = all->owner_room ? 2 * all->owner_room : 64;
		struct owner *more = realloc(all->owners, room * sizeof(*more));

		if (!more)
			return NULL;
		all->owners = more;
		all->owner_room = room;
	}
	all->owners[all->owner_count] =
		(struct owner){.peer = block->peer, .lane = block->lane, .thread = block->thread};
	return &all->owners[all->owner_count++];
}

static void on_block(const struct shale_block *block, void *context)
{
	struct owner *owner = block->lane ? owner_of(context, block) : NULL;

	if (!owner)
		return;
	owner->blocks++;
	owner->requested += block->requested_bytes;
	owner->guarded += block->guarded;
}

static int larger_first(const void *a, const void *b)
{
	const struct owner *one = a, *other = b;

	return one->requested < other->requested ? 1 : -(one->requested > other->requested);
}

static int collect(struct heap_all *all, struct shale_segment *segment)
{
	int64_t blocks;
	int r;

	all->debug.size = sizeof(all->debug);
	r = shale_debug_stat(segment, &all->debug);
	if (r < 0)
		return r;
	r = shale_debug_sizes(segment, all->sizes, SIZES_MAX);
	if (r < 0)
		return r;
	all->size_count = r < SIZES_MAX ? (unsigned)r : SIZES_MAX;
	blocks = shale_debug_walk(segment, on_block, all);
	if (blocks < 0)
		return (int)blocks;
	if (all->owner_count)
		qsort(all->owners, all->owner_count, sizeof(*all->owners), larger_first);
	return 0;
}

static cJSON *debug_json(const struct shale_debug_figures *debug)
{
	cJSON *object = cJSON_CreateObject();

	cJSON_AddBoolToObject(object, "guard", debug->flags & SHALE_DEBUG_GUARD);
	cJSON_AddBoolToObject(object, "poison", debug->flags & SHALE_DEBUG_POISON);
	cJSON_AddBoolToObject(object, "owner", debug->flags & SHALE_DEBUG_OWNER);
	cli_json_u64(object, "guard_sample", debug->guard_sample);
	cli_json_u64(object, "writes_after_free", debug->writes_after_free);
	cli_json_u64(object, "writes_behind_end", debug->writes_behind_end);
	cli_json_u64(object, "first", debug->first.off);
	return object;
}

static cJSON *sizes_json(const struct heap_all *all)
{
	cJSON *array = cJSON_CreateArray();

	for (unsigned i = 0; i < all->size_count; i++) {
		const struct shale_size_row *row = &all->sizes[i];
		cJSON *item;

		if (!row->blocks)
			continue;
		item = cJSON_CreateObject();
		cli_json_u64(item, "block_bytes", row->block_bytes);
		cli_json_u64(item, "blocks", row->blocks);
		cli_json_u64(item, "usable_bytes", row->usable_bytes);
		cli_json_u64(item, "requested_bytes", row->requested_bytes);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static cJSON *owners_json(const struct heap_all *all)
{
	cJSON *array = cJSON_CreateArray();

	for (unsigned i = 0; i < all->owner_count; i++) {
		cJSON *item = cJSON_CreateObject();

		cli_json_u64(item, "peer", all->owners[i].peer);
		cli_json_u64(item, "lane", all->owners[i].lane);
		cli_json_u64(item, "thread", all->owners[i].thread);
		cli_json_u64(item, "blocks", all->owners[i].blocks);
		cli_json_u64(item, "requested_bytes", all->owners[i].requested);
		cli_json_u64(item, "guarded", all->owners[i].guarded);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static int print_json(const struct cli_arguments *arguments, const struct heap_all *all)
{
	cJSON *document = cJSON_CreateObject();

	cli_json_text(document, "target", arguments->operand);
	cJSON_AddItemToObject(document, "debug", debug_json(&all->debug));
	cJSON_AddItemToObject(document, "sizes", sizes_json(all));
	cJSON_AddItemToObject(document, "owners", owners_json(all));
	return cli_print_json(arguments->command, document, CLI_GOOD);
}

static void print_debug(const struct shale_debug_figures *debug)
{
	if (!debug->flags) {
		puts("debug        no: sizes asked for and owners are not kept");
		return;
	}
	printf("%-12s%s%s%s\n", "debug", debug->flags & SHALE_DEBUG_GUARD ? " guard" : "",
	       debug->flags & SHALE_DEBUG_POISON ? " poison" : "",
	       debug->flags & SHALE_DEBUG_OWNER ? " owner" : "");
	printf("%-12s %" PRIu64 " after free, %" PRIu64 " behind the end", "bad writes",
	       debug->writes_after_free, debug->writes_behind_end);
	if (debug->first.off)
		printf(", the first to the block at 0x%" PRIx64, debug->first.off);
	putchar('\n');
}

static void print_sizes(const struct heap_all *all)
{
	printf("\n%12s %10s %14s %14s %7s\n", "block bytes", "blocks", "usable", "asked for",
	       "unused");
	for (unsigned i = 0; i < all->size_count; i++) {
		const struct shale_size_row *row = &all->sizes[i];
		char name[24] = "larger";

		if (!row->blocks)
			continue;
		if (row->block_bytes)
			snprintf(name, sizeof(name), "%" PRIu64, row->block_bytes);
		printf("%12s %10" PRIu64 " %14" PRIu64 " %14" PRIu64 " %5.1f %%\n", name,
		       row->blocks, row->usable_bytes, row->requested_bytes,
		       100.0 * (double)(row->usable_bytes - row->requested_bytes) /
			       (double)row->usable_bytes);
	}
}

static void print_owners(const struct heap_all *all)
{
	if (!all->owner_count)
		return;
	printf("\n%6s %6s %10s %10s %14s %8s\n", "peer", "lane", "thread", "blocks", "asked for",
	       "guarded");
	for (unsigned i = 0; i < all->owner_count && i < OWNERS_SHOWN; i++)
		printf("%6" PRIu32 " %6" PRIu32 " %10" PRIu32 " %10" PRIu64 " %14" PRIu64
		       " %8" PRIu64 "\n",
		       all->owners[i].peer, all->owners[i].lane, all->owners[i].thread,
		       all->owners[i].blocks, all->owners[i].requested, all->owners[i].guarded);
	if (all->owner_count > OWNERS_SHOWN)
		printf("  and %u more: --json lists all\n", all->owner_count - OWNERS_SHOWN);
}

int cmd_heap(const struct cli_arguments *arguments)
{
	static struct heap_all all;
	struct target target = {0};
	int r, code;

	if (target_attach(arguments->command, arguments->operand, false, &target))
		return CLI_NO_ANSWER;
	r = collect(&all, target.segment);
	target_detach(&target);
	if (r < 0) {
		code = cli_error(arguments->command, "see what is wrong with: shale check",
				 "%s: %s", arguments->operand, strerror(-r));
	} else if (arguments->json) {
		code = print_json(arguments, &all);
	} else {
		print_debug(&all.debug);
		print_sizes(&all);
		print_owners(&all);
		code = cli_flush(arguments->command, CLI_GOOD);
	}
	free(all.owners);
	return code;
}
