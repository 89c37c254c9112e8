/* Pages between live blocks, and pages of facts that nobody needs, go back and come back. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "heap/heap.h"
#include "heap/purge.h"
#include "heap/slab.h"
#include "heap/span_cache.h"
#include "heap/sparse.h"
#include "heaps.h"
#include "os/os.h"

enum { MANY = 40000, KEEP_MAX = 400 };

struct scene {
	struct shale_segment *segment;
	struct lane *lane;
	size_t size;
	unsigned char *kept[KEEP_MAX];
	unsigned kept_count;
};

static uint64_t backing(struct shale_segment *segment)
{
	struct shale_segment_figures stat = {.size = sizeof(stat)};

	ASSERT_OK(shale_segment_stat(segment, &stat));
	return stat.backing_bytes;
}

static void scene_make(struct scene *scene, size_t size, enum shale_pages pages)
{
	*scene = (struct scene){.segment = heap_segment(256u << 20, pages), .size = size};
	ASSERT_OK(lane_enter(scene->segment, &scene->lane));
}

/* `bytes` of blocks, of which every `one_in`-th is kept, its bytes all its number. */
static void fill_and_thin(struct scene *scene, uint64_t bytes, unsigned one_in)
{
	static unsigned char *blocks[MANY];
	unsigned count = 0;

	for (; (uint64_t)count * scene->size < bytes && count < MANY; count++) {
		blocks[count] = shale_alloc(scene->segment, scene->size);
		ASSERT_NOT_NULL(blocks[count]);
		memset(blocks[count], (int)(count / one_in), scene->size);
	}
	for (unsigned i = 0; i < count; i++) {
		if (i % one_in == 0 && scene->kept_count < KEEP_MAX)
			scene->kept[scene->kept_count++] = blocks[i];
		else
			ASSERT_OK(shale_free(scene->segment, blocks[i]));
	}
}

static void expect_kept_whole(const struct scene *scene)
{
	for (unsigned i = 0; i < scene->kept_count; i++)
		for (size_t b = 0; b < scene->size; b++)
			ASSERT_EQ(scene->kept[i][b], (unsigned char)i);
}

static uint64_t word_of(const struct scene *scene, const void *block)
{
	return *slab_word(scene->segment,
			  slab_of_offset(scene->segment, view_offset_of(scene->segment, block)));
}

static unsigned sparse_slabs(const struct scene *scene)
{
	uint64_t slabs = (uint64_t)view_arena_high(scene->segment) * SLABS_PER_ARENA;
	unsigned count = 0;

	for (uint64_t slab = 0; slab < slabs; slab++) {
		uint64_t word = *slab_word(scene->segment, slab);

		count += slab_word_state(word) != SLAB_BODY && (word & SLAB_SPARSE);
	}
	return count;
}

static void free_kept(struct scene *scene)
{
	for (unsigned i = 0; i < scene->kept_count; i++)
		ASSERT_OK(shale_free(scene->segment, scene->kept[i]));
	scene->kept_count = 0;
}

static void scene_end(struct scene *scene)
{
	free_kept(scene);
	heap_expect_clean(scene->segment);
	EXPECT_EQ(heap_counts(scene->segment).live_blocks, 0);
	ASSERT_GE(shale_trim(scene->segment, 0), 0);
	EXPECT_EQ(heap_counts(scene->segment).committed_bytes, 0);
	heap_expect_clean(scene->segment);
	EXPECT_OK(shale_segment_detach(scene->segment));
}

static const struct purge_limits everything = {.facts = true};
static const struct purge_limits pages_only = {.facts = false};

/* -- pages of blocks -------------------------------------------------------------------------- */

VARIANT_SET(small_pages) = {{"4k", SHALE_PAGES_4K, NULL}, {"thp", SHALE_PAGES_THP, NULL}};

TEST_V(heap_purge, free_slabs_of_an_arena_in_use_go_and_come_back, small_pages)
{
	struct scene scene;
	unsigned char *span;
	uint64_t before;

	scene_make(&scene, 64, (enum shale_pages)variant->value);
	fill_and_thin(&scene, 64, 1);
	span = shale_alloc(scene.segment, 1u << 20);
	ASSERT_NOT_NULL(span);
	memset(span, 9, 1u << 20);
	ASSERT_OK(shale_free(scene.segment, span));
	(void)span_steal_cached(scene.lane, true);
	before = backing(scene.segment);
	/* 31 slabs: the lane allocates from the other */
	EXPECT_EQ(purge_run(scene.lane, &pages_only), 31 * SLAB_SIZE);
	EXPECT_EQ(before - backing(scene.segment), 31 * SLAB_SIZE);
	EXPECT_EQ(view_hints(scene.segment)->purged_bytes, 31 * SLAB_SIZE);
	EXPECT_EQ(purge_run(scene.lane, &pages_only), 0);
	span = shale_alloc(scene.segment, 1u << 20);
	ASSERT_NOT_NULL(span);
	/* the pages are there before they are written */
	EXPECT_EQ(before - backing(scene.segment), 15 * SLAB_SIZE);
	for (unsigned i = 0; i < 1u << 20; i++)
		ASSERT_EQ(span[i], 0);
	expect_kept_whole(&scene);
	ASSERT_OK(shale_free(scene.segment, span));
	scene_end(&scene);
}

TEST(heap_purge, an_empty_arena_is_left_to_be_returned)
{
	struct scene scene;
	void *span;

	scene_make(&scene, 64, SHALE_PAGES_4K);
	span = shale_alloc(scene.segment, 1u << 20);
	ASSERT_NOT_NULL(span);
	ASSERT_OK(shale_free(scene.segment, span));
	(void)span_steal_cached(scene.lane, true);
	EXPECT_EQ(purge_run(scene.lane, &everything), 0);
	scene_end(&scene);
}

TEST(heap_purge, huge_pages_are_not_purged)
{
	struct scene scene;

	scene_make(&scene, 64, SHALE_PAGES_2M);
	fill_and_thin(&scene, 1u << 20, 1000);
	EXPECT_EQ(purge_run(scene.lane, &everything), 0);
	scene_end(&scene);
}

VARIANT_SET(sizes) = {{"16", 16, NULL},   {"112", 112, NULL},   {"128", 128, NULL},
		      {"320", 320, NULL}, {"5000", 5000, NULL}, {"32768", 32768, NULL}};

TEST_V(heap_purge, pages_between_survivors_go_and_survivors_stay, sizes)
{
	struct scene scene;
	uint64_t before, survivors;

	scene_make(&scene, variant->value, SHALE_PAGES_4K);
	fill_and_thin(&scene, 600000, (unsigned)(100000 / scene.size + 1));
	survivors = (uint64_t)scene.kept_count * (scene.size + 2 * 4096);
	before = backing(scene.segment);
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	EXPECT_LT(backing(scene.segment), before - 1000000);
	EXPECT_GT(sparse_slabs(&scene), 0);
	/* header, lanes, table, a page of facts here and there */
	EXPECT_LE(backing(scene.segment), survivors + (400u << 10));
	expect_kept_whole(&scene);
	heap_expect_clean(scene.segment);
	EXPECT_EQ(heap_counts(scene.segment).live_blocks, scene.kept_count);
	scene_end(&scene);
}

/* -- facts --------------------------------------------------------------------------------------- */

TEST_V(heap_purge, sparse_blocks_are_blocks_like_others, sizes)
{
	struct scene scene;
	unsigned char *block;

	scene_make(&scene, variant->value, SHALE_PAGES_4K);
	fill_and_thin(&scene, 600000, (unsigned)(100000 / scene.size + 1));
	ASSERT_GE(scene.kept_count, 4);
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	block = scene.kept[1];
	ASSERT_TRUE(word_of(&scene, block) & SLAB_SPARSE);
	EXPECT_GE(shale_usable_size(scene.segment, block), scene.size);
	EXPECT_OK(shale_publish(scene.segment, block));
	EXPECT_EQ(heap_counts(scene.segment).published_blocks, 1);
	EXPECT_ERRNO(-EINVAL, shale_free(scene.segment, block + 8));
	if (scene.size < 32768)
		EXPECT_ERRNO(
			-EALREADY,
			shale_free(scene.segment, block + shale_usable_size(scene.segment, block)));
	EXPECT_EQ(heap_counts(scene.segment).live_blocks, scene.kept_count);
	EXPECT_OK(shale_free(scene.segment, block));
	EXPECT_ERRNO(-EALREADY, shale_free(scene.segment, block));
	EXPECT_EQ(heap_counts(scene.segment).live_blocks, scene.kept_count - 1);
	scene.kept[1] = scene.kept[--scene.kept_count];
	scene_end(&scene);
}

TEST_V(heap_purge, a_sparse_slab_is_reopened_with_its_blocks, sizes)
{
	struct scene scene;
	static unsigned char *blocks[MANY];
	unsigned count = 0;

	scene_make(&scene, variant->value, SHALE_PAGES_4K);
	fill_and_thin(&scene, 600000, (unsigned)(100000 / scene.size + 1));
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	ASSERT_OK(shale_publish(scene.segment, scene.kept[1]));
	while (sparse_slabs(&scene) > 0 && count < MANY) {
		blocks[count] = shale_alloc(scene.segment, scene.size);
		ASSERT_NOT_NULL(blocks[count]);
		memset(blocks[count++], 0xee, scene.size);
	}
	EXPECT_EQ(sparse_slabs(&scene), 0);
	EXPECT_LE((uint64_t)count * scene.size, 700000);
	heap_expect_clean(scene.segment);
	expect_kept_whole(&scene);
	EXPECT_EQ(heap_counts(scene.segment).live_blocks, scene.kept_count + count);
	EXPECT_EQ(heap_counts(scene.segment).published_blocks, 1);
	while (count > 0)
		ASSERT_OK(shale_free(scene.segment, blocks[--count]));
	scene_end(&scene);
}

TEST_V(heap_purge, the_checker_does_not_fetch_what_is_gone, sizes)
{
	struct scene scene;
	uint64_t purged;

	scene_make(&scene, variant->value, SHALE_PAGES_4K);
	fill_and_thin(&scene, 600000, (unsigned)(100000 / scene.size + 1));
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	purged = backing(scene.segment);
	heap_expect_clean(scene.segment);
	(void)heap_counts(scene.segment);
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	EXPECT_EQ(purge_run(scene.lane, &everything), 0);
	EXPECT_EQ(backing(scene.segment), purged);
	scene_end(&scene);
}

struct helper {
	struct scene *scene;
	unsigned from, end;
};

static void *free_some(void *argument)
{
	struct helper *helper = argument;

	for (unsigned i = helper->from; i < helper->end; i++)
		ASSERT_OK(shale_free(helper->scene->segment, helper->scene->kept[i]));
	return NULL;
}

/* Another lane frees the blocks of sparse slabs, the last of them too: the slabs are free again. */
TEST_V(heap_purge, the_last_free_takes_a_sparse_slab, sizes)
{
	struct scene scene;
	struct helper helper = {.scene = &scene};
	pthread_t thread;

	scene_make(&scene, variant->value, SHALE_PAGES_4K);
	fill_and_thin(&scene, 600000, (unsigned)(100000 / scene.size + 1));
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	ASSERT_GT(sparse_slabs(&scene), 0);
	helper.end = scene.kept_count;
	ASSERT_EQ(pthread_create(&thread, NULL, free_some, &helper), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	scene.kept_count = 0;
	EXPECT_EQ(sparse_slabs(&scene), 0);
	EXPECT_EQ(heap_counts(scene.segment).slabs_free,
		  (uint64_t)view_arena_high(scene.segment) * SLABS_PER_ARENA);
	scene_end(&scene);
}

/* -- who must not be disturbed --------------------------------------------------------------------- */

TEST(heap_purge, a_pinned_arena_is_passed_over)
{
	struct scene scene;
	uint64_t arena;

	scene_make(&scene, 320, SHALE_PAGES_4K);
	fill_and_thin(&scene, 1u << 20, 300);
	arena = (view_offset_of(scene.segment, scene.kept[0]) - scene.segment->heap_offset) >>
		ARENA_SHIFT;
	scene.lane->shm->pins[3] = arena | UINT64_C(1) << 32;
	EXPECT_EQ(purge_run(scene.lane, &everything), 0);
	scene.lane->shm->pins[3] = (arena + 1) | UINT64_C(5) << 32;
	EXPECT_GT(purge_run(scene.lane, &everything), 0);
	scene.lane->shm->pins[3] = 0;
	scene_end(&scene);
}

TEST(heap_purge, a_leased_arena_is_passed_over)
{
	struct scene scene;

	scene_make(&scene, 320, SHALE_PAGES_4K);
	fill_and_thin(&scene, 1u << 20, 300);
	heap_arena(scene.segment, 0)->lease = UINT64_C(77) << 12 | LEASE_PUNCH;
	EXPECT_EQ(purge_run(scene.lane, &everything), 0);
	heap_arena(scene.segment, 0)->lease = 0;
	EXPECT_GT(purge_run(scene.lane, &everything), 0);
	scene_end(&scene);
}

/* A block that was freed and is still named keeps its page, its fact, and is not handed out. */
TEST_V(heap_purge, a_named_block_keeps_fact_and_page, sizes)
{
	struct scene scene;
	struct helper helper = {.scene = &scene, .from = 1, .end = 2};
	pthread_t thread;
	unsigned char *named;

	scene_make(&scene, variant->value, SHALE_PAGES_4K);
	fill_and_thin(&scene, 600000, (unsigned)(100000 / scene.size + 1));
	ASSERT_GE(scene.kept_count, 4);
	named = scene.kept[1];
	retired_set(scene.lane->shm, 5, view_offset_of(scene.segment, named));
	ASSERT_EQ(pthread_create(&thread, NULL, free_some, &helper), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	ASSERT_TRUE(word_of(&scene, named) & SLAB_SPARSE);
	EXPECT_EQ(named[0], 1);
	EXPECT_ERRNO(-EALREADY, shale_free(scene.segment, named));
	for (unsigned i = 0; (uint64_t)i * scene.size < 1000000; i++)
		ASSERT_PTR_NE(shale_alloc(scene.segment, scene.size), named);
	retired_set(scene.lane->shm, 5, 0);
	EXPECT_OK(shale_segment_detach(scene.segment));
}

TEST(heap_purge, only_arenas_that_do_not_change)
{
	struct purge_limits later = {.facts = true, .unchanged_ms = 1000000};
	struct arena_shm *arena;
	struct scene scene;

	scene_make(&scene, 320, SHALE_PAGES_4K);
	fill_and_thin(&scene, 1u << 20, 300);
	arena = heap_arena(scene.segment, 0);
	slab_close_all(scene.lane);
	EXPECT_EQ(purge_run(scene.lane, &later), 0);
	EXPECT_EQ(purge_run(scene.lane, &later), 0);
	/* time passes, but something changes meanwhile */
	arena->purged_ms -= 2000000;
	ASSERT_OK(shale_free(scene.segment, scene.kept[--scene.kept_count]));
	EXPECT_EQ(purge_run(scene.lane, &later), 0);
	arena->purged_ms -= 2000000;
	EXPECT_GT(purge_run(scene.lane, &later), 0);
	scene_end(&scene);
}

/* -- what the kernel refuses ------------------------------------------------------------------------ */

TEST(heap_purge, pages_that_cannot_be_had_again_are_not_handed_out)
{
	struct scene scene;
	unsigned got = 0, refused = 0;
	static void *blocks[MANY];

	scene_make(&scene, 320, SHALE_PAGES_4K);
	fill_and_thin(&scene, 1u << 20, 300);
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	for (unsigned nth = 1; nth < 40; nth++) {
		void *block;

		os_fault_arm(OS_CALL_FALLOCATE, nth % 3 + 1, ENOSPC);
		for (unsigned i = 0; i < 50; i++) {
			block = shale_alloc(scene.segment, 320);
			if (block)
				blocks[got++] = memset(block, 3, 320);
			else
				refused++;
		}
		os_fault_disarm();
		heap_expect_clean(scene.segment);
		expect_kept_whole(&scene);
	}
	EXPECT_GT(got, 1000);
	TEST_LOG("%u refused", refused);
	EXPECT_EQ(heap_counts(scene.segment).live_blocks, got + scene.kept_count);
	while (got > 0)
		ASSERT_OK(shale_free(scene.segment, blocks[--got]));
	scene_end(&scene);
}

TEST(heap_purge, a_refused_punch_is_reported_and_harmless)
{
	struct scene scene;

	scene_make(&scene, 320, SHALE_PAGES_4K);
	fill_and_thin(&scene, 1u << 20, 300);
	os_fault_arm(OS_CALL_PUNCH, 1, EPERM);
	EXPECT_ERRNO(-EPERM, purge_run(scene.lane, &everything));
	os_fault_disarm();
	heap_expect_clean(scene.segment);
	expect_kept_whole(&scene);
	/* pages that were marked and not punched count as gone until they are used */
	(void)purge_run(scene.lane, &everything);
	fill_and_thin(&scene, 1u << 20, 3000);
	scene_end(&scene);
}

static void *thin_out(void *argument)
{
	struct scene *scene = argument;
	struct lane *lane;

	fill_and_thin(scene, 1u << 20, 300);
	ASSERT_OK(lane_enter(scene->segment, &lane));
	slab_close_all(lane);
	return NULL;
}

static void scene_of_another_lane(struct scene *scene)
{
	pthread_t thread;

	scene_make(scene, 320, SHALE_PAGES_4K);
	ASSERT_EQ(pthread_create(&thread, NULL, thin_out, scene), 0);
	ASSERT_EQ(pthread_join(thread, NULL), 0);
}

/* Slabs parked by another lane need a barrier. Where the kernel refuses it they keep their facts. */
TEST(heap_purge, where_there_are_no_barriers_nothing_stays_held)
{
	struct scene scene;

	scene_of_another_lane(&scene);
	os_fault_arm(OS_CALL_MEMBARRIER, 1, EPERM);
	EXPECT_GT(purge_run(scene.lane, &everything), 0);
	EXPECT_EQ(os_fault_count(OS_CALL_MEMBARRIER), 1);
	os_fault_disarm();
	heap_expect_clean(scene.segment);
	EXPECT_EQ(heap_arena(scene.segment, 0)->lease, 0);
	EXPECT_EQ(sparse_slabs(&scene), 0);
	expect_kept_whole(&scene);
	EXPECT_GT(purge_run(scene.lane, &everything), 0);
	EXPECT_GT(sparse_slabs(&scene), 0);
	scene_end(&scene);
}

/* One that is refused all of a sudden: they stay as they are, and are held. */
TEST(heap_purge, without_a_barrier_nothing_is_lost)
{
	struct scene scene;

	scene_of_another_lane(&scene);
	os_fault_arm(OS_CALL_MEMBARRIER, 2, EPERM);
	EXPECT_LT(purge_run(scene.lane, &everything), 0);
	os_fault_disarm();
	heap_expect_clean(scene.segment);
	EXPECT_EQ(heap_counts(scene.segment).live_blocks, scene.kept_count);
	EXPECT_NE(heap_arena(scene.segment, 0)->lease, 0);
	EXPECT_GT(purge_run(scene.lane, &everything), 0);
	EXPECT_EQ(heap_arena(scene.segment, 0)->lease, 0);
	EXPECT_GT(sparse_slabs(&scene), 0);
	expect_kept_whole(&scene);
	scene_end(&scene);
}

/* -- the checker -------------------------------------------------------------------------------- */

static const char *expected_finding;
static bool finding_seen;

static void note_finding(const struct shale_finding *finding, void *context)
{
	(void)context;
	finding_seen |= strcmp(finding->invariant, expected_finding) == 0;
}

static void expect_finding(struct shale_segment *segment, const char *invariant)
{
	expected_finding = invariant;
	finding_seen = false;
	EXPECT_GT(shale_check(segment, note_finding, NULL), 0);
	EXPECT_TRUE(finding_seen);
}

TEST(heap_purge, the_checker_sees_what_is_wrong)
{
	struct scene scene;
	struct arena_shm *arena;
	struct sparse_fact *entry = NULL;
	uint64_t *word, sound;
	unsigned s;

	scene_make(&scene, 112, SHALE_PAGES_4K);
	fill_and_thin(&scene, 600000, 300);
	ASSERT_GE(shale_trim(scene.segment, 0), 0);
	arena = heap_arena(scene.segment, 0);
	s = (unsigned)(slab_of_offset(scene.segment, view_offset_of(scene.segment, scene.kept[4])) %
		       SLABS_PER_ARENA);
	word = &arena->word[s];
	ASSERT_TRUE(*word & SLAB_SPARSE);
	entry = arena->sparse[s];
	heap_expect_clean(scene.segment);
	sound = *word;
	*word |= SLAB_HELD;
	expect_finding(scene.segment, "H8");
	*word = sound;
	arena->sparse_used &= ~(1u << s);
	expect_finding(scene.segment, "H9");
	arena->sparse_used |= 1u << s;
	ASSERT_EQ(entry[1].own, OWN_ALLOCATED);
	entry[1].index = entry[0].index;
	expect_finding(scene.segment, "H9");
	entry[1].index = 700;
	expect_finding(scene.segment, "H9");
	entry[1] = (struct sparse_fact){0};
	heap_expect_clean(scene.segment);
	arena->lease = UINT64_C(4000) << 12 | LEASE_PUNCH;
	expect_finding(scene.segment, "PG2");
	arena->lease = 0;
	for (s = 0; slab_word_state(arena->word[s]) != SLAB_FREE; s++)
		;
	arena->sparse_used |= 1u << s;
	expect_finding(scene.segment, "PG1");
	arena->sparse_used &= ~(1u << s);
	heap_expect_clean(scene.segment);
	EXPECT_OK(shale_segment_detach(scene.segment));
}
