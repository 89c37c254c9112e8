/* Recovery of who died purging, converting or expanding: killed itself at each instruction. */
#include "heap_purge_scene.h"

static uint8_t *own_fact(struct world *w, unsigned char *block, uint64_t *ret_slab,
			 const struct bin_info **ret_bin)
{
	uint64_t offset = view_offset_of(w->segment, block);

	*ret_slab = slab_of_offset(w->segment, offset);
	*ret_bin = &bin_table[slab_word_bin(*slab_word(w->segment, *ret_slab))];
	return slab_own_facts(w->segment, *ret_bin, *ret_slab) +
	       bin_block_index(*ret_bin, (uint32_t)(offset % SLAB_SIZE));
}

/* The facts of the slab's kept blocks, as a look at the dense ones finds them. */
static void look(struct world *w, uint64_t slab, struct sparse_fact *ret_facts)
{
	const struct bin_info *bin;
	unsigned count = 0;
	uint64_t of;

	for (unsigned i = 0; i < w->table->count; i++) {
		unsigned char *block = w->table->kept[i];
		uint8_t *own = own_fact(w, block, &of, &bin);

		if (of != slab)
			continue;
		ASSERT_LT(count, SPARSE_FACTS);
		ret_facts[count++] = (struct sparse_fact){
			(uint16_t)(own - slab_own_facts(w->segment, bin, slab)), own[0],
			own[bin->facts_half]};
	}
}

/* As purge.c up to the barrier; the first block of each slab is freed between look and switch. */
static void convert_and_die(struct world *w)
{
	uint64_t done = UINT64_MAX, slab;
	const struct bin_info *bin;
	bool freed[KEPT_MAX] = {false};

	ASSERT_TRUE(lease_take(my_lane(w), 0, LEASE_CONVERT));
	for (unsigned i = 0; i < w->table->count; i++) {
		struct sparse_fact facts[SPARSE_FACTS] = {{0}};
		uint8_t *own = own_fact(w, w->table->kept[i], &slab, &bin);

		if (slab == done)
			continue;
		done = slab;
		ASSERT_TRUE(slab_hold(w->segment, slab, *slab_word(w->segment, slab)));
		look(w, slab, facts);
		/* half by another lane, half by their owner */
		if (i % 2)
			own[bin->facts_half] = SHARED_FREED;
		else
			own[0] = OWN_FREE;
		sparse_switch(w->segment, slab, facts);
		freed[i] = true;
	}
	for (unsigned i = 0; i < w->table->count; i++)
		if (freed[i])
			w->table->kept[i] = NULL;
	(void)raise(SIGKILL);
}

/* In phase 2: dense facts of held slabs are holes, free slabs claimed, marked and not punched. */
static void punch_and_die(struct world *w)
{
	struct arena_shm *arena = heap_arena(w->segment, 0);
	struct lane *lane = my_lane(w);

	ASSERT_TRUE(lease_take(lane, 0, LEASE_PUNCH));
	for (unsigned s = 0; s < SLABS_PER_ARENA; s++) {
		uint64_t word = arena->word[s];

		if (slab_word_let_go(word) && (word & SLAB_SPARSE)) {
			ASSERT_TRUE(slab_hold(w->segment, s, word));
			memset(slab_own_facts(w->segment, &bin_table[slab_word_bin(word)], s), 0,
			       2u * bin_table[slab_word_bin(word)].facts_half);
		} else if (slab_word_state(word) == SLAB_FREE) {
			arena->word[s] =
				slab_word_next(word, slab_low(SLAB_CLAIMED, lane->index, 0));
			arena->punched[s] = 0xffff;
			arena->facts_gone |= 1u << s;
		}
	}
	(void)raise(SIGKILL);
}

/* Owned again, and what was freed in the entry meanwhile is not merged yet. */
static void expand_and_die(struct world *w)
{
	uint64_t offset, slab, word;
	struct lane *lane = my_lane(w);
	struct sparse_fact fact;
	const struct bin_info *bin;
	uint8_t *own = own_fact(w, w->table->kept[w->table->count - 1], &slab, &bin);

	ASSERT_TRUE(lease_take(lane, 0, LEASE_PUNCH));
	word = *slab_word(w->segment, slab);
	ASSERT_EQ(slab_word_state(word), SLAB_ORPHAN);
	ASSERT_TRUE(slab_hold(w->segment, slab, word));
	ASSERT_OK(slab_make_whole(w->segment, slab, bin));
	for (unsigned k = 0; k < SPARSE_FACTS; k++) {
		fact = sparse_load(sparse_entry(w->segment, slab, k));
		slab_own_facts(w->segment, bin, slab)[fact.index] = fact.own;
		slab_own_facts(w->segment, bin, slab)[bin->facts_half + fact.index] = fact.shared;
	}
	own[0] = OWN_PUBLISHED;
	own[bin->facts_half] = SHARED_NONE;
	offset = view_offset_of(w->segment, w->table->kept[w->table->count - 1]);
	for (unsigned k = 0; k < SPARSE_FACTS; k++) {
		fact = sparse_load(sparse_entry(w->segment, slab, k));
		if (fact.own && fact.index == bin_block_index(bin, (uint32_t)(offset % SLAB_SIZE)))
			sparse_entry(w->segment, slab, k)->shared = SHARED_FREED;
	}
	word = *slab_word(w->segment, slab);
	*slab_word(w->segment, slab) =
		slab_word_next(word, slab_low(SLAB_OWNED, lane->index, slab_word_bin(word)));
	w->table->kept[w->table->count - 1] = NULL;
	(void)raise(SIGKILL);
}

static void die_in(struct world *w, void (*body)(struct world *w))
{
	pid_t pid = test_fork();

	ASSERT_SYS(pid);
	if (pid == 0) {
		body(w);
		_exit(1);
	}
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
}

static void die_converting(void *context)
{
	make(context);
	die_in(context, convert_and_die);
}

static void die_punching(void *context)
{
	make_purged(context);
	die_in(context, punch_and_die);
}

static void die_expanding(void *context)
{
	make_purged(context);
	die_in(context, expand_and_die);
}

static void kill_recovery(void (*setup)(void *context))
{
	run_kill(
		"recover",
		(struct step_case){.setup = setup, .prepare = attach_only, .operation = do_recover},
		(struct step_options){.dense = 10, .stride = 607}, 1);
}

TEST_V_TIMEOUT(heap_purge_kill, recovery_of_one_who_converted, sizes, 300)
{
	world_init(variant->value);
	kill_recovery(die_converting);
}

TEST_V_TIMEOUT(heap_purge_kill, recovery_of_one_who_punched, sizes, 300)
{
	world_init(variant->value);
	kill_recovery(die_punching);
}

TEST_V_TIMEOUT(heap_purge_kill, recovery_of_one_who_expanded, sizes, 300)
{
	world_init(variant->value);
	kill_recovery(die_expanding);
}
