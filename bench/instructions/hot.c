/*
 * hot.c - the heap's hot paths, N times each, for bench/instructions/count to count.
 *
 *   instructions-hot CASE N
 *
 * What is counted is what N more rounds cost in the library, so setting up is not. Sizes are those of one
 * bin, so that counts do not depend on which bin the allocator is warm for.
 */
#include <shale/shale.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES 64

static struct shale_segment *segment;
static void **blocks;
static size_t count;

static void *must(void *block)
{
	if (!block) {
		perror("instructions-hot: no memory");
		exit(1);
	}
	return block;
}

static void must_be_freed(int r)
{
	if (r < 0) {
		fprintf(stderr, "instructions-hot: free: %s\n", strerror(-r));
		exit(1);
	}
}

/* A size that the compiler does not know. */
static size_t some_size(void)
{
	static volatile size_t size = BYTES;

	return size;
}

static void run_pair(void)
{
	size_t size = some_size();

	for (size_t i = 0; i < count; i++)
		must_be_freed(shale_free(segment, must(shale_alloc(segment, size))));
}

static void run_constant(void)
{
	for (size_t i = 0; i < count; i++)
		must_be_freed(shale_free(segment, must(shale_alloc_inline(segment, BYTES))));
}

static void allocate_all(void)
{
	size_t size = some_size();

	for (size_t i = 0; i < count; i++)
		blocks[i] = must(shale_alloc(segment, size));
}

/* Every block from a scan, every free beyond the LIFO, but for a few. */
static void run_many(void)
{
	allocate_all();
	for (size_t i = 0; i < count; i++)
		must_be_freed(shale_free(segment, blocks[i]));
}

static void *allocate_thread(void *unused)
{
	(void)unused;
	allocate_all();
	return NULL;
}

/*
 * The slabs are another lane's. This thread, which does nothing but free, has one of its own from a free
 * that was refused, or it would take up the other's when that thread ends.
 */
static void run_remote(void)
{
	pthread_t thread;

	if (shale_free(segment, (char *)shale_segment_base(segment) + BYTES) != -EINVAL)
		exit(1);
	if (pthread_create(&thread, NULL, allocate_thread, NULL) != 0)
		exit(1);
	pthread_join(thread, NULL);
	for (size_t i = 0; i < count; i++)
		must_be_freed(shale_free(segment, blocks[i]));
}

/* Of slabs that the kernel has just given: nothing is zeroed. */
static void run_zeroed(void)
{
	for (size_t i = 0; i < count; i++)
		must(shale_alloc_zeroed(segment, 16 * BYTES));
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{"pair", run_pair},     {"constant", run_constant}, {"many", run_many},
	{"remote", run_remote}, {"zeroed", run_zeroed},
};

int main(int argc, char **argv)
{
	struct shale_segment_options options = {.size = sizeof(options)};

	if (argc != 3)
		return 2;
	options.capacity_bytes = (uint64_t)256 << 20;
	options.pages = SHALE_PAGES_4K;
	if (shale_segment_create(&options, &segment) < 0)
		return 1;
	count = strtoul(argv[2], NULL, 10);
	blocks = must(calloc(count, sizeof(*blocks)));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (strcmp(argv[1], cases[i].name) == 0) {
			cases[i].run();
			free(blocks);
			shale_segment_detach(segment);
			return 0;
		}
	return 2;
}
