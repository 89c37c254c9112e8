/*
 * steps.c - the tables that look up through all layers: recovery, check, statistics.
 *
 * Owner:     nobody; constant tables. The order is the order in which they run.
 * Death:     the steps say it themselves.
 */
#include "segment/recovery.h"

#include <stddef.h>

const struct recovery_step recovery_steps[] = {
	{NULL, NULL},
};

const struct check_step check_steps[] = {
	{"segment", segment_check},
	{NULL, NULL},
};

void segment_stat_fill(struct shale_segment *view, struct shale_segment_stat *stat)
{
	(void)view;
	(void)stat;
}
