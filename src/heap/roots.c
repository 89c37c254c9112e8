/*
 * roots.c - names -> records: how a newcomer finds what others placed in the segment.
 *
 * The table is 512 words in the control area, open addressing with linear probing from the hash of
 * the name. A word goes from 0 to the ref of its record once, by CAS (heap_publish_at), and never
 * changes again; so two that make the same name meet at the same word, and one of them loses.
 *
 * Owner:     the word: whoever's CAS succeeds. The record's header: its maker, before the CAS.
 * Invariant: R1 a word refers to a published block that holds a root_shm with a proper name
 *            R2 a name occurs once; no word before it in its probe sequence is 0
 * Ordering:  heap.place (release CAS, acquire load: the record is complete).
 * Progress:  bounded by the table; lock-free.
 * Death:     before the CAS the record and its companion are freed by recovery, after it they stay.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <shale/segment.h>

#include "base/hash.h"
#include "heap/heap.h"
#include "heap/heap_check.h"

struct root_user_shm {
	struct root_shm root;
	uint64_t ref;
	uint64_t reserved;
};

static uint64_t *root_word(const struct shale_segment *view, uint32_t index)
{
	return (uint64_t *)view_at(view, view->roots_offset) + index % ROOT_COUNT;
}

static uint32_t root_first(const struct shale_segment *view, const char *name)
{
	return (uint32_t)hash_bytes(name, strlen(name), view->hash_seed) % ROOT_COUNT;
}

static bool name_is_proper(const char *name)
{
	size_t length = name ? strnlen(name, sizeof(((struct root_shm *)0)->name)) : 0;

	return length > 0 && length < sizeof(((struct root_shm *)0)->name);
}

/* The record that a word refers to, copied; -EUCLEAN when it cannot be one. */
static int root_read(struct shale_segment *view, uint64_t offset, struct root_shm *ret_root)
{
	const struct root_shm *record = heap_at(view, offset, sizeof(*record));

	if (!record || offset % 16 != 0)
		return view_damaged(view);
	*ret_root = *record;
	if (memchr(ret_root->name, 0, sizeof(ret_root->name)) == NULL ||
	    ret_root->kind < ROOT_USER || ret_root->kind > ROOT_CHANNEL ||
	    ret_root->size < sizeof(*ret_root) || !heap_at(view, offset, ret_root->size))
		return view_damaged(view);
	return 0;
}

/*
 * Looks the name up from position *index on. 0 and its record; -ENOENT, and *index is the free
 * word where it would be; -ENOSPC no word is free.
 */
static int root_search(struct shale_segment *view, const char *name, uint32_t *index,
		       uint64_t *ret_offset, struct root_shm *ret_root)
{
	uint32_t first = root_first(view, name);

	for (uint32_t step = 0; step < ROOT_COUNT; step++) {
		/* pairs: heap.place - the record is complete. */
		uint64_t offset = load_acquire(root_word(view, first + step));
		int r;

		*index = (first + step) % ROOT_COUNT;
		if (offset == 0)
			return -ENOENT;
		r = root_read(view, offset, ret_root);
		if (r < 0)
			return r;
		if (strcmp(ret_root->name, name) == 0) {
			*ret_offset = offset;
			return 0;
		}
	}
	return -ENOSPC;
}

struct root_draft {
	uint64_t offset;
	uint64_t companion;
};

static void draft_free(struct shale_segment *view, struct lane *lane, struct root_draft *draft,
		       bool with_companion)
{
	(void)heap_free_block(view, lane, draft->offset);
	if (with_companion && draft->companion)
		(void)heap_free_block(view, lane, draft->companion);
}

static int draft_make(struct shale_segment *view, struct lane *lane, const struct root_shm *header,
		      root_init init, void *context, struct root_draft *ret_draft)
{
	struct root_draft draft = {0};
	struct root_shm *record;
	int r = heap_alloc_block(lane, header->size, &draft.offset);

	if (r < 0)
		return r;
	record = view_at(view, draft.offset);
	memset(record, 0, header->size);
	*record = *header;
	r = init(view, lane, record, &draft.companion, context);
	if (r < 0) {
		(void)heap_free_block(view, lane, draft.offset);
		return r;
	}
	*ret_draft = draft;
	return 0;
}

static int root_make(struct shale_segment *view, struct lane *lane, const struct root_shm *header,
		     uint32_t index, root_init init, void *context, uint64_t *ret_offset)
{
	struct root_draft draft;
	struct root_shm found;
	uint64_t place;
	bool keep_companion = header->kind == ROOT_USER; /* the caller's block */
	uint32_t tries = 0; /* each lost race is a word taken: there are not more words */
	int r = draft_make(view, lane, header, init, context, &draft);

	if (r < 0)
		return r;
	do {
		place = view_offset_of(view, root_word(view, index));
		r = heap_publish_at(view, lane, draft.offset, draft.companion, place, 0);
		if (r == 0) {
			*ret_offset = draft.offset;
			return 0;
		}
		if (r != -EAGAIN)
			break;
		/* somebody took the word: perhaps for the same name, else try the next */
		r = root_search(view, header->name, &index, ret_offset, &found);
	} while (r == -ENOENT && ++tries < ROOT_COUNT);
	draft_free(view, lane, &draft, !keep_companion);
	if (r == 0)
		return found.kind == header->kind ? 1 : -EPROTOTYPE;
	return r;
}

int root_open(struct shale_segment *view, struct lane *lane, const char *name, enum root_kind kind,
	      uint64_t size, root_init init, void *context, uint64_t *ret_offset, bool *ret_made)
{
	struct root_shm header = {.kind = (uint32_t)kind, .size = size}, found;
	uint32_t index = 0;
	bool made = false;
	int r;

	if (!name_is_proper(name))
		return -EINVAL;
	r = root_search(view, name, &index, ret_offset, &found);
	if (r == 0 && found.kind != (uint32_t)kind)
		return -EPROTOTYPE;
	if (r == -ENOSPC && !init)
		return -ENOENT; /* every word was looked at */
	if (r == -ENOENT && init) {
		(void)snprintf(header.name, sizeof(header.name), "%s", name);
		r = root_make(view, lane, &header, index, init, context, ret_offset);
		made = r == 0;
	}
	if (r < 0)
		return r;
	if (ret_made)
		*ret_made = made;
	return 0;
}

int root_walk(struct shale_segment *view, root_callback callback, void *context)
{
	struct root_shm root;
	int r = 0;

	for (uint32_t i = 0; i < ROOT_COUNT && r == 0; i++) {
		/* pairs: heap.place - the record is complete. */
		uint64_t offset = load_acquire(root_word(view, i));

		if (offset == 0)
			continue;
		r = root_read(view, offset, &root);
		if (r == 0)
			r = callback(view, offset, &root, context);
	}
	return r;
}

/* -- the user's roots ---------------------------------------------------------------------------- */

static int user_root_init(struct shale_segment *view, struct lane *lane, struct root_shm *record,
			  uint64_t *ret_companion, void *context)
{
	struct root_user_shm *user = (struct root_user_shm *)record;

	(void)view;
	(void)lane;
	user->ref = *(const uint64_t *)context;
	*ret_companion = user->ref;
	return 0;
}

int shale_root_publish(struct shale_segment *segment, const char *name, void *ptr)
{
	uint64_t ref = view_offset_of(segment, ptr), offset;
	struct lane *lane;
	bool made;
	int r = lane_enter(segment, &lane);

	if (r < 0)
		return r;
	if (heap_block_state(segment, ref, NULL) < HEAP_BLOCK_LIVE)
		return -EINVAL;
	r = root_open(segment, lane, name, ROOT_USER, sizeof(struct root_user_shm), user_root_init,
		      &ref, &offset, &made);
	if (r == -EPROTOTYPE || (r == 0 && !made))
		return -EEXIST;
	return r;
}

int shale_root_find(struct shale_segment *segment, const char *name, shale_ref *ret_ref)
{
	const struct root_user_shm *user;
	uint64_t offset;
	int r = root_open(segment, NULL, name, ROOT_USER, 0, NULL, NULL, &offset, NULL);

	if (r < 0)
		return r == -ENOSPC ? -ENOENT : r;
	user = heap_at(segment, offset, sizeof(*user));
	if (!user)
		return view_damaged(segment);
	ret_ref->off = user->ref;
	return 0;
}

struct root_list {
	shale_root_callback callback;
	void *context;
	int count;
};

/* What the public callback gets of a record: of a user's root, the block that it names. */
static int root_list_one(struct shale_segment *view, uint64_t offset, const struct root_shm *record,
			 void *context)
{
	struct root_list *list = context;
	struct shale_root root = {.name = record->name, .kind = record->kind, .size = record->size};
	const struct root_user_shm *user;

	root.ref.off = offset;
	if (record->kind == ROOT_USER) {
		user = heap_at(view, offset, sizeof(*user));
		if (!user)
			return view_damaged(view);
		/* relaxed: written before the record was placed, which root_walk() saw */
		root.ref.off = load_relaxed(&user->ref);
		if (heap_block_state(view, root.ref.off, &root.size) < HEAP_BLOCK_LIVE)
			root.size = 0;
	}
	list->count++;
	if (list->callback)
		list->callback(&root, list->context);
	return 0;
}

int shale_root_list(struct shale_segment *segment, shale_root_callback callback, void *context)
{
	struct root_list list = {.callback = callback, .context = context};
	int r = root_walk(segment, root_list_one, &list);

	return r < 0 ? r : list.count;
}

/* -- checking ------------------------------------------------------------------------------------ */

static int check_root(struct shale_segment *view, uint64_t offset, const struct root_shm *record,
		      void *context)
{
	struct check_context *check = context;
	uint64_t usable = 0, found = 0;
	struct root_shm copy;
	uint32_t index;

	if (heap_block_state(view, offset, &usable) != HEAP_BLOCK_PUBLISHED ||
	    usable < record->size)
		check_report(check, "R1", offset, "a root's record is not a published block");
	if (root_search(view, record->name, &index, &found, &copy) < 0 || found != offset)
		check_report(check, "R2", offset, "a root is not found by its name");
	return 0;
}

void roots_check(struct check_context *check)
{
	if (root_walk(check->view, check_root, check) < 0)
		check_report(check, "R1", check->view->roots_offset, "a root's record is damaged");
}
