/*
 * Paused at every instruction of put, replace, insert or delete, while another process runs a rival on
 * the same key to its end: the rival does not wait, and the answers of both are those of some order.
 */
#include <sys/mman.h>

#include "maps.h"
#include "step.h"

enum op { PUT, INSERT, DELETE, GET };

/* Shared by victim, rival and judge. */
struct answers {
	int victim;
	int rival;
	char rival_value[16];
};

struct scene {
	struct shale_segment *segment;
	struct shale_map *map;
	struct answers *answers;
	enum op victim;
	enum op rival;
	bool present;
	unsigned others;
	uint64_t base;
};

static const char key[] = "the key";

static void scene_setup(void *ctx)
{
	struct scene *scene = ctx;

	scene->segment = heap_segment(4u << 20, SHALE_PAGES_4K);
	scene->map = map_named(scene->segment, "m", 1);
	for (uint64_t i = 0; i < scene->others; i++)
		ASSERT_EQ(put_u64(scene->map, i, i), 0);
	scene->base = heap_counts(scene->segment).live_bytes;
	if (scene->present)
		ASSERT_EQ(put_text(scene->map, key, "old"), 0);
}

static void scene_prepare(void *ctx)
{
	struct scene *scene = ctx;

	ASSERT_OK(shale_free(scene->segment, shale_alloc(scene->segment, 16)));
}

static int run_op(struct scene *scene, enum op op, const char *value, char *ret_value)
{
	switch (op) {
	case PUT:
		return put_text(scene->map, key, value);
	case INSERT:
		return insert_text(scene->map, key, value);
	case DELETE:
		return delete_text(scene->map, key);
	default:
		return get_text(scene->map, key, ret_value, 16);
	}
}

static void scene_operation(void *ctx)
{
	struct scene *scene = ctx;

	scene->answers->victim = run_op(scene, scene->victim, "victim", NULL);
}

static void scene_rival(void *ctx)
{
	struct scene *scene = ctx;

	scene->answers->rival = run_op(scene, scene->rival, "rival", scene->answers->rival_value);
	/* and once more somewhere else in the chain: what stands still blocks nobody */
	EXPECT_EQ(put_u64(scene->map, 1, 2), 1);
	EXPECT_OK(shale_segment_detach(scene->segment));
}

/* What one operation does to a value: the answer that it must give there. */
static int apply(enum op op, const char *value, const char **state, char *ret_seen)
{
	bool there = *state != NULL;

	ret_seen[0] = '\0';
	switch (op) {
	case PUT:
		*state = value;
		return there;
	case INSERT:
		*state = there ? *state : value;
		return there ? -EEXIST : 0;
	case DELETE:
		*state = NULL;
		return there ? 0 : -ENOENT;
	default:
		if (there)
			strcpy(ret_seen, *state);
		return there ? 0 : -ENOENT;
	}
}

/* Does this order of the two explain what everybody saw? */
static bool explains(const struct scene *scene, bool victim_first, const char *last)
{
	const struct answers *answers = scene->answers;
	const char *state = scene->present ? "old" : NULL;
	char seen[16], rival_seen[16];
	int victim, rival;

	if (victim_first) {
		victim = apply(scene->victim, "victim", &state, seen);
		rival = apply(scene->rival, "rival", &state, rival_seen);
	} else {
		rival = apply(scene->rival, "rival", &state, rival_seen);
		victim = apply(scene->victim, "victim", &state, seen);
	}
	return victim == answers->victim && rival == answers->rival &&
	       strcmp(rival_seen, answers->rival_value) == 0 &&
	       ((state == NULL) == (last == NULL)) && (!state || strcmp(state, last) == 0);
}

static int scene_check(void *ctx)
{
	struct scene *scene = ctx;
	char last[64];
	int r, outcome;

	EXPECT_GE(shale_recover(scene->segment), 0);
	heap_expect_clean(scene->segment);
	r = get_text(scene->map, key, last, sizeof(last));
	outcome = explains(scene, true, r == 0 ? last : NULL)    ? 0
		  : explains(scene, false, r == 0 ? last : NULL) ? 1
								 : -1;
	if (outcome < 0)
		TEST_LOG("victim %d, rival %d %s, then %d %s", scene->answers->victim,
			 scene->answers->rival, scene->answers->rival_value, r, r == 0 ? last : "");
	EXPECT_EQ(shale_map_count(scene->map), scene->others + (r == 0));
	if (r == 0)
		EXPECT_EQ(delete_text(scene->map, key), 0);
	r = (int)(heap_counts(scene->segment).live_bytes - scene->base);
	EXPECT_TRUE(r == 0 || (r == 64 && scene->others >= 7));
	return outcome;
}

static void pause_everywhere(enum op victim, enum op rival, bool present, unsigned others,
			     bool both_orders)
{
	struct answers *answers = mmap(NULL, sizeof(*answers), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct scene scene = {.answers = answers,
			      .victim = victim,
			      .rival = rival,
			      .present = present,
			      .others = others};
	struct step_case step = {
		.name = "map",
		.setup = scene_setup,
		.prepare = scene_prepare,
		.operation = scene_operation,
		.rival = scene_rival,
		.check = scene_check,
		.ctx = &scene,
	};
	struct step_options options = {.dense = 1, .stride = 11};
	struct step_result result;

	ASSERT_TRUE(answers != MAP_FAILED);
	step_pause(&step, &options, &result);
	TEST_LOG("%llu points, victim first %llu, rival first %llu",
		 (unsigned long long)result.points, (unsigned long long)result.outcomes[0],
		 (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	if (both_orders) {
		EXPECT_GT(result.outcomes[0], 0);
		EXPECT_GT(result.outcomes[1], 0);
	}
}

#define PAUSE(name, ...)                       \
	TEST_TIMEOUT(map_pause, name, 300)     \
	{                                      \
		pause_everywhere(__VA_ARGS__); \
	}

PAUSE(put_new_against_put, PUT, PUT, false, 3, true)
PAUSE(put_new_against_insert, PUT, INSERT, false, 3, true)
PAUSE(put_new_against_delete, PUT, DELETE, false, 3, true)
PAUSE(put_new_against_get, PUT, GET, false, 3, true)
PAUSE(put_old_against_put, PUT, PUT, true, 3, true)
PAUSE(put_old_against_delete, PUT, DELETE, true, 3, true)
PAUSE(put_old_against_get, PUT, GET, true, 3, true)
PAUSE(insert_against_insert, INSERT, INSERT, false, 3, true)
PAUSE(insert_against_delete, INSERT, DELETE, true, 3, true)
PAUSE(delete_against_delete, DELETE, DELETE, true, 3, true)
PAUSE(delete_against_put, DELETE, PUT, true, 3, true)
PAUSE(delete_against_insert, DELETE, INSERT, true, 3, true)
PAUSE(delete_against_get, DELETE, GET, true, 3, true)
PAUSE(put_that_adds_a_bucket_against_put, PUT, PUT, false, 7, true)
PAUSE(put_that_adds_a_bucket_against_get, PUT, GET, false, 7, true)
