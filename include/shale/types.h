/*
 * shale/types.h - what every other public header needs: refs, versions, the export mark.
 *
 * A ref is the only thing that crosses a process border: a 64-bit offset into a segment, 0 = null.
 * It is a struct so that it cannot be added to, compared with a pointer or printed by accident.
 */
#ifndef SHALE_TYPES_H
#define SHALE_TYPES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of these headers; shale_version() is that of the library that was loaded. */
#define SHALE_VERSION_MAJOR  0
#define SHALE_VERSION_MINOR  1
#define SHALE_VERSION_PATCH  0
#define SHALE_VERSION_STRING "0.1.0"
#define SHALE_VERSION_NUMBER \
	((SHALE_VERSION_MAJOR * 10000) + (SHALE_VERSION_MINOR * 100) + SHALE_VERSION_PATCH)

/* Marks what the shared library exports; everything else in it is hidden. */
#define SHALE_API __attribute__((visibility("default")))

typedef struct {
	uint64_t off;
} shale_ref;

/* The library's version as MAJOR * 10000 + MINOR * 100 + PATCH. Never fails. */
SHALE_API unsigned int shale_version(void);

/* The library's version as text, "MAJOR.MINOR.PATCH". Never fails; the string is static. */
SHALE_API const char *shale_version_string(void);

#ifdef __cplusplus
}
#endif

#endif
