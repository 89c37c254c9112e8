/*
 * shale/heap.h - allocate and free memory that several processes share.
 *
 * A block belongs to the peer that allocated it until it is published: if that peer dies or
 * detaches first, the block is freed. From publishing on, the block lives until somebody frees it.
 * Any peer may free a block, from any thread. Blocks are aligned to 16 bytes at least.
 */
#ifndef SHALE_HEAP_H
#define SHALE_HEAP_H

#include <stddef.h>
#include <stdint.h>

#include <shale/segment.h>
#include <shale/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Allocates at least `size` bytes, uninitialised; size 0 gives a block of 16 bytes.
 * Returns NULL with errno
 *   ENOMEM  no room: capacity, budget, huge page pool, a memory limit, or all 4095 lanes in use
 *   EROFS   the view is read-only; EUCLEAN the segment is damaged
 *   EUSERS  in a forked child: all peer slots are taken
 *   EBADF   the program has closed the view's descriptor, and more memory would have to be committed
 *   EMFILE  in a forked child: no descriptor for its liveness lock
 * Threads and processes: safe, lock-free. Since 0.1.
 */
SHALE_API void *shale_alloc(struct shale_segment *segment, size_t size);

/*
 * The size classes of blocks up to SHALE_CLASS_BYTES_MAX bytes: 16 to 128 bytes in steps of 16, then
 * eight steps to each doubling. They belong to the format of a segment: a library that speaks format 1
 * numbers them so. Since 0.1.
 */
#define SHALE_CLASS_COUNT     72u
#define SHALE_CLASS_BYTES_MAX 32768u

/*
 * The class of the smallest blocks that hold `size` bytes; size is at most SHALE_CLASS_BYTES_MAX. Where
 * size is a constant, so is the result. Since 0.1.
 */
static inline unsigned int shale_class_of(size_t size)
{
	unsigned int exponent;

	if (size <= 128)
		return size == 0 ? 0u : (unsigned int)((size - 1) >> 4);
	exponent = 63u - (unsigned int)__builtin_clzll((unsigned long long)(size - 1));
	return 8u + (exponent - 7u) * 8u + ((unsigned int)((size - 1) >> (exponent - 3u)) & 7u);
}

/*
 * Allocates a block of that class, as shale_alloc() does for a size that belongs to it: the part of
 * shale_alloc_inline() that is not inline. EINVAL: there is no such class. Since 0.1.
 */
SHALE_API void *shale_alloc_class(struct shale_segment *segment, unsigned int size_class);

/*
 * The same as shale_alloc(), for sizes that the compiler knows: it computes the class, and the library
 * looks nothing up. For any other size it is shale_alloc(). Since 0.1.
 */
static inline void *shale_alloc_inline(struct shale_segment *segment, size_t size)
{
	if (__builtin_constant_p(size) && size <= SHALE_CLASS_BYTES_MAX)
		return shale_alloc_class(segment, shale_class_of(size));
	return shale_alloc(segment, size);
}

/*
 * The same, with the address (and the offset in the segment) a multiple of `alignment`: a power of
 * two, 1 .. 2 MiB. EINVAL for another alignment. Since 0.1.
 */
SHALE_API void *shale_alloc_aligned(struct shale_segment *segment, size_t size, size_t alignment);

/* The same as shale_alloc(), with `size` bytes of zeroes. Since 0.1. */
SHALE_API void *shale_alloc_zeroed(struct shale_segment *segment, size_t size);

/*
 * The same as shale_alloc(), but where that would say ENOMEM it sleeps until others have freed memory
 * or the budget has grown, and tries again. `deadline_ns` as in shale/wait.h: an absolute time of
 * CLOCK_MONOTONIC, SHALE_NO_DEADLINE or SHALE_NO_WAIT.
 * Returns NULL with errno
 *   ETIMEDOUT  the deadline passed
 *   EINTR      a signal handler ran
 *   ENOMEM     the block is larger than the capacity or the budget: waiting is of no use
 *   or as shale_alloc()
 * A process that frees and is killed in the middle delays the waiter by a tenth of a second at most. A
 * thread may hold back the slabs (64 KiB) that it is allocating from, until it next needs another
 * one, or for ever if it is stopped. Who waits gets no turn: of several waiters any may be first.
 * Threads and processes: safe. Since 0.1.
 */
SHALE_API void *shale_alloc_wait(struct shale_segment *segment, size_t size, uint64_t deadline_ns);

/*
 * Makes the block at ptr hold at least `size` bytes; its first bytes are kept. Returns ptr, or the
 * address of a new block with the same contents after freeing the old one, or NULL with errno, and
 * then the old block is untouched. A published block keeps being published only if it is not moved:
 * a published block that would have to move gives EBUSY. ptr NULL is shale_alloc(). EINVAL: ptr is
 * not a live block. Threads and processes: safe if nobody else uses the block. Since 0.1.
 */
SHALE_API void *shale_resize(struct shale_segment *segment, void *ptr, size_t size);

/*
 * Frees a block. NULL is ignored.
 * -EINVAL   ptr is not the start of a block of this segment (foreign, interior or misaligned)
 * -EALREADY the block is free already (double free)
 * A ref to the block that is still somewhere, a named root say, dangles from then on, and may come to
 * name another block.
 * -EROFS    the view is read-only; -EUCLEAN the segment is damaged
 * Threads and processes: safe, lock-free. Since 0.1.
 */
SHALE_API int shale_free(struct shale_segment *segment, void *ptr);

/* Bytes usable at ptr, at least the size asked for; 0 if ptr is not a live block. Since 0.1. */
SHALE_API size_t shale_usable_size(struct shale_segment *segment, const void *ptr);

/* The ref of an address inside the segment; the null ref for NULL or an address outside. Since 0.1. */
SHALE_API shale_ref shale_ref_of(const struct shale_segment *segment, const void *ptr);

/*
 * The address of `size` bytes at ref, or NULL if ref is null or they do not fit into the segment's
 * heap. Nothing is said about the block being live. Since 0.1.
 */
SHALE_API void *shale_ptr(const struct shale_segment *segment, shale_ref ref, size_t size);

/*
 * Publishes a block: from now on it outlives its allocator. Idempotent. Called by a peer that holds
 * the block; while it is not published, the block still goes with the process that allocated it.
 * -EINVAL not a live block; -EROFS. Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_publish(struct shale_segment *segment, void *ptr);

/*
 * Publishes a block by placing its ref into a 64-bit word of the segment: if *location is
 * `expected`, it becomes the ref of ptr, and the block is published; a death in the middle leaves
 * either both or a freed block.
 * `location` is 8-byte aligned, inside a published block. Whoever removes the ref from the word
 * later uses shale_take_at(), or calls shale_publish() on the block before removing it.
 * -EAGAIN *location held something else; -EINVAL ptr is no live block, or location is misaligned or
 * not inside a published block; -EROFS. Since 0.1.
 */
SHALE_API int shale_publish_at(struct shale_segment *segment, void *ptr, uint64_t *location,
			       uint64_t expected);

/*
 * Removes the ref from *location (leaving 0) and hands the block to the caller, who frees it.
 * Returns 0 and the block; -ENOENT the word is 0; -EINVAL it holds no live block's ref, or location
 * is no word of the heap; -EAGAIN it changed a million times meanwhile; -EROFS. Since 0.1.
 */
SHALE_API int shale_take_at(struct shale_segment *segment, uint64_t *location, void **ret_ptr);

/*
 * Gives empty arenas back to the kernel until at most keep_bytes of free arenas are retained, and on
 * pages of 4 KiB the free pages between live blocks. Returns the number of bytes given back. -EROFS.
 * Since 0.1.
 */
SHALE_API int64_t shale_trim(struct shale_segment *segment, uint64_t keep_bytes);

/*
 * Keeps the arenas in which [ptr, ptr + size) lies from being given back to the kernel, whatever is
 * allocated or free in them, until shale_unpin() with the same range: for memory that a device, the
 * kernel (registered buffers) or another process may write at any time. Pins add up; they belong to
 * the process, and go with it. Eight pins a thread that has used the segment.
 * -EINVAL the range is empty, or not in committed arenas of the heap; -ENOSPC no room for another pin
 * -EBUSY somebody has been giving one of the arenas back for a second; -EROFS.
 * Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_pin(struct shale_segment *segment, const void *ptr, size_t size);

/*
 * Ends a pin that was made with the same range, by any thread of this process.
 * -ENOENT there is none; -EINVAL as at shale_pin(); -EROFS. Threads, processes: safe. Since 0.1.
 */
SHALE_API int shale_unpin(struct shale_segment *segment, const void *ptr, size_t size);

/* What the heap holds. Set `size` to sizeof(struct ...) before the call. Since 0.1. */
struct shale_heap_figures {
	size_t size;
	uint64_t live_blocks;      /* allocated and not freed */
	uint64_t live_bytes;       /* their usable bytes */
	uint64_t published_blocks; /* of the live ones */
	uint64_t own_blocks;       /* live, not published, allocated by this process */
	uint64_t retained_bytes;   /* committed heap bytes without a live block, purged ones too */
	uint64_t returned_bytes;   /* given back to the kernel since creation */
	uint64_t committed_bytes;  /* heap bytes committed now */
	uint64_t slabs_owned;      /* slabs of living and dead lanes */
	uint64_t slabs_orphan;
	uint64_t slabs_free;   /* in committed arenas */
	uint64_t spans;        /* blocks above 32 KiB */
	uint64_t purged_bytes; /* pages given back inside arenas that stayed, since creation */
	uint64_t releases;     /* arenas given back, times */
	uint32_t keeper; /* slot of the peer whose keeper gives memory back (a hint); 0: none */
	uint32_t reserved;
};

/*
 * Counts by walking all slabs: exact when quiet, a close figure while others work. Time grows with
 * the committed bytes. -EINVAL: its size is unknown. Threads and processes: safe. Since 0.1.
 */
SHALE_API int shale_heap_stat(struct shale_segment *segment, struct shale_heap_figures *ret_stat);

#ifdef __cplusplus
}
#endif

#endif
