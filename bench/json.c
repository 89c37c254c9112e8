/*
 * json.c - writes JSON, one object a line.
 */
#include "json.h"

#include <math.h>

/* A quoted string; control characters and whatever is not ASCII become '?'. */
static void put_text(FILE *file, const char *text)
{
	fputc('"', file);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fputc('\\', file);
		fputc(c < 0x20 || c > 0x7e ? '?' : c, file);
	}
	fputc('"', file);
}

static void put_number(FILE *file, double value)
{
	if (isfinite(value))
		fprintf(file, "%.6g", value);
	else
		fputs("null", file);
}

static bool put_key(struct json *json, const char *key)
{
	if (!json->file)
		return false;
	if (json->open)
		fputs(", ", json->file);
	json->open = true;
	put_text(json->file, key);
	fputs(": ", json->file);
	return true;
}

void json_begin(struct json *json)
{
	json->open = false;
	if (json->file)
		fputc('{', json->file);
}

void json_end(struct json *json)
{
	if (!json->file)
		return;
	fputs("}\n", json->file);
	fflush(json->file);
}

void json_text(struct json *json, const char *key, const char *text)
{
	if (put_key(json, key))
		put_text(json->file, text);
}

void json_number(struct json *json, const char *key, double value)
{
	if (put_key(json, key))
		put_number(json->file, value);
}

void json_bool(struct json *json, const char *key, bool value)
{
	if (put_key(json, key))
		fputs(value ? "true" : "false", json->file);
}

void json_list(struct json *json, const char *key, const double *values, size_t count)
{
	if (!put_key(json, key))
		return;
	fputc('[', json->file);
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			fputs(", ", json->file);
		put_number(json->file, values[i]);
	}
	fputc(']', json->file);
}
