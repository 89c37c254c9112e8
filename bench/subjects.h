/*
 * subjects.h - the subjects that are linked into shale-bench itself. Those of other libraries are
 * worker programs of their own (peers/).
 */
#ifndef SHALE_BENCH_SUBJECTS_H
#define SHALE_BENCH_SUBJECTS_H

#include "subject.h"

extern const struct subject subject_tlfl;
extern const struct subject subject_none;
extern const struct subject subject_malloc;
extern const struct subject subject_shale;

#endif
