/*
 * alloc_class.c - allocating by size class, as a program does whose sizes are constants.
 *
 * Prints TAP by itself: a program that uses nothing but <shale/shale.h>, as a user's would.
 */
#include <shale/shale.h>

#include <errno.h>
#include <stdio.h>

static unsigned int count;
static unsigned int failed;

static void result(int good, const char *name)
{
	count += 1;
	failed += !good;
	printf("%s %u - alloc_class / %s\n", good ? "ok" : "not ok", count, name);
}

static size_t usable(struct shale_segment *segment, void *block)
{
	size_t bytes = shale_usable_size(segment, block);

	return shale_free(segment, block) == 0 ? bytes : 0;
}

/* Of every size: a block of its class is as large as one of the size itself. */
static int classes_are_those_of_sizes(struct shale_segment *segment)
{
	for (size_t size = 0; size <= SHALE_CLASS_BYTES_MAX; size++) {
		size_t of_size = usable(segment, shale_alloc(segment, size));
		size_t of_class = usable(segment, shale_alloc_class(segment, shale_class_of(size)));

		if (of_size < size || of_size == 0 || of_class != of_size) {
			printf("# size %zu: %zu and %zu bytes\n", size, of_size, of_class);
			return 0;
		}
	}
	return 1;
}

static int other_classes_are_refused(struct shale_segment *segment)
{
	const unsigned int wrong[] = {SHALE_CLASS_COUNT, SHALE_CLASS_COUNT + 1, 256, ~0u};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		errno = 0;
		if (shale_alloc_class(segment, wrong[i]) || errno != EINVAL)
			return 0;
	}
	return 1;
}

/* Constants and others, small and large. */
static int inline_allocates_any_size(struct shale_segment *segment)
{
	volatile size_t unknown = 1000;
	int good = usable(segment, shale_alloc_inline(segment, 0)) == 16;

	good = good && usable(segment, shale_alloc_inline(segment, 64)) == 64;
	good = good && usable(segment, shale_alloc_inline(segment, 1000)) == 1024;
	good = good && usable(segment, shale_alloc_inline(segment, unknown)) == 1024;
	good = good && usable(segment, shale_alloc_inline(segment, 32768)) == 32768;
	good = good && usable(segment, shale_alloc_inline(segment, 32769)) == 65536;
	errno = 0;
	good = good && !shale_alloc_inline(segment, ~(size_t)0) && errno == ENOMEM;
	return good && !shale_alloc_inline(segment, ~(size_t)7) && errno == ENOMEM;
}

int main(void)
{
	struct shale_segment_options options = {.size = sizeof(options)};
	struct shale_segment *segment = NULL;

	options.capacity_bytes = (uint64_t)64 << 20;
	options.pages = SHALE_PAGES_4K;
	printf("TAP version 13\n1..4\n");
	result(shale_segment_create(&options, &segment) == 0, "a_segment_is_there");
	if (!segment)
		return 1;
	result(classes_are_those_of_sizes(segment), "classes_are_those_of_sizes");
	result(other_classes_are_refused(segment), "other_classes_are_refused");
	result(inline_allocates_any_size(segment), "inline_allocates_any_size");
	shale_segment_detach(segment);
	return failed ? 1 : 0;
}
