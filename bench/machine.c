/*
 * machine.c - processor, kernel, cores, memory, page sizes, load.
 */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <shale/types.h>

struct machine {
	char processor[128];
	struct utsname system;
	long cpus, page_bytes;
	double memory_bytes, load;
	char thp[128], thp_shared[128];
	char date[32];
};

/* The value of "key : value" in a file. */
static void read_key(const char *path, const char *key, char *value, size_t size)
{
	char line[256];
	FILE *file = fopen(path, "re");

	snprintf(value, size, "unknown");
	while (file && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, key, strlen(key)) != 0 || !colon)
			continue;
		colon += 1 + strspn(colon + 1, " \t");
		colon[strcspn(colon, "\n")] = '\0';
		snprintf(value, size, "%s", colon);
		break;
	}
	if (file)
		fclose(file);
}

/* The word in brackets of a THP setting. */
static void read_choice(const char *path, char *value, size_t size)
{
	char line[128] = "";
	FILE *file = fopen(path, "re");
	const char *word;

	if (file) {
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
		fclose(file);
	}
	word = strchr(line, '[');
	snprintf(value, size, "%.*s", word ? (int)strcspn(word + 1, "]") : 7,
		 word ? word + 1 : "unknown");
}

static void machine_read(struct machine *machine)
{
	time_t now = time(NULL);
	struct tm date;

	memset(machine, 0, sizeof(*machine));
	read_key("/proc/cpuinfo", "model name", machine->processor, sizeof(machine->processor));
	uname(&machine->system);
	machine->cpus = sysconf(_SC_NPROCESSORS_ONLN);
	machine->page_bytes = sysconf(_SC_PAGESIZE);
	machine->memory_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)machine->page_bytes;
	if (getloadavg(&machine->load, 1) != 1)
		machine->load = -1;
	read_choice("/sys/kernel/mm/transparent_hugepage/enabled", machine->thp,
		    sizeof(machine->thp));
	read_choice("/sys/kernel/mm/transparent_hugepage/shmem_enabled", machine->thp_shared,
		    sizeof(machine->thp_shared));
	strftime(machine->date, sizeof(machine->date), "%Y-%m-%d %H:%M", gmtime_r(&now, &date));
}

#ifdef __OPTIMIZE__
static const bool optimized = true;
#else
static const bool optimized = false;
#endif

void machine_write(struct json *json, const struct options *options)
{
	struct machine machine;

	machine_read(&machine);
	json_begin(json);
	json_text(json, "program", "shale-bench");
	json_text(json, "version", shale_version_string());
	json_bool(json, "optimized", optimized);
	json_text(json, "machine", machine.processor);
	json_text(json, "kernel", machine.system.release);
	json_text(json, "architecture", machine.system.machine);
	json_number(json, "cpus", (double)machine.cpus);
	json_number(json, "page_size", (double)machine.page_bytes);
	json_number(json, "memory_bytes", machine.memory_bytes);
	json_text(json, "thp", machine.thp);
	json_text(json, "thp_shared", machine.thp_shared);
	json_number(json, "load", machine.load);
	json_text(json, "date", machine.date);
	json_number(json, "rounds", options->rounds);
	json_text(json, "clock", options->cpu_clock ? "cpu" : "wall");
	json_bool(json, "quick", options->quick);
	json_end(json);
}

void machine_print(const struct options *options)
{
	struct machine machine;

	machine_read(&machine);
	printf("%s, %ld cores, Linux %s, pages of %ld bytes, THP %s (shared: %s), load %.2f\n",
	       machine.processor, machine.cpus, machine.system.release, machine.page_bytes,
	       machine.thp, machine.thp_shared, machine.load);
	printf("workers pinned to cores, %u rounds, every subject once a round with the "
	       "limit%s%s\n",
	       options->rounds, options->quick ? "; QUICK: these numbers mean nothing" : "",
	       optimized ? "" : "; built WITHOUT optimisation: these numbers mean little");
}
