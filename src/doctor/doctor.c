/*
 * doctor.c - the front door of the doctor: run the groups, hand each report on, count what is missing.
 *
 * Owner:     the caller; all state is on its stack.
 * Invariant: D1  the result is the number of reports with needed set and status MISSING
 *            D2  no text in a report is NULL
 * Ordering, lifetime, death: no shared memory; a report's texts live until the callback returns.
 */
#include "doctor/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/os.h"

void doctor_report(struct doctor *doctor, const struct shale_doctor_report *report)
{
	struct shale_doctor_report copy = *report;

	if (!copy.detail)
		copy.detail = "";
	if (!copy.effect)
		copy.effect = "";
	if (!copy.mend)
		copy.mend = "";
	if (copy.needed && copy.status == SHALE_DOCTOR_MISSING)
		doctor->missing++;
	if (doctor->callback)
		doctor->callback(&copy, doctor->context);
}

int doctor_read_u64(const char *path, uint64_t *ret_value)
{
	char text[64];
	char *end;
	uint64_t value;
	int r;

	r = os_read_text(path, text, sizeof(text));
	if (r < 0)
		return r;
	if (text[0] == 'm' || text[0] == '-') {
		*ret_value = UINT64_MAX;
		return 0;
	}
	errno = 0;
	value = strtoull(text, &end, 10);
	if (end == text || errno)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

const char *doctor_bytes(uint64_t bytes, char *buffer, unsigned size)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	if (bytes == UINT64_MAX) {
		snprintf(buffer, size, "unlimited");
		return buffer;
	}
	for (; value >= 1024.0 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		value /= 1024.0;
	if (unit == 0)
		snprintf(buffer, size, "%" PRIu64 " bytes", bytes);
	else
		snprintf(buffer, size, "%.*f %s", value < 10.0 ? 1 : 0, value, units[unit]);
	return buffer;
}

int shale_doctor_run(shale_doctor_callback callback, void *context)
{
	struct doctor doctor = {.callback = callback, .context = context};

	doctor_kernel(&doctor);
	doctor_features(&doctor);
	doctor_pages(&doctor);
	doctor_numa(&doctor);
	doctor_limits(&doctor);
	doctor_giveback(&doctor);
	return doctor.missing;
}
