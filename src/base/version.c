/*
 * version.c - which library was loaded, as opposed to which headers were compiled against.
 *
 * Owner:     nobody: constants only, no state, safe from any thread and from signal handlers.
 */
#include <shale/types.h>

unsigned int shale_version(void)
{
	return SHALE_VERSION_NUMBER;
}

const char *shale_version_string(void)
{
	return SHALE_VERSION_STRING;
}
