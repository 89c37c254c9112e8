/*
 * atomic.h - every atomic access of the library, with the order in the name.
 *
 * The operands are plain fixed-width integers of at most 8 bytes, in a segment or in private
 * memory. A wider atomic would go through libatomic, whose fallback lock is private to a process.
 * An access that orders something names its edge at both ends ("pairs: <label>"); a relaxed access
 * says why nothing rides on it.
 *
 * There is one fence, fence_seq_cst(), for the one pattern that needs it: announce, then test
 * (store here, load there). It is spelled as a locked instruction on x86-64, where MFENCE would
 * also stall every outstanding cache miss.
 */
#ifndef SHALE_BASE_ATOMIC_H
#define SHALE_BASE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

_Static_assert(__atomic_always_lock_free(8, 0), "64-bit atomics must not need a lock");
_Static_assert(__atomic_always_lock_free(4, 0), "32-bit atomics must not need a lock");

#define load_relaxed(ptr)             __atomic_load_n((ptr), __ATOMIC_RELAXED)
#define load_acquire(ptr)             __atomic_load_n((ptr), __ATOMIC_ACQUIRE)
#define load_seq_cst(ptr)             __atomic_load_n((ptr), __ATOMIC_SEQ_CST)

#define store_relaxed(ptr, value)     __atomic_store_n((ptr), (value), __ATOMIC_RELAXED)
#define store_release(ptr, value)     __atomic_store_n((ptr), (value), __ATOMIC_RELEASE)
#define store_seq_cst(ptr, value)     __atomic_store_n((ptr), (value), __ATOMIC_SEQ_CST)

#define exchange_acquire(ptr, value)  __atomic_exchange_n((ptr), (value), __ATOMIC_ACQUIRE)
#define exchange_acq_rel(ptr, value)  __atomic_exchange_n((ptr), (value), __ATOMIC_ACQ_REL)
#define exchange_seq_cst(ptr, value)  __atomic_exchange_n((ptr), (value), __ATOMIC_SEQ_CST)

#define fetch_add_relaxed(ptr, value) __atomic_fetch_add((ptr), (value), __ATOMIC_RELAXED)
#define fetch_add_acq_rel(ptr, value) __atomic_fetch_add((ptr), (value), __ATOMIC_ACQ_REL)
#define fetch_add_seq_cst(ptr, value) __atomic_fetch_add((ptr), (value), __ATOMIC_SEQ_CST)
#define fetch_sub_relaxed(ptr, value) __atomic_fetch_sub((ptr), (value), __ATOMIC_RELAXED)
#define fetch_or_relaxed(ptr, value)  __atomic_fetch_or((ptr), (value), __ATOMIC_RELAXED)
#define fetch_or_acq_rel(ptr, value)  __atomic_fetch_or((ptr), (value), __ATOMIC_ACQ_REL)
#define fetch_or_seq_cst(ptr, value)  __atomic_fetch_or((ptr), (value), __ATOMIC_SEQ_CST)
#define fetch_and_relaxed(ptr, value) __atomic_fetch_and((ptr), (value), __ATOMIC_RELAXED)
#define fetch_and_acq_rel(ptr, value) __atomic_fetch_and((ptr), (value), __ATOMIC_ACQ_REL)

/* Compare and swap, strong. On failure *expected receives the value found (relaxed). */
#define cas_relaxed(ptr, expected, desired)                                                \
	__atomic_compare_exchange_n((ptr), (expected), (desired), false, __ATOMIC_RELAXED, \
				    __ATOMIC_RELAXED)
#define cas_acquire(ptr, expected, desired)                                                \
	__atomic_compare_exchange_n((ptr), (expected), (desired), false, __ATOMIC_ACQUIRE, \
				    __ATOMIC_RELAXED)
#define cas_release(ptr, expected, desired)                                                \
	__atomic_compare_exchange_n((ptr), (expected), (desired), false, __ATOMIC_RELEASE, \
				    __ATOMIC_RELAXED)
#define cas_acq_rel(ptr, expected, desired)                                                \
	__atomic_compare_exchange_n((ptr), (expected), (desired), false, __ATOMIC_ACQ_REL, \
				    __ATOMIC_ACQUIRE)
#define cas_seq_cst(ptr, expected, desired)                                                \
	__atomic_compare_exchange_n((ptr), (expected), (desired), false, __ATOMIC_SEQ_CST, \
				    __ATOMIC_SEQ_CST)

/*
 * Program order against one's own death. A process killed at any instruction leaves memory as a
 * prefix of each thread's program order, so a word that only recovery reads needs the compiler to
 * keep the order of the stores, and nothing from the CPU.
 */
static inline void order_for_death(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

#if defined(__SANITIZE_THREAD__)
#define SHALE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHALE_TSAN 1
#endif
#endif

/* Orders earlier stores before later loads. Both sides of an edge use it or a seq_cst RMW. */
static inline void fence_seq_cst(void)
{
#if defined(SHALE_TSAN)
	/* TSan does not model fences; a seq_cst RMW on a private word orders the same and is seen. */
	static uint32_t word;
	__atomic_fetch_add(&word, 0, __ATOMIC_SEQ_CST);
#elif defined(__x86_64__)
	__asm__ __volatile__("lock; addl $0, -8(%%rsp)" ::: "memory", "cc");
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

#endif
