/*
 * heap_cold.c - many objects at once, for the rows that measure bytes.
 */
#include "heap_cold.h"

enum { LOW = 16, HIGH = 512, ACTIVE_OBJECTS = 16, ACTIVE_PAUSE_NS = 1000000 };

void herd_make(struct herd *herd, uint64_t bytes, uint64_t *random)
{
	herd->count = bytes / ((LOW + HIGH) / 2);
	herd->objects = pages_map(herd->count * sizeof(*herd->objects));
	herd->sizes = pages_map(herd->count * sizeof(*herd->sizes));
	herd->order = pages_map(herd->count * sizeof(*herd->order));
	herd->bytes = 0;
	sizes_uniform(herd->sizes, herd->count, LOW, HIGH, random);
	order_random(herd->order, herd->count, random);
	for (size_t i = 0; i < herd->count; i++)
		herd->bytes += herd->sizes[i];
}

void herd_alloc(struct herd *herd, struct worker *worker)
{
	const struct heap_ops *ops = worker->stage->subject->ops;

	for (size_t i = 0; i < herd->count; i++) {
		uint32_t size = herd->sizes[i];

		herd->objects[i] = ops->alloc(worker, size);
		if (!herd->objects[i])
			worker_no_memory(worker);
		object_write(herd->objects[i], size, object_word(size, (uint32_t)i));
	}
}

void herd_free(struct herd *herd, struct worker *worker, size_t survivors)
{
	const struct heap_ops *ops = worker->stage->subject->ops;

	for (size_t i = survivors; i < herd->count; i++) {
		uint32_t n = herd->order[i];

		ops->free(worker, herd->objects[n], herd->sizes[n]);
		herd->objects[n] = NULL;
	}
}

uint64_t herd_wrong(const struct herd *herd)
{
	uint64_t wrong = 0;

	for (size_t i = 0; i < herd->count; i++)
		if (herd->objects[i])
			wrong += object_wrong(herd->objects[i], herd->sizes[i],
					      object_word(herd->sizes[i], (uint32_t)i));
	return wrong;
}

void light_activity(struct worker *worker, uint64_t ns)
{
	const struct heap_ops *ops = worker->stage->subject->ops;
	void *objects[ACTIVE_OBJECTS];
	uint32_t sizes[ACTIVE_OBJECTS];
	uint64_t until = now_ns() + ns;

	while (now_ns() < until) {
		sizes_uniform(sizes, ACTIVE_OBJECTS, LOW, HIGH, &worker->random);
		for (unsigned i = 0; i < ACTIVE_OBJECTS; i++) {
			objects[i] = ops->alloc(worker, sizes[i]);
			if (!objects[i])
				worker_no_memory(worker);
			object_write(objects[i], sizes[i], i);
		}
		for (unsigned i = 0; i < ACTIVE_OBJECTS; i++)
			ops->free(worker, objects[i], sizes[i]);
		sleep_ns(ACTIVE_PAUSE_NS);
	}
}
