/*
 * heap_loops.h - the hot rows of area heap, compiled into each subject with its own functions.
 *
 * Include once in a subject's file and call heap_row(&ops, worker) with a constant ops: the compiler
 * then sees which functions are meant, calls them directly, and inlines what can be inlined.
 *
 * Each loop first brings itself into a steady state, untimed, then meets the other workers, then runs
 * until the time is over. The same code runs the limit and every subject.
 *
 * Owner:     the worker. prodcons: worker 0 writes ring entries and ring_tail, worker 1 ring_head.
 * Invariant: an object is checked before it is freed, in every row that keeps it for a while.
 * Ordering:  bench.ring (release tail, acquire tail; release head, acquire head), bench.slot
 *            (acq_rel exchange): an object's bytes are written before its handle can be seen.
 * Lifetime:  every object is freed by the row, so that a subject may be closed after it.
 */
#ifndef SHALE_BENCH_HEAP_LOOPS_H
#define SHALE_BENCH_HEAP_LOOPS_H

#include <sched.h>
#include <stdatomic.h>

#include "objects.h"
#include "subject.h"

enum {
	PAIR_BYTES = 64,
	PAIR_CHUNK = 4096,
	BATCH_OBJECTS = 10000,
	SMALL_LOW = 16,
	SMALL_HIGH = 512,
	REPLACE_LOW = 16,
	REPLACE_HIGH = 4096,
	REPLACE_CHUNK = 1024,
	SIZES = 65536, /* drawn beforehand; a power of two */
	LARGE_OBJECTS = 16,
	LARGE_LOW = 64 << 10,
	LARGE_HIGH = 4 << 20,
	LARGE_CHUNK = 16,
	PAGE_BYTES = 4096,
	SPINS = 256, /* then let others have the core */
};

BENCH_INLINE void *object_new(const struct heap_ops *ops, struct worker *worker, size_t size,
			      uint64_t word)
{
	void *ptr = ops->alloc(worker, size);

	if (__builtin_expect(!ptr, 0))
		worker_no_memory(worker);
	object_write(ptr, size, word);
	keep(ptr);
	return ptr;
}

/* ---- pair ---- */

BENCH_INLINE void pair_chunk(const struct heap_ops *ops, struct worker *worker)
{
	for (unsigned i = 0; i < PAIR_CHUNK; i++) {
		void *ptr = ops->alloc(worker, PAIR_BYTES);

		if (__builtin_expect(!ptr, 0))
			worker_no_memory(worker);
		*(uint64_t *)ptr = i;
		keep(ptr);
		ops->free(worker, ptr, PAIR_BYTES);
	}
}

BENCH_INLINE void row_pair(const struct heap_ops *ops, struct worker *worker)
{
	bool timed = false;

	do {
		pair_chunk(ops, worker);
		if (!timed)
			worker_begin(worker);
	} while (timed ? worker_more(worker, PAIR_CHUNK) : (timed = true));
}

/* ---- batch ---- */

BENCH_INLINE void row_batch(const struct heap_ops *ops, struct worker *worker)
{
	uint32_t *sizes = pages_map(BATCH_OBJECTS * sizeof(*sizes));
	uint32_t *order = pages_map(BATCH_OBJECTS * sizeof(*order));
	void **objects = pages_map(BATCH_OBJECTS * sizeof(*objects));
	bool timed = false;

	sizes_uniform(sizes, BATCH_OBJECTS, SMALL_LOW, SMALL_HIGH, &worker->random);
	order_random(order, BATCH_OBJECTS, &worker->random);
	do {
		for (uint32_t i = 0; i < BATCH_OBJECTS; i++)
			objects[i] = object_new(ops, worker, sizes[i], i);
		for (uint32_t i = 0; i < BATCH_OBJECTS; i++)
			ops->free(worker, objects[order[i]], sizes[order[i]]);
		if (!timed)
			worker_begin(worker);
	} while (timed ? worker_more(worker, BATCH_OBJECTS) : (timed = true));
}

/* ---- replace: private slots ---- */

struct replace_slot {
	void *ptr;
	uint32_t size;
	uint32_t tag;
};

BENCH_INLINE void replace_one(const struct heap_ops *ops, struct worker *worker,
			      struct replace_slot *slot, uint32_t size, uint32_t tag)
{
	worker->outcome.corrupt +=
		object_wrong(slot->ptr, slot->size, object_word(slot->size, slot->tag));
	ops->free(worker, slot->ptr, slot->size);
	slot->ptr = object_new(ops, worker, size, object_word(size, tag));
	slot->size = size;
	slot->tag = tag;
}

BENCH_INLINE void replace_chunk(const struct heap_ops *ops, struct worker *worker,
				struct replace_slot *slots, uint32_t count, const uint32_t *sizes)
{
	for (unsigned i = 0; i < REPLACE_CHUNK; i++) {
		uint32_t tag = random_next(&worker->random);

		replace_one(ops, worker, &slots[(uint64_t)tag * count >> 32],
			    sizes[tag & (SIZES - 1)], tag);
	}
}

/* Sizes are drawn with random bits that the choice of the slot does not use. */
BENCH_INLINE void row_replace(const struct heap_ops *ops, struct worker *worker)
{
	uint32_t count = worker->stage->quick ? SLOTS_MAX / 100 : SLOTS_MAX;
	struct replace_slot *slots = pages_map(count * sizeof(*slots));
	uint32_t *sizes = pages_map(SIZES * sizeof(*sizes));
	uint64_t live = 0, before;

	sizes_log(sizes, SIZES, REPLACE_LOW, REPLACE_HIGH, &worker->random);
	worker_barrier(worker);
	before = worker->index == 0 ? stage_resident(worker->stage) : 0;
	worker_barrier(worker);
	for (uint32_t i = 0; i < count; i++) {
		slots[i].size = sizes[i & (SIZES - 1)];
		slots[i].tag = i;
		slots[i].ptr =
			object_new(ops, worker, slots[i].size, object_word(slots[i].size, i));
	}
	for (uint32_t i = 0; i < 2 * count; i += REPLACE_CHUNK)
		replace_chunk(ops, worker, slots, count, sizes);
	worker_begin(worker);
	do {
		replace_chunk(ops, worker, slots, count, sizes);
	} while (worker_more(worker, REPLACE_CHUNK));
	worker_barrier(worker);
	for (uint32_t i = 0; i < count; i++)
		live += slots[i].size;
	if (worker->index == 0 && !worker->stage->processes)
		report_number("resident_over_live",
			      ((double)stage_resident(worker->stage) - (double)before) /
				      ((double)live * worker->stage->workers));
	worker_barrier(worker);
	for (uint32_t i = 0; i < count; i++)
		ops->free(worker, slots[i].ptr, slots[i].size);
}

/* ---- replacex: slots of all workers ---- */

BENCH_INLINE void object_take(const struct heap_ops *ops, struct worker *worker, uint64_t handle)
{
	void *ptr = ops->unpack(worker, handle);
	uint64_t word = object_first(ptr);
	size_t size = word >> 32;

	if (__builtin_expect(size < SMALL_LOW || size > REPLACE_HIGH, 0)) {
		worker->outcome.corrupt++;
		return;
	}
	worker->outcome.corrupt += object_wrong(ptr, size, word);
	ops->free(worker, ptr, size);
}

BENCH_INLINE void replacex_chunk(const struct heap_ops *ops, struct worker *worker, uint32_t count,
				 const uint32_t *sizes)
{
	for (unsigned i = 0; i < REPLACE_CHUNK; i++) {
		uint32_t tag = random_next(&worker->random), size = sizes[tag & (SIZES - 1)];
		void *ptr = object_new(ops, worker, size, object_word(size, tag));
		uint64_t old;

		/* pairs: bench.slot - the object is written; whoever takes it sees its bytes. */
		old = atomic_exchange_explicit(&worker->shared->slots[(uint64_t)tag * count >> 32],
					       ops->pack(worker, ptr), memory_order_acq_rel);
		object_take(ops, worker, old);
	}
}

BENCH_INLINE void row_replacex(const struct heap_ops *ops, struct worker *worker)
{
	uint32_t count = worker->stage->quick ? SLOTS_MAX / 100 : SLOTS_MAX;
	uint32_t step = worker->stage->workers;
	uint32_t *sizes = pages_map(SIZES * sizeof(*sizes));

	sizes_log(sizes, SIZES, REPLACE_LOW, REPLACE_HIGH, &worker->random);
	for (uint32_t i = worker->index; i < count; i += step) {
		uint32_t size = sizes[i & (SIZES - 1)];
		void *ptr = object_new(ops, worker, size, object_word(size, i));

		/* Nobody looks before the barrier. */
		atomic_store_explicit(&worker->shared->slots[i], ops->pack(worker, ptr),
				      memory_order_relaxed);
	}
	worker_barrier(worker);
	for (uint32_t i = 0; i < 2 * count; i += REPLACE_CHUNK)
		replacex_chunk(ops, worker, count, sizes);
	worker_begin(worker);
	do {
		replacex_chunk(ops, worker, count, sizes);
	} while (worker_more(worker, REPLACE_CHUNK));
	worker_barrier(worker);
	for (uint32_t i = worker->index; i < count; i += step)
		object_take(ops, worker,
			    atomic_load_explicit(&worker->shared->slots[i], memory_order_relaxed));
}

/* ---- prodcons ---- */

/* Spins a little, then lets another have the core: the machine may have fewer cores than workers. */
BENCH_INLINE uint64_t ring_wait(_Atomic uint64_t *word, uint64_t old)
{
	for (unsigned spins = 0;; spins++) {
		/* pairs: bench.ring - entries up to tail are written; places up to head are free. */
		uint64_t now = atomic_load_explicit(word, memory_order_acquire);

		if (now != old)
			return now;
		if (spins % SPINS == SPINS - 1)
			sched_yield();
	}
}

BENCH_INLINE void produce(const struct heap_ops *ops, struct worker *worker, const uint32_t *sizes)
{
	struct stage_shared *shared = worker->shared;
	uint64_t tail = 0, head = 0;
	bool timed = false;

	do {
		for (unsigned i = 0; i < RING_SLOTS; i += RING_BATCH) {
			while (tail + RING_BATCH - head > RING_SLOTS)
				head = ring_wait(&shared->ring_head, head);
			for (unsigned j = 0; j < RING_BATCH; j++, tail++) {
				uint32_t size = sizes[tail & (SIZES - 1)];
				void *ptr = object_new(ops, worker, size,
						       object_word(size, (uint32_t)tail));

				shared->ring[tail % RING_SLOTS] = ops->pack(worker, ptr);
			}
			/* pairs: bench.ring */
			atomic_store_explicit(&shared->ring_tail, tail, memory_order_release);
		}
		if (!timed)
			worker_begin(worker);
	} while (timed ? worker_more(worker, RING_SLOTS) : (timed = true));
	while (tail + RING_BATCH - head > RING_SLOTS)
		head = ring_wait(&shared->ring_head, head);
	shared->ring[tail % RING_SLOTS] = 0; /* the end */
	atomic_store_explicit(&shared->ring_tail, tail + RING_BATCH, memory_order_release);
}

BENCH_INLINE void consume(const struct heap_ops *ops, struct worker *worker)
{
	struct stage_shared *shared = worker->shared;
	uint64_t head = 0, tail = 0;

	for (;;) {
		while (head == tail)
			tail = ring_wait(&shared->ring_tail, tail);
		if (shared->ring[head % RING_SLOTS] == 0)
			break;
		for (unsigned j = 0; j < RING_BATCH; j++, head++)
			object_take(ops, worker, shared->ring[head % RING_SLOTS]);
		/* pairs: bench.ring */
		atomic_store_explicit(&shared->ring_head, head, memory_order_release);
		if (head == RING_SLOTS)
			worker_begin(worker);
	}
	worker_end(worker, head - RING_SLOTS);
}

BENCH_INLINE void row_prodcons(const struct heap_ops *ops, struct worker *worker)
{
	uint32_t *sizes;

	if (worker->index != 0) {
		consume(ops, worker);
		return;
	}
	sizes = pages_map(SIZES * sizeof(*sizes));
	sizes_uniform(sizes, SIZES, SMALL_LOW, SMALL_HIGH, &worker->random);
	produce(ops, worker, sizes);
}

/* ---- large, larget ---- */

BENCH_INLINE void large_touch(void *ptr, size_t size)
{
	for (size_t at = PAGE_BYTES; at < size; at += PAGE_BYTES)
		((volatile char *)ptr)[at] = 1;
}

BENCH_INLINE void large_chunk(const struct heap_ops *ops, struct worker *worker,
			      struct replace_slot *slots, const uint32_t *sizes, bool touch)
{
	for (unsigned i = 0; i < LARGE_CHUNK; i++) {
		uint32_t tag = random_next(&worker->random), size = sizes[tag & (SIZES - 1)];
		struct replace_slot *slot = &slots[(uint64_t)tag * LARGE_OBJECTS >> 32];

		if (slot->ptr)
			ops->free(worker, slot->ptr, slot->size);
		slot->ptr = object_new(ops, worker, size, tag);
		slot->size = size;
		if (touch)
			large_touch(slot->ptr, size);
	}
}

BENCH_INLINE void row_large(const struct heap_ops *ops, struct worker *worker, bool touch)
{
	struct replace_slot *slots = pages_map(LARGE_OBJECTS * sizeof(*slots));
	uint32_t *sizes = pages_map(SIZES * sizeof(*sizes));
	unsigned warm = worker->stage->quick ? 4 : 64;

	sizes_log(sizes, SIZES, LARGE_LOW, LARGE_HIGH, &worker->random);
	for (unsigned i = 0; i < warm; i++)
		large_chunk(ops, worker, slots, sizes, touch);
	worker_begin(worker);
	do {
		large_chunk(ops, worker, slots, sizes, touch);
	} while (worker_more(worker, LARGE_CHUNK));
	worker_barrier(worker);
	for (unsigned i = 0; i < LARGE_OBJECTS; i++)
		if (slots[i].ptr)
			ops->free(worker, slots[i].ptr, slots[i].size);
}

/* ---- the door ---- */

BENCH_INLINE void heap_row(const struct heap_ops *ops, struct worker *worker)
{
	switch (worker->stage->row->id) {
	case ROW_PAIR:
		row_pair(ops, worker);
		break;
	case ROW_BATCH:
		row_batch(ops, worker);
		break;
	case ROW_REPLACE:
		row_replace(ops, worker);
		break;
	case ROW_REPLACEX:
		row_replacex(ops, worker);
		break;
	case ROW_PRODCONS:
		row_prodcons(ops, worker);
		break;
	case ROW_LARGE:
		row_large(ops, worker, false);
		break;
	case ROW_LARGET:
		row_large(ops, worker, true);
		break;
	default:
		break;
	}
}

#endif
