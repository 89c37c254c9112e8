/*
 * boost.cc - Boost.Interprocess: managed_shared_memory, its best-fit allocator under one mutex.
 *
 * The object's name is removed as soon as it is mapped: worker processes inherit the mapping, and
 * nothing is left behind. An address is the same in all of them.
 */
#include <boost/interprocess/managed_shared_memory.hpp>

#include <cstdio>
#include <string>
#include <unistd.h>

#include "boost.h"

namespace ipc = boost::interprocess;

static ipc::managed_shared_memory *memory;

extern "C" int boost_heap_open(uint64_t bytes, char *reason, size_t size)
{
	std::string name = "shale-bench-" + std::to_string(getpid());

	try {
		ipc::shared_memory_object::remove(name.c_str());
		memory = new ipc::managed_shared_memory(ipc::create_only, name.c_str(), bytes);
		ipc::shared_memory_object::remove(name.c_str());
	} catch (const std::exception &error) {
		ipc::shared_memory_object::remove(name.c_str());
		snprintf(reason, size, "%s", error.what());
		return -1;
	}
	return 0;
}

extern "C" void *boost_heap_alloc(size_t size)
{
	return memory->allocate(size, std::nothrow);
}

extern "C" void boost_heap_free(void *ptr)
{
	memory->deallocate(ptr);
}
