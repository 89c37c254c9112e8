/*
 * giveback.c - the doctor's group about giving memory back: can it be punched, in a batch, and is
 * pressure told?
 *
 * Owner:     the caller of shale_doctor_run(); what is tried is taken down again.
 * Invariant: each is tried as the keeper would use it.
 * Ordering, lifetime, death: no shared memory.
 */
#include "doctor/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "os/os.h"

#define TRY_BYTES (2u << 20)

/* Through a ring, on a memfd of one arena: 0 and it is a hole. */
static int try_ring(void)
{
	struct os_uring_punch punch = {.offset = 0, .size = TRY_BYTES};
	_cleanup_os_close_ int fd = os_memfd_create("shale-doctor", OS_PAGES_4K);
	struct os_uring ring;
	int r = fd < 0 ? fd : os_memfd_set_size(fd, TRY_BYTES);

	if (r == 0)
		r = os_commit(fd, 0, 4096);
	if (r < 0)
		return r;
	r = os_uring_open(&ring);
	if (r < 0)
		return r;
	r = os_uring_decommit(&ring, fd, &punch, 1);
	os_uring_close(&ring);
	return r < 0 ? r : punch.result;
}

static void giveback_uring(struct doctor *doctor)
{
	char detail[DOCTOR_TEXT];
	int r = try_ring();

	if (r < 0)
		snprintf(detail, sizeof(detail), "punching through a ring: %s", strerror(-r));
	else
		snprintf(detail, sizeof(detail), "punched a hole through a ring");
	doctor_report(doctor,
		      &(struct shale_doctor_report){
			      .name = "giveback.uring",
			      .status = r < 0 ? SHALE_DOCTOR_MISSING : SHALE_DOCTOR_OK,
			      .detail = detail,
			      .effect = r < 0 ? "SHALE_KEEPER_URING: a keeper gives arenas back by "
						"blocking calls, one by one"
					      : "",
			      .mend = r == -EPERM
					      ? "sysctl kernel.io_uring_disabled=0, or allow it in "
						"the seccomp filter"
				      : r < 0 ? "boot Linux 5.6 or newer with io_uring"
					      : "",
		      });
}

static const char *psi_mend(int error)
{
	switch (error) {
	case ENOENT:
		return "boot a kernel with CONFIG_PSI";
	case EOPNOTSUPP:
		return "boot with psi=1";
	case EACCES:
	case EPERM:
	case EROFS:
		return "make /proc/pressure/memory writable here (not masked by the container); "
		       "without CAP_SYS_RESOURCE it takes Linux 6.5";
	default:
		return "look at /proc/pressure/memory";
	}
}

static void giveback_psi(struct doctor *doctor)
{
	char detail[DOCTOR_TEXT];
	int fd = os_psi_open(100000, 2000000);

	if (fd < 0)
		snprintf(detail, sizeof(detail), "/proc/pressure/memory: %s", strerror(-fd));
	else
		snprintf(detail, sizeof(detail), "a trigger on /proc/pressure/memory was taken");
	doctor_report(doctor,
		      &(struct shale_doctor_report){
			      .name = "giveback.psi",
			      .status = fd < 0 ? SHALE_DOCTOR_MISSING : SHALE_DOCTOR_OK,
			      .detail = detail,
			      .effect = fd < 0 ? "a keeper does not hear of memory pressure: "
						 "free memory goes back by age alone"
					       : "",
			      .mend = fd < 0 ? psi_mend(-fd) : "",
		      });
	(void)os_fd_close(fd);
}

void doctor_giveback(struct doctor *doctor)
{
	giveback_uring(doctor);
	giveback_psi(doctor);
}
