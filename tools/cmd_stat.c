/*
 * cmd_stat.c - `shale stat`: a segment, its heap, its peers and its roots.
 *
 * Owner:     one process, one thread.
 * Invariant: the segment is mapped read-only; a peer that comes or goes meanwhile changes the list,
 *            never more.
 * Ordering, lifetime: none of its own.
 * Death:     see target.h.
 */
#include "cli.h"
#include "residence.h"
#include "target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <shale/heap.h>

struct stat_root {
	char name[64];
	uint32_t kind;
	uint64_t ref;
	uint64_t size;
};

/* All that is printed, collected before the first byte of output. */
struct stat_all {
	struct shale_segment_figures segment;
	struct shale_heap_figures heap;
	struct residence residence;
	struct shale_peer *peers;
	unsigned peer_count;
	struct stat_root *roots;
	unsigned root_count;
	unsigned root_room;
};

static const char *root_name(uint32_t kind)
{
	static const char *const names[] = {"unknown", "user", "map", "channel"};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}

static bool node_asked(const struct shale_nodes *nodes, unsigned node)
{
	return nodes->bits[node / 64] >> (node % 64) & 1;
}

static void on_root(const struct shale_root *root, void *context)
{
	struct stat_all *all = context;
	struct stat_root *item;

	if (all->root_count == all->root_room) {
		unsigned room = all->root_room ? 2 * all->root_room : 16;
		struct stat_root *more = realloc(all->roots, room * sizeof(*more));

		if (!more)
			return; /* the segment's own count, printed beside the list, tells */
		all->roots = more;
		all->root_room = room;
	}
	item = &all->roots[all->root_count++];
	cli_clean(root->name, item->name, sizeof(item->name));
	item->kind = root->kind;
	item->ref = root->ref.off;
	item->size = root->size;
}

/* Peers may come while we look: ask with some room to spare, and show what fits. */
static int collect_peers(struct stat_all *all, struct shale_segment *segment)
{
	unsigned room = all->segment.peers + 16;
	int r;

	all->peers = calloc(room, sizeof(*all->peers));
	if (!all->peers)
		return -ENOMEM;
	r = shale_segment_peers(segment, all->peers, room);
	if (r < 0)
		return r;
	all->peer_count = (unsigned)r < room ? (unsigned)r : room;
	return 0;
}

static void collect_residence(struct stat_all *all, const struct target *target)
{
	struct stat status;

	if (fstat(shale_segment_fd(target->segment), &status) < 0)
		return;
	if (target->pid)
		residence_look(&all->residence, target->pid, status.st_dev, status.st_ino);
	for (unsigned i = 0; i < all->peer_count; i++) {
		if (!all->peers[i].dead)
			residence_look(&all->residence, (int)all->peers[i].pid, status.st_dev,
				       status.st_ino);
	}
}

static int collect(struct stat_all *all, const struct target *target)
{
	int r;

	all->segment.size = sizeof(all->segment);
	all->heap.size = sizeof(all->heap);
	r = shale_segment_stat(target->segment, &all->segment);
	if (r < 0)
		return r;
	r = shale_heap_stat(target->segment, &all->heap);
	if (r < 0)
		return r;
	r = collect_peers(all, target->segment);
	if (r < 0)
		return r;
	r = shale_root_list(target->segment, on_root, all);
	if (r < 0)
		return r;
	collect_residence(all, target);
	return 0;
}

static void id_text(const uint8_t id[16], char text[33])
{
	for (unsigned i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", id[i]);
}

static cJSON *nodes_json(const struct shale_nodes *nodes)
{
	cJSON *array = cJSON_CreateArray();

	for (unsigned node = 0; node < 1024; node++) {
		if (node_asked(nodes, node))
			cJSON_AddItemToArray(array, cJSON_CreateNumber(node));
	}
	return array;
}

static cJSON *residence_json(const struct residence *residence)
{
	cJSON *array = cJSON_CreateArray();

	for (unsigned node = 0; node < RESIDENCE_NODES; node++) {
		cJSON *item;

		if (!residence->bytes[node])
			continue;
		item = cJSON_CreateObject();
		cJSON_AddNumberToObject(item, "node", node);
		cli_json_u64(item, "mapped_bytes", residence->bytes[node]);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static cJSON *arenas_json(const struct shale_segment_figures *stat)
{
	const unsigned count = sizeof(stat->arenas_on_node) / sizeof(stat->arenas_on_node[0]);
	cJSON *array = cJSON_CreateArray();

	for (unsigned node = 0; node < count; node++) {
		cJSON *item;

		if (!stat->arenas_on_node[node])
			continue;
		item = cJSON_CreateObject();
		cJSON_AddNumberToObject(item, "node", node);
		cli_json_u64(item, "arenas", stat->arenas_on_node[node]);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static cJSON *segment_json(const struct stat_all *all)
{
	const struct shale_segment_figures *stat = &all->segment;
	cJSON *object = cJSON_CreateObject();
	char id[33];

	id_text(stat->id, id);
	cli_json_text(object, "id", id);
	cli_json_text(object, "label", stat->label);
	cli_json_u64(object, "format_version", stat->format_version);
	cli_json_text(object, "pages", cli_pages_name(stat->pages));
	cli_json_text(object, "pages_reason", stat->pages_reason);
	cli_json_text(object, "placement", cli_placement_name(stat->placement));
	cJSON_AddItemToObject(object, "nodes_asked", nodes_json(&stat->nodes));
	cJSON_AddItemToObject(object, "nodes_used", residence_json(&all->residence));
	cli_json_u64(object, "capacity_bytes", stat->capacity_bytes);
	cli_json_u64(object, "budget_bytes", stat->budget_bytes);
	cli_json_u64(object, "committed_bytes", stat->committed_bytes);
	cli_json_u64(object, "metadata_bytes", stat->metadata_bytes);
	cli_json_u64(object, "backing_bytes", stat->backing_bytes);
	cli_json_u64(object, "arenas", stat->arenas);
	cli_json_u64(object, "arenas_committed", stat->arenas_committed);
	cli_json_u64(object, "arenas_elsewhere", stat->arenas_elsewhere);
	cli_json_u64(object, "arenas_small", stat->arenas_small);
	cJSON_AddItemToObject(object, "arenas_on_node", arenas_json(stat));
	cli_json_u64(object, "peers", stat->peers);
	cli_json_u64(object, "peers_dead", stat->peers_dead);
	cli_json_u64(object, "lanes", stat->lanes);
	cli_json_u64(object, "roots", stat->roots);
	cJSON_AddBoolToObject(object, "damaged", stat->damaged);
	return object;
}

static cJSON *heap_json(const struct shale_heap_figures *heap)
{
	cJSON *object = cJSON_CreateObject();

	cli_json_u64(object, "live_blocks", heap->live_blocks);
	cli_json_u64(object, "live_bytes", heap->live_bytes);
	cli_json_u64(object, "published_blocks", heap->published_blocks);
	cli_json_u64(object, "retained_bytes", heap->retained_bytes);
	cli_json_u64(object, "returned_bytes", heap->returned_bytes);
	cli_json_u64(object, "committed_bytes", heap->committed_bytes);
	cli_json_u64(object, "slabs_owned", heap->slabs_owned);
	cli_json_u64(object, "slabs_orphan", heap->slabs_orphan);
	cli_json_u64(object, "slabs_free", heap->slabs_free);
	cli_json_u64(object, "spans", heap->spans);
	cli_json_u64(object, "purged_bytes", heap->purged_bytes);
	cli_json_u64(object, "releases", heap->releases);
	cli_json_u64(object, "keeper", heap->keeper);
	return object;
}

static cJSON *peers_json(const struct stat_all *all)
{
	cJSON *array = cJSON_CreateArray();

	for (unsigned i = 0; i < all->peer_count; i++) {
		const struct shale_peer *peer = &all->peers[i];
		cJSON *item = cJSON_CreateObject();
		char command[17];

		memcpy(command, peer->command, sizeof(peer->command));
		command[16] = '\0';
		cli_json_u64(item, "slot", peer->slot);
		cli_json_u64(item, "pid", peer->pid);
		cli_json_u64(item, "pid_namespace", peer->pid_ns);
		cli_json_u64(item, "start_ticks", peer->start_ticks);
		cli_json_u64(item, "lanes", peer->lanes);
		cJSON_AddBoolToObject(item, "dead", peer->dead);
		cli_json_text(item, "command", command);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static cJSON *roots_json(const struct stat_all *all)
{
	cJSON *array = cJSON_CreateArray();

	for (unsigned i = 0; i < all->root_count; i++) {
		cJSON *item = cJSON_CreateObject();

		cli_json_text(item, "name", all->roots[i].name);
		cli_json_text(item, "kind", root_name(all->roots[i].kind));
		cli_json_u64(item, "ref", all->roots[i].ref);
		cli_json_u64(item, "size", all->roots[i].size);
		cJSON_AddItemToArray(array, item);
	}
	return array;
}

static int print_json(const struct cli_arguments *arguments, const struct stat_all *all)
{
	cJSON *document = cJSON_CreateObject();

	cli_json_text(document, "target", arguments->operand);
	cJSON_AddItemToObject(document, "segment", segment_json(all));
	cJSON_AddItemToObject(document, "heap", heap_json(&all->heap));
	cJSON_AddItemToObject(document, "peers", peers_json(all));
	cJSON_AddItemToObject(document, "roots", roots_json(all));
	return cli_print_json(arguments->command, document, CLI_GOOD);
}

static void print_bytes(const char *name, uint64_t bytes)
{
	char text[32];

	printf("%-12s %s (%" PRIu64 ")\n", name, cli_bytes(bytes, text, sizeof(text)), bytes);
}

static void print_nodes(const struct stat_all *all)
{
	char text[32];
	bool any = false;

	printf("%-12s %s", "placement", cli_placement_name(all->segment.placement));
	for (unsigned node = 0; node < 1024; node++) {
		if (node_asked(&all->segment.nodes, node)) {
			printf("%s%u", any ? "," : " on nodes ", node);
			any = true;
		}
	}
	printf("\n%-12s", "nodes used");
	any = false;
	for (unsigned node = 0; node < RESIDENCE_NODES; node++) {
		if (!all->residence.bytes[node])
			continue;
		printf("%s node %u: %s", any ? "," : "", node,
		       cli_bytes(all->residence.bytes[node], text, sizeof(text)));
		any = true;
	}
	puts(any ? " mapped by its peers" : " not known: no peer's mapping can be read");
}

static void print_keeper(const struct stat_all *all)
{
	printf("%-12s %" PRIu64 " arenas so far, by ", "released", all->heap.releases);
	if (all->heap.keeper)
		printf("the keeper of peer %" PRIu32 "\n", all->heap.keeper);
	else
		puts("whoever allocates and frees: there is no keeper");
}

static void print_arenas(const struct shale_segment_figures *stat)
{
	printf("%-12s %" PRIu32 " of %" PRIu32 " committed", "arenas", stat->arenas_committed,
	       stat->arenas);
	if (stat->arenas_elsewhere)
		printf(", %" PRIu32 " on another node than wanted", stat->arenas_elsewhere);
	if (stat->arenas_small)
		printf(", %" PRIu32 " without a huge page", stat->arenas_small);
	putchar('\n');
}

static void print_segment(const struct stat_all *all)
{
	const struct shale_segment_figures *stat = &all->segment;
	char id[33], clean[160];

	id_text(stat->id, id);
	printf("%-12s %s, id %s, format %" PRIu32 "%s\n", "segment",
	       cli_clean(stat->label, clean, sizeof(clean)), id, stat->format_version,
	       stat->damaged ? ", DAMAGED" : "");
	printf("%-12s %s: %s\n", "pages", cli_pages_name(stat->pages),
	       cli_clean(stat->pages_reason, clean, sizeof(clean)));
	print_nodes(all);
	print_bytes("capacity", stat->capacity_bytes);
	print_bytes("budget", stat->budget_bytes);
	print_bytes("committed", stat->committed_bytes);
	print_bytes("metadata", stat->metadata_bytes);
	print_bytes("backing", stat->backing_bytes);
	print_arenas(stat);
	print_bytes("live", all->heap.live_bytes);
	print_bytes("retained", all->heap.retained_bytes);
	print_bytes("returned", all->heap.returned_bytes);
	print_bytes("purged", all->heap.purged_bytes);
	print_keeper(all);
	printf("%-12s %" PRIu64 " live, %" PRIu64 " of them published\n", "blocks",
	       all->heap.live_blocks, all->heap.published_blocks);
	printf("%-12s %" PRIu64 " owned, %" PRIu64 " orphan, %" PRIu64 " free, %" PRIu64 " spans\n",
	       "slabs", all->heap.slabs_owned, all->heap.slabs_orphan, all->heap.slabs_free,
	       all->heap.spans);
}

static void print_peers(const struct stat_all *all)
{
	printf("\npeers: %" PRIu32 ", dead: %" PRIu32 ", lanes: %" PRIu32 "\n", all->segment.peers,
	       all->segment.peers_dead, all->segment.lanes);
	if (all->peer_count)
		printf("  %5s %10s %6s %-6s %s\n", "slot", "pid", "lanes", "state", "command");
	for (unsigned i = 0; i < all->peer_count; i++) {
		const struct shale_peer *peer = &all->peers[i];
		char command[17], clean[32];

		memcpy(command, peer->command, sizeof(peer->command));
		command[16] = '\0';
		printf("  %5" PRIu32 " %10" PRIu32 " %6" PRIu32 " %-6s %s\n", peer->slot, peer->pid,
		       peer->lanes, peer->dead ? "dead" : "alive",
		       cli_clean(command, clean, sizeof(clean)));
	}
}

static void print_roots(const struct stat_all *all)
{
	printf("\nroots: %" PRIu32 "\n", all->segment.roots);
	for (unsigned i = 0; i < all->root_count; i++)
		printf("  %-8s 0x%010" PRIx64 " %8" PRIu64 " bytes  %s\n",
		       root_name(all->roots[i].kind), all->roots[i].ref, all->roots[i].size,
		       all->roots[i].name);
}

int cmd_stat(const struct cli_arguments *arguments)
{
	struct stat_all all = {0};
	struct target target = {0};
	int r, code;

	if (target_attach(arguments->command, arguments->operand, false, &target))
		return CLI_NO_ANSWER;
	r = collect(&all, &target);
	target_detach(&target);
	if (r < 0) {
		code = cli_error(arguments->command, "see what is wrong with: shale check",
				 "%s: %s", arguments->operand, strerror(-r));
	} else if (arguments->json) {
		code = print_json(arguments, &all);
	} else {
		print_segment(&all);
		print_peers(&all);
		print_roots(&all);
		code = cli_flush(arguments->command, CLI_GOOD);
	}
	free(all.peers);
	free(all.roots);
	return code;
}
