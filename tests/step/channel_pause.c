/*
 * channel_pause.c - a sender or receiver stopped at every instruction while others go on.
 *
 * The rival sends and receives, never waits and is never delayed; afterwards the victim finishes.
 * Every message is then received exactly once, and the heap holds to the byte what it held.
 */
#include "channel_scene.h"

static const struct step_options some = {.dense = 20, .stride = 7, .limit_ms = 20000};

/* Another process: sends one, and takes what it can get, but leaves one for the victim. */
static void rival(void *context)
{
	struct scene *scene = context;
	unsigned take = scene->preloaded ? scene->preloaded - 1 : 2;

	scene_send(scene, 8);
	for (unsigned i = 0; i < take; i++)
		(void)scene_receive(scene);
}

/* The victim, back at full speed: counts what it has received, if it was to receive. */
static void note_received(void *context)
{
	struct scene *scene = context;

	if (scene->preloaded > 0)
		ASSERT_TRUE(message_note(scene, scene->size));
}

static int judge(void *context)
{
	struct scene *scene = context;

	EXPECT_EQ(shale_recover(scene->segment), 2); /* the victim and the rival have ended */
	EXPECT_EQ(shale_check(scene->segment, finding_show, NULL), 0);
	while (scene_receive(scene))
		;
	for (unsigned id = 1; id < IDS; id++)
		EXPECT_EQ(scene->table->received[id],
			  id <= scene->preloaded || id == 8 || (id == 9 && !scene->preloaded));
	/* the rival has made a ring of its own */
	EXPECT_EQ(shale_check(scene->segment, finding_show, NULL), 0);
	EXPECT_GE(scene_live_bytes(scene), scene->baseline);
	EXPECT_LE(scene_live_bytes(scene), scene->baseline + 8192);
	return 0;
}

static void pause_everywhere(struct scene *scene, bool receive, const struct step_options *options)
{
	struct step_case step = {
		.name = receive ? "receive" : "send",
		.setup = scene_setup,
		.prepare = receive ? victim_prepare : victim_prepare_send,
		.operation = receive ? victim_receive : victim_send,
		.after = note_received,
		.rival = rival,
		.check = judge,
		.ctx = scene,
	};
	struct step_result result;

	step_pause(&step, options, &result);
	TEST_LOG("%llu points of %llu instructions", (unsigned long long)result.points,
		 (unsigned long long)result.instructions);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.stuck, 0);
	EXPECT_EQ(result.problems, 0);
}

TEST_TIMEOUT(channel_pause, send_inline, 240)
{
	struct scene scene = {.size = 100};

	pause_everywhere(&scene, false, &some);
}

TEST_TIMEOUT(channel_pause, send_by_reference, 240)
{
	struct scene scene = {.size = 700};

	pause_everywhere(&scene, false, &some);
}

TEST_TIMEOUT(channel_pause, receive_inline, 240)
{
	struct scene scene = {.size = 100, .preloaded = 3};

	pause_everywhere(&scene, true, &some);
}

TEST_TIMEOUT(channel_pause, receive_by_reference, 240)
{
	struct scene scene = {.size = 700, .preloaded = 3};

	pause_everywhere(&scene, true, &some);
}
