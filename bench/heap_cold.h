/*
 * heap_cold.h - what the rows that are no hot loops share: objects through a subject's functions.
 *
 * A call through a pointer costs about a nanosecond; these rows measure tens of nanoseconds an object
 * and more, and bytes.
 */
#ifndef SHALE_BENCH_HEAP_COLD_H
#define SHALE_BENCH_HEAP_COLD_H

#include "objects.h"
#include "subject.h"

#define SECOND_NS UINT64_C(1000000000)

/* Objects of 16 to 512 bytes, in pages of our own: what the allocator holds is only the objects. */
struct herd {
	size_t count;
	uint64_t bytes; /* of all of them, as asked for */
	void **objects; /* NULL: freed */
	uint32_t *sizes;
	uint32_t *order; /* in which they are freed */
};

void herd_make(struct herd *herd, uint64_t bytes, uint64_t *random);
void herd_alloc(struct herd *herd, struct worker *worker);
/* Frees all but the first `survivors` of the order. */
void herd_free(struct herd *herd, struct worker *worker, size_t survivors);
/* Objects that do not hold what was written, among those that live. */
uint64_t herd_wrong(const struct herd *herd);

/* Allocates and frees a little, now and then, for that long. */
void light_activity(struct worker *worker, uint64_t ns);

#endif
