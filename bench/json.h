/*
 * json.h - writes JSON, one object a line.
 *
 * A writer without a file takes everything and writes nothing.
 */
#ifndef SHALE_BENCH_JSON_H
#define SHALE_BENCH_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct json {
	FILE *file; /* NULL: nothing is written */
	bool open;  /* inside an object, behind a member */
};

void json_begin(struct json *json);
void json_end(struct json *json);
void json_text(struct json *json, const char *key, const char *text);
/* What is no number (not finite) becomes null. */
void json_number(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);
void json_list(struct json *json, const char *key, const double *values, size_t count);

#endif
