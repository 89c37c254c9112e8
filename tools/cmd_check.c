/*
 * cmd_check.c - `shale check`: every broken invariant that shale_check() finds.
 *
 * Owner:     one process, one thread.
 * Invariant: without --recover the segment is mapped read-only, so that nothing can change in it.
 * Ordering, lifetime: none of its own.
 * Death:     see target.h.
 */
#include "cli.h"
#include "target.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void on_finding(const struct shale_finding *finding, void *context)
{
	cJSON *findings = context;
	char invariant[32], text[512];

	if (findings) {
		cJSON *item = cJSON_CreateObject();

		cli_json_text(item, "invariant", finding->invariant);
		cli_json_u64(item, "offset", finding->offset);
		cli_json_text(item, "text", finding->text);
		cJSON_AddItemToArray(findings, item);
		return;
	}
	printf("%s at 0x%" PRIx64 ": %s\n",
	       cli_clean(finding->invariant, invariant, sizeof(invariant)), finding->offset,
	       cli_clean(finding->text, text, sizeof(text)));
}

static int check_error(const struct cli_arguments *arguments, const char *what, int error)
{
	return cli_error(arguments->command, "try again while its peers are quiet", "%s: %s: %s",
			 arguments->operand, what, strerror(-error));
}

struct check_result {
	uint32_t recovered;
	uint32_t dead; /* peers left dead: what they held is still being read by the living */
	int count;     /* findings */
};

static int dead_peers(struct shale_segment *segment, uint32_t *ret_dead)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};
	int r = shale_segment_stat(segment, &stat);

	if (r == 0)
		*ret_dead = stat.peers_dead;
	return r;
}

/*
 * The dead as someone sees them who only looks: attaching as a peer recovers by itself, so that
 * afterwards nobody could tell how many there were. 0, or CLI_NO_ANSWER.
 */
static int count_dead(const struct cli_arguments *arguments, uint32_t *ret_dead)
{
	struct target target = {0};
	int r;

	if (target_attach(arguments->command, arguments->operand, false, &target))
		return CLI_NO_ANSWER;
	r = dead_peers(target.segment, ret_dead);
	target_detach(&target);
	return r < 0 ? check_error(arguments, "cannot count its peers", r) : 0;
}

/* Recovers if asked to, then checks. 0 and the result, or CLI_NO_ANSWER. */
static int check_segment(const struct cli_arguments *arguments, cJSON *findings,
			 struct check_result *ret_result)
{
	struct target target = {0};
	uint32_t before = 0, dead = 0;
	int r = 0, count = 0;

	if (arguments->recover && count_dead(arguments, &before))
		return CLI_NO_ANSWER;
	if (target_attach(arguments->command, arguments->operand, arguments->recover, &target))
		return CLI_NO_ANSWER;
	if (arguments->recover)
		r = shale_recover(target.segment);
	if (r >= 0)
		r = count = shale_check(target.segment, on_finding, findings);
	if (r >= 0)
		r = dead_peers(target.segment, &dead);
	target_detach(&target);
	if (r < 0)
		return check_error(arguments, "cannot check", r);
	ret_result->count = count;
	ret_result->dead = dead;
	ret_result->recovered = before > dead ? before - dead : 0;
	return 0;
}

static void print_text(const struct cli_arguments *arguments, const struct check_result *result)
{
	if (arguments->recover)
		printf("%" PRIu32 " peer%s recovered\n", result->recovered,
		       result->recovered == 1 ? "" : "s");
	if (result->dead)
		printf("%" PRIu32 " dead peer%s not recovered%s\n", result->dead,
		       result->dead == 1 ? "" : "s",
		       arguments->recover ? " yet" : ": give --recover");
	if (result->count)
		printf("%d finding%s\n", result->count, result->count == 1 ? "" : "s");
	else
		puts("clean");
}

int cmd_check(const struct cli_arguments *arguments)
{
	struct check_result result = {0};
	cJSON *document = NULL, *findings = NULL;
	int code;

	if (arguments->json) {
		document = cJSON_CreateObject();
		findings = cJSON_AddArrayToObject(document, "findings");
		if (!findings)
			return cli_print_json(arguments->command, NULL, CLI_NO_ANSWER);
	}
	if (check_segment(arguments, findings, &result)) {
		cJSON_Delete(document);
		return CLI_NO_ANSWER;
	}
	code = result.count ? CLI_NOT_GOOD : CLI_GOOD;
	if (!document) {
		print_text(arguments, &result);
		return cli_flush(arguments->command, code);
	}
	cli_json_text(document, "target", arguments->operand);
	cJSON_AddNumberToObject(document, "recovered", result.recovered);
	cJSON_AddNumberToObject(document, "dead", result.dead);
	cJSON_AddNumberToObject(document, "count", result.count);
	cJSON_AddBoolToObject(document, "clean", result.count == 0);
	return cli_print_json(arguments->command, document, code);
}
