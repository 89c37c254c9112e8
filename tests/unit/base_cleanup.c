/*
 * base_cleanup.c - what base/cleanup.h promises about the end of a scope.
 *
 * Prints TAP by itself: it is the first program of the tree and tests what the harness may use.
 */
#include "base/cleanup.h"

#include <stdio.h>

struct thing {
	int released;
};

static unsigned int count;
static unsigned int failed;

static void result(int good, const char *name)
{
	count += 1;
	failed += !good;
	printf("%s %u - base_cleanup / %s\n", good ? "ok" : "not ok", count, name);
}

static void thing_release(struct thing *thing)
{
	thing->released += 1;
}
DEFINE_CLEANUP(struct thing *, thing_release)

static void leave_scope(struct thing *given)
{
	_cleanup_(thing_releasep) struct thing *thing = given;

	(void)thing;
}

static struct thing *take_out_of_scope(struct thing *given)
{
	_cleanup_(thing_releasep) struct thing *thing = given;

	return TAKE_PTR(thing);
}

int main(void)
{
	struct thing thing = {0};
	struct thing *taken;
	int fd = 7;
	int other;

	printf("TAP version 13\n1..5\n");
	leave_scope(&thing);
	result(thing.released == 1, "end_of_scope_releases_once");
	leave_scope(NULL);
	result(thing.released == 1, "null_is_not_released");
	taken = take_out_of_scope(&thing);
	result(taken == &thing && thing.released == 1, "a_taken_pointer_is_not_released");
	other = TAKE_FD(fd);
	result(other == 7 && fd == -EBADF, "a_taken_fd_leaves_EBADF");
	{
		_cleanup_free_ char *text = malloc(16);

		result(text != NULL, "memory_of_malloc_is_freed");
	}
	return failed ? 1 : 0;
}
