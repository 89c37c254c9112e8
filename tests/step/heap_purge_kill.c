/* Purging, converting facts, expanding them, and frees: killed at each instruction. */
#include "heap_purge_scene.h"

TEST_V_TIMEOUT(heap_purge_kill, purge, sizes, 300)
{
	world_init(variant->value);
	run_kill("purge",
		 (struct step_case){.setup = make, .prepare = attach_only, .operation = do_purge},
		 (struct step_options){.dense = 10, .stride = 41}, 2);
}

TEST_V_TIMEOUT(heap_purge_kill, purge_of_what_was_purged, sizes, 300)
{
	world_init(variant->value);
	run_kill("purge again",
		 (struct step_case){
			 .setup = make_purged, .prepare = park_own, .operation = do_purge},
		 (struct step_options){.dense = 10, .stride = 41}, 1);
}

/* The survivor's parked slabs are not the victim's to reopen: it adopts the orphans. */
TEST_V_TIMEOUT(heap_purge_kill, adopting_a_sparse_orphan, sizes, 300)
{
	world_init(variant->value);
	run_kill("adopt",
		 (struct step_case){
			 .setup = make_purged, .prepare = attach_only, .operation = do_alloc},
		 (struct step_options){.dense = 10, .stride = 29}, 1);
}

TEST_V_TIMEOUT(heap_purge_kill, reopening_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("reopen",
		 (struct step_case){
			 .setup = make, .prepare = park_own_and_purge, .operation = do_alloc},
		 (struct step_options){.dense = 10, .stride = 29}, 1);
}

TEST_V_TIMEOUT(heap_purge_kill, free_in_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("sparse free",
		 (struct step_case){.setup = make_purged,
				    .prepare = attach_only,
				    .operation = do_free,
				    .check = judge_free},
		 (struct step_options){0}, 2);
}

static void make_purged_but_one(void *context)
{
	struct world *w = context;
	uint64_t slab;

	make_purged(context);
	slab = slab_of_offset(w->segment, view_offset_of(w->segment, w->table->kept[0]));
	for (unsigned i = 1; i < w->table->count; i++) {
		uint64_t offset = view_offset_of(w->segment, w->table->kept[i]);

		if (slab_of_offset(w->segment, offset) != slab)
			continue;
		ASSERT_OK(shale_free(w->segment, w->table->kept[i]));
		w->table->kept[i] = NULL;
	}
}

TEST_V_TIMEOUT(heap_purge_kill, free_of_the_last_block_of_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("last sparse free",
		 (struct step_case){.setup = make_purged_but_one,
				    .prepare = attach_only,
				    .operation = do_free,
				    .check = judge_free},
		 (struct step_options){.dense = 300, .stride = 7}, 2);
}

TEST_V_TIMEOUT(heap_purge_kill, free_of_ones_own_in_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("own sparse free",
		 (struct step_case){.setup = make_purged,
				    .prepare = park_own_and_purge,
				    .operation = do_free_own},
		 (struct step_options){0}, 1);
}

TEST_V_TIMEOUT(heap_purge_kill, publish_in_a_sparse_slab, sizes, 300)
{
	world_init(variant->value);
	run_kill("sparse publish",
		 (struct step_case){.setup = make_purged,
				    .prepare = park_own_and_purge,
				    .operation = do_publish,
				    .check = judge_published},
		 (struct step_options){0}, 2);
}
