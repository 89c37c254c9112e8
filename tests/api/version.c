/*
 * version.c - the library that is loaded is the one these headers belong to.
 *
 * Prints TAP by itself: a program that uses nothing but <shale/shale.h>, as a user's would.
 */
#include <shale/shale.h>

#include <stdio.h>
#include <string.h>

static unsigned int count;
static unsigned int failed;

static void result(int good, const char *name)
{
	count += 1;
	failed += !good;
	printf("%s %u - version / %s\n", good ? "ok" : "not ok", count, name);
}

int main(void)
{
	char text[32];

	printf("TAP version 13\n1..4\n");
	snprintf(text, sizeof(text), "%d.%d.%d", SHALE_VERSION_MAJOR, SHALE_VERSION_MINOR,
		 SHALE_VERSION_PATCH);
	result(strcmp(text, SHALE_VERSION_STRING) == 0, "header_number_and_text_agree");
	result(shale_version() == SHALE_VERSION_NUMBER, "library_number_is_the_headers");
	result(strcmp(shale_version_string(), text) == 0, "library_text_is_the_headers");
	result(sizeof(shale_ref) == 8, "a_ref_is_eight_bytes");
	return failed ? 1 : 0;
}
