/*
 * cleanup.h - local resources that release themselves at the end of their scope.
 *
 *   _cleanup_(thing_freep) struct thing *thing = NULL;      thing_freep(&thing) runs on every return
 *   *ret_thing = TAKE_PTR(thing);                           hands it on: the variable is NULL after
 *
 * Owner:     the scope of the variable, until TAKE_PTR / TAKE_FD moves the value out of it.
 * Invariant: a variable marked _cleanup_ is initialised where it is declared (NULL, or -EBADF for
 *            an fd): the cleanup function runs on every path and must accept that value.
 * Death:     attributes do not run in a killed process, and never reach another one. State in a
 *            segment is undone by `goto undo_<what>` and by recovery, never by these.
 *
 * The cleanup function of a file descriptor belongs to os: base makes no system call.
 */
#ifndef SHALE_BASE_CLEANUP_H
#define SHALE_BASE_CLEANUP_H

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define _cleanup_(function) __attribute__((cleanup(function)))

/* The pointer's value; the variable itself becomes NULL, so that its cleanup finds nothing. */
#define TAKE_PTR(pointer)                                    \
	__extension__({                                      \
		__typeof__(pointer) *take_ptr_ = &(pointer); \
		__typeof__(pointer) taken_ptr_ = *take_ptr_; \
		*take_ptr_ = NULL;                           \
		taken_ptr_;                                  \
	})

/* The descriptor's number; the variable itself becomes -EBADF. */
#define TAKE_FD(fd) take_fd(&(fd))

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -EBADF;
	return taken;
}

/*
 * Defines `function##p`, the cleanup form of a destructor: it takes the address of the variable
 * and calls the destructor unless the pointer is NULL.
 */
#define DEFINE_CLEANUP(type, function)                 \
	static inline void function##p(type *variable) \
	{                                              \
		if (*variable)                         \
			function(*variable);           \
	}

/* Memory of malloc: `_cleanup_free_ char *text = NULL;`. */
static inline void cleanup_free(void *variable)
{
	free(*(void **)variable);
}
#define _cleanup_free_ _cleanup_(cleanup_free)

#endif
