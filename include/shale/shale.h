/*
 * shale/shale.h - everything at once: includes each public header of shale.
 *
 * A program that uses one part includes that part's header alone; each header stands by itself
 * in C11 and in C++17.
 */
#ifndef SHALE_SHALE_H
#define SHALE_SHALE_H

#include <shale/channel.h>
#include <shale/debug.h>
#include <shale/doctor.h>
#include <shale/heap.h>
#include <shale/keeper.h>
#include <shale/map.h>
#include <shale/numa.h>
#include <shale/segment.h>
#include <shale/types.h>
#include <shale/wait.h>

#endif
