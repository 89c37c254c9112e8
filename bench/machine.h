/*
 * machine.h - where figures come from: the first line of the JSON, the head of the table.
 */
#ifndef SHALE_BENCH_MACHINE_H
#define SHALE_BENCH_MACHINE_H

#include "json.h"
#include "options.h"

void machine_write(struct json *json, const struct options *options);
void machine_print(const struct options *options);

#endif
