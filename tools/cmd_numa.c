/*
 * cmd_numa.c - `shale numa`: on which nodes the memory of a segment really is.
 *
 * Owner:     one process, one thread.
 * Invariant: the segment is mapped read-only; the kernel is asked about pages that are there, and a
 *            hole stays one.
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

#include <shale/numa.h>

#define NODES 1024u

/* Neighbouring arenas of which everything is the same. */
struct group {
	uint64_t first, count;
	int32_t home, placed;
	enum shale_pages pages;
	uint64_t unknown_bytes; /* of one arena */
	unsigned node_count;
	uint64_t *node_bytes; /* of one arena */
};

struct numa_all {
	struct shale_segment_figures figures;
	char machine[256]; /* nodes with memory, as the kernel lists them; empty: it does not */
	uint64_t heap_bytes[NODES], table_bytes[NODES], unknown_bytes;
	unsigned node_count;
	struct group *groups;
	size_t group_count, group_room;
	bool short_of_memory;
};

/* ---- collecting ---- */

static bool same(const struct group *group, const struct shale_numa_part *part)
{
	return group->first + group->count == (uint64_t)part->arena && group->home == part->home &&
	       group->placed == part->placed && group->pages == part->pages &&
	       group->unknown_bytes == part->unknown_bytes &&
	       group->node_count == part->node_count &&
	       memcmp(group->node_bytes, part->node_bytes,
		      part->node_count * sizeof(*part->node_bytes)) == 0;
}

static bool more_room(struct numa_all *all)
{
	size_t room = all->group_room ? 2 * all->group_room : 64;
	struct group *more;

	if (all->group_count < all->group_room)
		return true;
	more = realloc(all->groups, room * sizeof(*more));
	if (!more)
		return false;
	all->groups = more;
	all->group_room = room;
	return true;
}

static void add_group(struct numa_all *all, const struct shale_numa_part *part)
{
	struct group *group = all->group_count ? &all->groups[all->group_count - 1] : NULL;
	size_t bytes = (part->node_count + 1) * sizeof(*part->node_bytes);
	uint64_t *copy;

	if (group && same(group, part)) {
		group->count++;
		return;
	}
	copy = calloc(1, bytes);
	if (!copy || !more_room(all)) {
		free(copy);
		all->short_of_memory = true;
		return;
	}
	memcpy(copy, part->node_bytes, part->node_count * sizeof(*copy));
	all->groups[all->group_count++] = (struct group){
		.first = (uint64_t)part->arena,
		.count = 1,
		.home = part->home,
		.placed = part->placed,
		.pages = part->pages,
		.unknown_bytes = part->unknown_bytes,
		.node_count = part->node_count,
		.node_bytes = copy,
	};
}

static void on_part(const struct shale_numa_part *part, void *context)
{
	struct numa_all *all = context;
	uint64_t *sum = part->arena < 0 ? all->table_bytes : all->heap_bytes;

	for (unsigned node = 0; node < part->node_count && node < NODES; node++)
		sum[node] += part->node_bytes[node];
	if (part->node_count > all->node_count)
		all->node_count = part->node_count < NODES ? part->node_count : NODES;
	all->unknown_bytes += part->unknown_bytes;
	if (part->arena >= 0)
		add_group(all, part);
}

static void read_machine(struct numa_all *all)
{
	FILE *file = fopen("/sys/devices/system/node/has_memory", "re");

	if (!file)
		return;
	if (!fgets(all->machine, sizeof(all->machine), file))
		all->machine[0] = '\0';
	all->machine[strcspn(all->machine, "\n")] = '\0';
	fclose(file);
}

static int collect(struct numa_all *all, const struct target *target)
{
	int r;

	read_machine(all);
	all->figures.size = sizeof(all->figures);
	r = shale_segment_stat(target->segment, &all->figures);
	if (r == 0)
		r = shale_numa_look(target->segment, on_part, all);
	return r < 0 ? r : 0;
}

/* ---- as JSON ---- */

static cJSON *bytes_json(const uint64_t *node_bytes, unsigned count)
{
	cJSON *array = cJSON_CreateArray();

	for (unsigned node = 0; node < count; node++) {
		cJSON *item;

		if (node_bytes[node] == 0)
			continue;
		item = cJSON_CreateObject();
		cJSON_AddNumberToObject(item, "node", node);
		cli_json_u64(item, "bytes", node_bytes[node]);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static void node_json(cJSON *object, const char *key, int32_t node)
{
	if (node < 0)
		cJSON_AddNullToObject(object, key);
	else
		cJSON_AddNumberToObject(object, key, node);
}

static cJSON *groups_json(const struct numa_all *all)
{
	cJSON *array = cJSON_CreateArray();

	for (size_t i = 0; i < all->group_count; i++) {
		const struct group *group = &all->groups[i];
		cJSON *item = cJSON_CreateObject();

		cli_json_u64(item, "first", group->first);
		cli_json_u64(item, "count", group->count);
		node_json(item, "home", group->home);
		node_json(item, "placed", group->placed);
		cli_json_text(item, "pages", cli_pages_name(group->pages));
		cJSON_AddItemToObject(item, "nodes",
				      bytes_json(group->node_bytes, group->node_count));
		cli_json_u64(item, "unknown_bytes", group->unknown_bytes);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static int print_json(const struct cli_arguments *arguments, const struct numa_all *all)
{
	cJSON *document = cJSON_CreateObject();

	cli_json_text(document, "target", arguments->operand);
	cli_json_text(document, "nodes_with_memory", all->machine);
	cli_json_text(document, "pages", cli_pages_name(all->figures.pages));
	cli_json_text(document, "placement", cli_placement_name(all->figures.placement));
	cli_json_u64(document, "arenas_committed", all->figures.arenas_committed);
	cli_json_u64(document, "arenas_elsewhere", all->figures.arenas_elsewhere);
	cli_json_u64(document, "arenas_small", all->figures.arenas_small);
	cJSON_AddItemToObject(document, "heap", bytes_json(all->heap_bytes, all->node_count));
	cJSON_AddItemToObject(document, "tables", bytes_json(all->table_bytes, all->node_count));
	cli_json_u64(document, "unknown_bytes", all->unknown_bytes);
	cJSON_AddItemToObject(document, "arenas", groups_json(all));
	return cli_print_json(arguments->command, document, CLI_GOOD);
}

/* ---- as text ---- */

static void print_machine(const struct numa_all *all)
{
	if (all->machine[0] == '\0')
		printf("%-12s no NUMA in this kernel: all memory is alike\n", "machine");
	else if (!strpbrk(all->machine, ",-"))
		printf("%-12s one NUMA node, %s: all memory is alike\n", "machine", all->machine);
	else
		printf("%-12s nodes with memory: %s\n", "machine", all->machine);
}

static void print_sums(const struct numa_all *all)
{
	char heap[32], tables[32];

	printf("%-12s %s, placement %s\n", "pages", cli_pages_name(all->figures.pages),
	       cli_placement_name(all->figures.placement));
	printf("%-12s %" PRIu32 " committed, %" PRIu32 " elsewhere than wanted", "arenas",
	       all->figures.arenas_committed, all->figures.arenas_elsewhere);
	if (all->figures.pages == SHALE_PAGES_THP)
		printf(", %" PRIu32 " without a huge page", all->figures.arenas_small);
	putchar('\n');
	for (unsigned node = 0; node < all->node_count; node++)
		if (all->heap_bytes[node] || all->table_bytes[node])
			printf("node %-7u %s of the heap, %s of the tables\n", node,
			       cli_bytes(all->heap_bytes[node], heap, sizeof(heap)),
			       cli_bytes(all->table_bytes[node], tables, sizeof(tables)));
	if (all->unknown_bytes)
		printf("%-12s %s\n", "not known",
		       cli_bytes(all->unknown_bytes, heap, sizeof(heap)));
}

static void print_node(int32_t node)
{
	if (node < 0)
		printf(" %6s", "-");
	else
		printf(" %6" PRId32, node);
}

static void print_group(const struct group *group)
{
	char text[48];

	if (group->count > 1)
		snprintf(text, sizeof(text), "%" PRIu64 "-%" PRIu64, group->first,
			 group->first + group->count - 1);
	else
		snprintf(text, sizeof(text), "%" PRIu64, group->first);
	printf("  %-15s", text);
	print_node(group->home);
	print_node(group->placed);
	printf("  %-7s", cli_pages_name(group->pages));
	for (unsigned node = 0; node < group->node_count; node++)
		if (group->node_bytes[node])
			printf(" node %u: %s", node,
			       cli_bytes(group->node_bytes[node], text, sizeof(text)));
	if (group->unknown_bytes)
		printf(" not known: %s", cli_bytes(group->unknown_bytes, text, sizeof(text)));
	putchar('\n');
}

static void print_text(const struct numa_all *all)
{
	print_machine(all);
	print_sums(all);
	if (all->group_count)
		printf("\n  %-15s %6s %6s  %-7s %s\n", "arenas", "home", "placed", "pages",
		       "in memory, each");
	for (size_t i = 0; i < all->group_count; i++)
		print_group(&all->groups[i]);
	if (all->short_of_memory)
		puts("  (not all: no memory for the list)");
}

static int explain(const struct cli_arguments *arguments, int error)
{
	if (error == -EOPNOTSUPP)
		return cli_error(arguments->command,
				 "build with libnuma, on a kernel with NUMA that allows "
				 "move_pages; with one node all memory is on it",
				 "%s: nobody here can tell where pages are", arguments->operand);
	return cli_error(arguments->command, "see what is wrong with: shale check", "%s: %s",
			 arguments->operand, strerror(-error));
}

int cmd_numa(const struct cli_arguments *arguments)
{
	struct target target = {0};
	struct numa_all *all;
	int r, code;

	if (target_attach(arguments->command, arguments->operand, false, &target))
		return CLI_NO_ANSWER;
	all = calloc(1, sizeof(*all));
	r = all ? collect(all, &target) : -ENOMEM;
	target_detach(&target);
	if (r < 0) {
		code = explain(arguments, r);
	} else if (arguments->json) {
		code = print_json(arguments, all);
	} else {
		print_text(all);
		code = cli_flush(arguments->command, CLI_GOOD);
	}
	for (size_t i = 0; all && i < all->group_count; i++)
		free(all->groups[i].node_bytes);
	free(all ? all->groups : NULL);
	free(all);
	return code;
}
