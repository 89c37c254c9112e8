/*
 * doctor.h - what the files of the doctor share: one report at a time, and numbers read from files.
 *
 * Owner: the caller of shale_doctor_run(); a struct doctor lives on its stack. Nothing is shared,
 * nothing is in a segment, so no order and no death to speak of.
 */
#ifndef SHALE_DOCTOR_DOCTOR_H
#define SHALE_DOCTOR_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>

#include <shale/doctor.h>

struct doctor {
	shale_doctor_callback callback;
	void *context;
	int missing; /* needed items that are not there */
};

#define DOCTOR_TEXT 256

/* One item; `detail` is formatted by the caller, NULL texts are empty. */
void doctor_report(struct doctor *doctor, const struct shale_doctor_report *report);

/* An unsigned number in a file of the kernel; "max" and a leading '-' (-1) are UINT64_MAX. -errno. */
int doctor_read_u64(const char *path, uint64_t *ret_value);

/* "3.5 GiB", "512 KiB", "unlimited". Returns its buffer. */
const char *doctor_bytes(uint64_t bytes, char *buffer, unsigned size);

/* The groups, in the order of the report. */
void doctor_kernel(struct doctor *doctor);   /* kernel.c */
void doctor_features(struct doctor *doctor); /* kernel.c */
void doctor_pages(struct doctor *doctor);    /* pages.c */
void doctor_numa(struct doctor *doctor);     /* pages.c */
void doctor_limits(struct doctor *doctor);   /* limits.c */
void doctor_giveback(struct doctor *doctor); /* giveback.c */

#endif
