/*
 * compare.c - walks two sorted lists of counts side by side.
 *
 * Owner:     nothing is shared.
 * Invariant: C1 every word of either list is looked at once: equal, or one difference
 * Ordering:  none.
 * Lifetime:  the pipeline's processes are gone when compare_with_grep() returns.
 * Death:     nothing in the segment is touched.
 */
#include "compare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOWN_DIFFERENCES 10

/* xargs -0: names may hold spaces and newlines. -r: no files, no grep. */
static const char pipeline[] = "xargs -0 -r grep -aohE '[A-Za-z_][A-Za-z0-9_]*' --"
			       " | sort --parallel=2 -S 512M | uniq -c";

static int bytes_order(const unsigned char *a, size_t a_size, const unsigned char *b, size_t b_size)
{
	int order = memcmp(a, b, a_size < b_size ? a_size : b_size);

	return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

int count_order(const void *a, const void *b)
{
	const struct count *x = a, *y = b;

	return bytes_order(x->word, x->size, y->word, y->size);
}

/* The next line of `uniq -c`: 1 with *theirs filled, 0 at the end, -EINVAL. */
static int next_line(FILE *lines, char **line, size_t *room, struct count *theirs)
{
	ssize_t size = getline(line, room, lines);
	char *end;

	if (size < 0)
		return 0;
	if (size > 0 && (*line)[size - 1] == '\n')
		size--;
	errno = 0;
	theirs->count = strtoull(*line, &end, 10);
	if (errno != 0 || end == *line || *end != ' ')
		return -EINVAL;
	theirs->word = (unsigned char *)end + 1;
	theirs->size = (size_t)(*line + size - (end + 1));
	return 1;
}

static void show(FILE *report, int64_t differences, const struct count *word, uint64_t ours,
		 uint64_t theirs)
{
	if (differences > SHOWN_DIFFERENCES)
		return;
	fputs("  ", report);
	fwrite(word->word, 1, word->size, report);
	fprintf(report, ": %llu here, %llu by grep\n", (unsigned long long)ours,
		(unsigned long long)theirs);
}

int64_t compare_counts(const struct count *counts, size_t count_count, FILE *lines, FILE *report)
{
	struct count theirs;
	char *line = NULL;
	size_t room = 0, i = 0;
	int64_t differences = 0;
	int more = next_line(lines, &line, &room, &theirs);

	while (more >= 0 && (i < count_count || more)) {
		int order = !more ? -1 : i == count_count ? 1 : count_order(&counts[i], &theirs);

		if (order < 0)
			show(report, ++differences, &counts[i], counts[i].count, 0);
		else if (order > 0)
			show(report, ++differences, &theirs, 0, theirs.count);
		else if (counts[i].count != theirs.count)
			show(report, ++differences, &theirs, counts[i].count, theirs.count);
		if (order <= 0)
			i++;
		if (order >= 0)
			more = next_line(lines, &line, &room, &theirs);
	}
	free(line);
	return more < 0 ? more : differences;
}

static _Noreturn void run_pipeline(int list, int output)
{
	setenv("LC_ALL", "C", 1);
	dup2(list, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	execl("/bin/sh", "sh", "-c", pipeline, (char *)NULL);
	_exit(127);
}

int64_t compare_with_grep(const struct count *counts, size_t count_count, int list, FILE *report)
{
	int64_t differences;
	FILE *lines;
	int ends[2], status;
	pid_t pid;

	if (lseek(list, 0, SEEK_SET) < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		run_pipeline(list, ends[1]);
	close(ends[1]);
	lines = fdopen(ends[0], "r");
	if (pid < 0 || !lines)
		return -errno;
	differences = compare_counts(counts, count_count, lines, report);
	fclose(lines);
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? differences : -ECHILD;
}
