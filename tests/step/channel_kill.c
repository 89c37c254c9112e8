/*
 * channel_kill.c - a sender or receiver killed at every instruction.
 *
 * After each kill: recovery, every invariant, the channel drained: a message is there or it is not,
 * none twice, none damaged, those of others all there; and the heap holds to the byte what it held.
 */
#include "channel_scene.h"

#include "channel/channel.h"

/* Quick runs take every instruction of the short operations and a part of the long ones. */
static const struct step_options some = {.dense = 40, .stride = 9, .limit_ms = 20000};
static const struct step_options few = {.dense = 10, .stride = 61, .limit_ms = 20000};

/* Of a span only the end is looked at in quick runs: before it, the copy is stepped byte by byte. */
#define SPAN_END 400u

/* Bytes of a ring's block as the heap counts them. */
static uint64_t ring_usable(struct scene *scene)
{
	void *block = shale_alloc(scene->segment, ring_block_size(4096 / 16));
	uint64_t usable = shale_usable_size(scene->segment, block);

	ASSERT_NOT_NULL(block);
	ASSERT_OK(shale_free(scene->segment, block));
	return usable;
}

/* With a ring that comes with the first send: before it is placed there is none, then there is. */
static void expect_heap(struct scene *scene, bool ring_there)
{
	uint64_t live = scene_live_bytes(scene);

	if (!scene->cold)
		EXPECT_EQ(live, scene->baseline);
	else if (ring_there || live != scene->baseline)
		EXPECT_EQ(live, scene->baseline + ring_usable(scene));
}

/* Outcome 0: the message that the victim sends or receives is not there (any more); 1: it is. */
static int judge(void *context)
{
	struct scene *scene = context;
	unsigned id = scene->preloaded ? 1 : 9; /* the one that the operation was about */

	/* Somebody else goes on before the dead are noticed: head words are replaced. */
	if (scene->steal)
		(void)scene_receive(scene);
	EXPECT_EQ(shale_recover(scene->segment), 1);
	EXPECT_EQ(shale_check(scene->segment, finding_show, NULL), 0);
	while (scene_receive(scene))
		;
	expect_heap(scene, scene->table->received[9] > 0);
	EXPECT_EQ(shale_channel_depth(scene->channel), 0);
	EXPECT_EQ(shale_check(scene->segment, finding_show, NULL), 0);
	for (unsigned i = 1; i < IDS; i++)
		if (i != id)
			EXPECT_EQ(scene->table->received[i], i <= scene->preloaded ? 1 : 0);
	EXPECT_LE(scene->table->received[id], 1);
	/* and the channel works: the ring of the dead is taken over */
	scene_ring_of_dead(scene);
	expect_heap(scene, true);
	return (int)scene->table->received[id];
}

static void kill_everywhere(struct scene *scene, bool receive, const struct step_options *options)
{
	struct step_case step = {
		.name = receive ? "receive" : "send",
		.setup = scene_setup,
		.prepare = receive ? victim_prepare : victim_prepare_send,
		.operation = receive ? victim_receive : victim_send,
		.check = judge,
		.ctx = scene,
	};
	struct step_options span = {.dense = 4, .stride = 23, .limit_ms = 20000};
	struct step_result result;

	if (options == NULL) {
		span.offset = step_count(&step) - SPAN_END;
		options = &span;
	}
	step_kill(&step, options, &result);
	TEST_LOG("%llu points of %llu instructions, %llu not there, %llu there",
		 (unsigned long long)result.points, (unsigned long long)result.instructions,
		 (unsigned long long)result.outcomes[0], (unsigned long long)result.outcomes[1]);
	EXPECT_TRUE(result.complete);
	EXPECT_EQ(result.problems, 0);
	EXPECT_GT(result.outcomes[0], 0);
	EXPECT_GT(result.outcomes[1], 0);
}

TEST_TIMEOUT(channel_kill, send_inline, 120)
{
	struct scene scene = {.size = 100};
	struct step_options every = {.limit_ms = 20000};

	kill_everywhere(&scene, false, &every);
}

/* 36 records of 7 units leave 4 of the ring's 256: the next one comes behind a pad. */
TEST_TIMEOUT(channel_kill, send_inline_behind_a_pad, 120)
{
	struct scene scene = {.size = 100, .warm = 35};

	kill_everywhere(&scene, false, &some);
}

TEST_TIMEOUT(channel_kill, send_by_reference, 240)
{
	struct scene scene = {.size = 700};

	kill_everywhere(&scene, false, &some);
}

TEST_TIMEOUT(channel_kill, send_a_span, 240)
{
	struct scene scene = {.size = 40000};

	kill_everywhere(&scene, false, NULL);
}

TEST_TIMEOUT(channel_kill, first_send_which_makes_the_ring, 240)
{
	struct scene scene = {.size = 100, .cold = true};

	kill_everywhere(&scene, false, &few);
}

TEST_TIMEOUT(channel_kill, receive_inline, 120)
{
	struct scene scene = {.size = 100, .preloaded = 2};
	struct step_options every = {.limit_ms = 20000};

	kill_everywhere(&scene, true, &every);
}

TEST_TIMEOUT(channel_kill, receive_by_reference, 240)
{
	struct scene scene = {.size = 700, .preloaded = 2};

	kill_everywhere(&scene, true, &some);
}

/* The block lies in a slab of the receiver's own: freed by a plain store, swept with the slab. */
TEST_TIMEOUT(channel_kill, receive_of_what_it_sent_itself, 240)
{
	struct scene scene = {.size = 700, .preloaded = 2, .self_sent = true};

	kill_everywhere(&scene, true, &some);
}

TEST_TIMEOUT(channel_kill, receive_of_a_span, 240)
{
	struct scene scene = {.size = 40000, .preloaded = 2};

	kill_everywhere(&scene, true, NULL);
}

/*
 * Between the death and its recovery another receiver takes the next message, and with it the head
 * word that told of the dead one's: the note in its intent must then tell.
 */
TEST_TIMEOUT(channel_kill, receive_then_another_takes_the_next, 240)
{
	struct scene scene = {.size = 700, .preloaded = 3, .steal = true};

	kill_everywhere(&scene, true, &some);
}
