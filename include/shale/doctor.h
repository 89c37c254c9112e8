/*
 * shale/doctor.h - what this machine has of what shale uses, and what to do about the rest.
 *
 * Nothing here needs a segment. Each item is tried or read on the running kernel, never guessed
 * from its version.
 */
#ifndef SHALE_DOCTOR_H
#define SHALE_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Since 0.1. */
enum shale_doctor_status {
	SHALE_DOCTOR_OK = 0,
	SHALE_DOCTOR_DEGRADED, /* there, but not usable as things stand, or too small */
	SHALE_DOCTOR_MISSING,  /* not there */
};

/* One item. The texts are never NULL and live until the callback returns. Since 0.1. */
struct shale_doctor_report {
	const char *name; /* stable: "feature.ofd_lock", "hugepages.2M", "limit.open_files" */
	enum shale_doctor_status status;
	bool needed;        /* shale cannot work without it */
	const char *detail; /* what was seen */
	const char *effect; /* what shale does then; empty when nothing changes */
	const char *mend;   /* the command, or the step, that mends it; empty when there is none */
};
typedef void (*shale_doctor_callback)(const struct shale_doctor_report *report, void *context);

/*
 * Looks at everything and calls callback once for each item, always in the same order of groups:
 * kernel, features, pages, NUMA nodes, limits, giving back. Changes nothing and leaves nothing behind; takes
 * some milliseconds, as it really tries what can be tried. callback may be NULL.
 * Returns the number of needed items that are MISSING: 0 says that shale works here.
 * Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_doctor_run(shale_doctor_callback callback, void *context);

#ifdef __cplusplus
}
#endif

#endif
