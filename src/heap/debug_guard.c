/*
 * debug_guard.c - blocks at the end of pages of their own, between pages that may not be touched.
 *
 *   page 0    the card: size, owner, which process has the guards
 *   page 1    guard
 *   page 2 .. the block ends where they end
 *   next      guard
 *
 * Owner:     guards belong to the mapping of the process that allocated the block; its list of them
 *            (view->guards) is private, under the attachment's lock.
 * Invariant: G1 a slab is freed only when no living process has guards in it
 * Ordering:  card.state: who frees it does a CAS; the process with the guards sees it when it looks.
 * Lifetime:  a guarded block that others have freed stays until its process reaps it or dies.
 * Death:     guards go with the process. Its unpublished blocks are freed as spans; published ones
 *            whose card says FREED by guard_settle(). Between guards and list: a process that is gone.
 */
#include "heap/debug.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "heap/heap.h"
#include "heap/large.h"
#include "heap/slab.h"

#define GUARDED_MAX  (UINT64_C(1) << 20)
#define BLOCK_PAGE   2u /* the first page of the block */
#define LARGEST_TAIL 15u

/* -- the card ---------------------------------------------------------------------------------- */

static uint32_t card_hash(const struct debug_card *card)
{
	struct debug_card copy = *card;

	copy.block.check = 0;
	copy.state = 0;
	return (uint32_t)hash_bytes(&copy, sizeof(copy), DEBUG_CARD);
}

/* What a peer may have written there keeps to its span, and the block to its pages. */
static bool card_fits(struct shale_segment *view, uint64_t slab, const struct debug_card *card)
{
	uint64_t first = slab_offset(view, slab) + BLOCK_PAGE * DEBUG_PAGE;
	uint64_t bytes = card->pages * (uint64_t)DEBUG_PAGE;
	uint64_t room = span_slab_count(view, slab) * SLAB_SIZE;

	return card->block.self >= first && card->block.self < first + DEBUG_PAGE &&
	       card->pages != 0 && card->pages <= GUARDED_MAX / DEBUG_PAGE &&
	       (BLOCK_PAGE + 1) * (uint64_t)DEBUG_PAGE + bytes <= room &&
	       card->block.size <= first + bytes - card->block.self;
}

bool guard_read_slab(struct shale_segment *view, uint64_t slab, struct debug_card *ret_card)
{
	uint64_t start = slab_offset(view, slab);
	struct debug_card card;

	memcpy(&card, view_at(view, start), sizeof(card));
	if (card.block.magic != DEBUG_CARD || card.block.check != card_hash(&card) ||
	    !card_fits(view, slab, &card))
		return false;
	*ret_card = card;
	return true;
}

bool guard_read(struct shale_segment *view, uint64_t slab, uint64_t offset,
		struct debug_card *ret_card)
{
	return view->debug != 0 && guard_read_slab(view, slab, ret_card) &&
	       ret_card->block.self == offset;
}

static uint32_t *card_state(const struct shale_segment *view, uint64_t slab)
{
	return &((struct debug_card *)view_at(view, slab_offset(view, slab)))->state;
}

/* A slot's word has its generation; with the slot's number it stands for one process alone. */
static uint64_t peer_key(uint32_t peer, uint64_t word)
{
	return word | (uint64_t)peer << 8;
}

uint64_t guard_peer_key(const struct shale_segment *view)
{
	return peer_key(view->peer, view->peer_word);
}

/* Is the process that has the guards still attached? */
static bool installer_lives(const struct shale_segment *view, const struct debug_card *card)
{
	/* pairs: peer.word - a slot that has been freed and claimed again has another generation. */
	uint64_t word = load_acquire(&view_peer(view, card->block.peer)->word);

	return peer_key(card->block.peer, word) == card->peer_key;
}

/* -- guards ------------------------------------------------------------------------------------ */

static void *page_before(const struct shale_segment *view, uint64_t slab)
{
	return view_at(view, slab_offset(view, slab) + DEBUG_PAGE);
}

static void *page_after(const struct shale_segment *view, uint64_t slab, uint32_t pages)
{
	return view_at(view, slab_offset(view, slab) + (BLOCK_PAGE + (uint64_t)pages) * DEBUG_PAGE);
}

static void guards_remove(const struct shale_segment *view, uint64_t slab, uint32_t pages,
			  bool protects)
{
	void *around[2] = {page_before(view, slab), page_after(view, slab, pages)};

	for (unsigned i = 0; i < 2; i++)
		if (protects)
			(void)os_protect(around[i], DEBUG_PAGE, true);
		else
			(void)os_advise(around[i], DEBUG_PAGE, OS_GUARD_REMOVE);
}

static int guards_install(const struct shale_segment *view, uint64_t slab, uint32_t pages,
			  bool *ret_protects)
{
	void *before = page_before(view, slab), *after = page_after(view, slab, pages);
	int r;

	r = os_advise(before, DEBUG_PAGE, OS_GUARD_INSTALL);
	if (r == 0)
		r = os_advise(after, DEBUG_PAGE, OS_GUARD_INSTALL);
	*ret_protects = r < 0;
	if (r == 0)
		return 0;
	guards_remove(view, slab, pages, false);
	r = os_protect(before, DEBUG_PAGE, false);
	if (r == 0)
		r = os_protect(after, DEBUG_PAGE, false);
	if (r < 0)
		guards_remove(view, slab, pages, true);
	return r;
}

/* -- the list ---------------------------------------------------------------------------------- */

/* A forked child has its parent's list and its guards: they go. */
static void list_disown(struct shale_segment *view)
{
	struct view_guards *guards = &view->guards;

	if (guards->peer_key == guard_peer_key(view))
		return;
	for (uint32_t i = 0; i < guards->count; i++)
		guards_remove(view, guards->blocks[i].slab, guards->blocks[i].pages,
			      guards->blocks[i].protects);
	guards->count = 0;
	guards->peer_key = guard_peer_key(view);
}

static bool list_add(struct shale_segment *view, uint64_t slab, uint32_t pages, bool protects)
{
	struct view_guards *guards = &view->guards;
	bool room;

	pthread_mutex_lock(&view->attachment->lock);
	list_disown(view);
	room = guards->count < VIEW_GUARDS;
	if (room) {
		guards->blocks[guards->count].slab = slab;
		guards->blocks[guards->count].pages = pages;
		guards->blocks[guards->count++].protects = protects;
	}
	pthread_mutex_unlock(&view->attachment->lock);
	return room;
}

/* Takes the guards away and forgets them. The lock is held. */
static void list_drop(struct shale_segment *view, uint32_t i)
{
	struct view_guards *guards = &view->guards;

	guards_remove(view, guards->blocks[i].slab, guards->blocks[i].pages,
		      guards->blocks[i].protects);
	guards->blocks[i] = guards->blocks[--guards->count];
}

/* One of ours that another process has freed, its guards gone; false: there is none. */
static bool list_take_freed(struct shale_segment *view, uint64_t *ret_slab, uint64_t *ret_word)
{
	struct view_guards *guards = &view->guards;
	bool found = false;

	pthread_mutex_lock(&view->attachment->lock);
	list_disown(view);
	for (uint32_t i = 0; i < guards->count && !found; i++) {
		*ret_slab = guards->blocks[i].slab;
		/* pairs: slab.word - while it is in the list, nobody else frees the span. */
		*ret_word = load_acquire(slab_word(view, *ret_slab));
		/* pairs: card.state - the freer's accesses to the block are over. */
		found = load_acquire(card_state(view, *ret_slab)) == GUARD_FREED;
		if (found)
			list_drop(view, i);
	}
	pthread_mutex_unlock(&view->attachment->lock);
	return found;
}

/*
 * `word` was loaded before the look at the card that made the caller free it: of several who saw the same
 * card one wins. The card stays until the span's next holder writes over it.
 */
static int guard_span_free(struct shale_segment *view, uint32_t lane, uint64_t slab, uint64_t word)
{
	return slab_word_state(word) == SLAB_SPAN ? span_free(view, lane, slab, word) : -EALREADY;
}

unsigned guard_reap(struct lane *lane)
{
	unsigned count = 0;
	uint64_t slab, word;

	if (!(lane->view->debug & SHALE_DEBUG_GUARD))
		return 0;
	while (count < VIEW_GUARDS && list_take_freed(lane->view, &slab, &word))
		count += guard_span_free(lane->view, lane->index, slab, word) == 0;
	return count;
}

/* -- allocate and free --------------------------------------------------------------------------- */

bool guard_wanted(struct shale_segment *view, size_t size, size_t alignment)
{
	/* N is the creator's word: it may be 0 */
	if (!(view->debug & SHALE_DEBUG_GUARD) || view->page_size != DEBUG_PAGE || size == 0 ||
	    size > GUARDED_MAX || alignment > LARGEST_TAIL + 1 || view->guard_sample == 0)
		return false;
	/* relaxed: which one of N does not matter */
	return fetch_add_relaxed(&view->guards.turn, 1u) % view->guard_sample == 0;
}

static void card_write(struct lane *lane, uint64_t slab, uint64_t offset, uint64_t size,
		       uint32_t pages)
{
	struct debug_card card = {
		.block = debug_describe(lane, offset, size),
		.peer_key = guard_peer_key(lane->view),
		.pages = pages,
		.state = GUARD_LIVE,
	};

	card.block.magic = DEBUG_CARD;
	card.block.check = card_hash(&card);
	memcpy(view_at(lane->view, slab_offset(lane->view, slab)), &card, sizeof(card));
}

int guard_alloc(struct lane *lane, size_t size, uint64_t *ret_offset)
{
	struct shale_segment *view = lane->view;
	uint32_t pages = (uint32_t)(round_up(size, DEBUG_PAGE) / DEBUG_PAGE);
	uint64_t bytes = (BLOCK_PAGE + (uint64_t)pages + 1) * DEBUG_PAGE;
	uint64_t start = 0, slab;
	bool protects;
	int r;

	(void)guard_reap(lane);
	r = heap_alloc_raw(lane, bytes > BIN_SIZE_MAX ? bytes : BIN_SIZE_MAX + 1, 1, &start);
	if (r < 0)
		return r;
	slab = slab_of_offset(view, start);
	*ret_offset = start + (BLOCK_PAGE + (uint64_t)pages) * DEBUG_PAGE -
		      round_up(size, LARGEST_TAIL + 1);
	memset(view_at(view, start + BLOCK_PAGE * DEBUG_PAGE), DEBUG_ALLOCATED, pages * DEBUG_PAGE);
	card_write(lane, slab, *ret_offset, size, pages);
	r = guards_install(view, slab, pages, &protects);
	if (r == 0 && !list_add(view, slab, pages, protects)) {
		guards_remove(view, slab, pages, protects);
		r = -ENOSPC;
	}
	if (r < 0)
		(void)guard_span_free(view, lane->index, slab,
				      load_relaxed(slab_word(view, slab))); /* ours */
	return r;
}

/* Is what lies in the block's pages before and behind it as it was? */
static bool margins_whole(const struct shale_segment *view, uint64_t slab,
			  const struct debug_card *card)
{
	uint64_t first = slab_offset(view, slab) + BLOCK_PAGE * DEBUG_PAGE;
	uint64_t end = first + (uint64_t)card->pages * DEBUG_PAGE;
	uint64_t behind = card->block.self + card->block.size;

	return behind <= end &&
	       debug_bytes_are(view_at(view, first), card->block.self - first, DEBUG_ALLOCATED,
			       false) &&
	       debug_bytes_are(view_at(view, behind), end - behind, DEBUG_ALLOCATED, false);
}

/* Of several who free it one wins. */
static bool card_retire(const struct shale_segment *view, uint64_t slab)
{
	uint32_t live = GUARD_LIVE;

	/* pairs: card.state - one freer wins. */
	return cas_acq_rel(card_state(view, slab), &live, (uint32_t)GUARD_FREED);
}

/*
 * A block that this process has allocated: the mark and the list change together, or another thread
 * that allocates would find the mark and free the span as well.
 */
static bool list_retire(struct shale_segment *view, uint64_t slab)
{
	struct view_guards *guards = &view->guards;
	bool retired;

	pthread_mutex_lock(&view->attachment->lock);
	list_disown(view);
	retired = card_retire(view, slab);
	for (uint32_t i = guards->count; retired && i-- > 0;)
		if (guards->blocks[i].slab == slab)
			list_drop(view, i);
	pthread_mutex_unlock(&view->attachment->lock);
	return retired;
}

int guard_free(struct shale_segment *view, struct lane *lane, const struct block_place *place,
	       uint64_t offset)
{
	struct debug_card card;
	bool ours;

	if (!guard_read(view, place->slab, offset, &card))
		return -EINVAL;
	ours = card.peer_key == guard_peer_key(view);
	if (!margins_whole(view, place->slab, &card))
		debug_found(view, &view_hints(view)->debug_overrun, offset);
	if (!(ours ? list_retire(view, place->slab) : card_retire(view, place->slab)))
		return -EALREADY;
	if (!ours && installer_lives(view, &card))
		return 0;
	/* a recoverer of the dead installer may have been faster */
	(void)guard_span_free(view, lane->index, place->slab, place->word);
	return 0;
}

void guard_settle(struct shale_segment *view, uint32_t dead_lane)
{
	uint64_t slabs = (uint64_t)view_arena_high(view) * SLABS_PER_ARENA;
	struct debug_card card;

	for (uint64_t slab = 0; slab < slabs; slab++) {
		/* pairs: slab.word - a published span of a dead lane has lost its lane. */
		uint64_t word = load_acquire(slab_word(view, slab));

		if (slab_word_state(word) == SLAB_SPAN && slab_word_lane(word) == 0 &&
		    guard_read_slab(view, slab, &card) && card.state == GUARD_FREED &&
		    !installer_lives(view, &card))
			(void)guard_span_free(view, dead_lane, slab, word);
	}
}
