#include <fcntl.h>
#include <shale/shale.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	struct shale_segment *segment;
	struct shale_channel *numbers;
	uint64_t n, sum = 0;
	if (shale_segment_attach(open(argv[argc - 1], O_RDWR), NULL, &segment) ||
	    shale_channel_open(segment, "numbers", NULL, &numbers))
		return fprintf(stderr, "usage: consumer /proc/PID/fd/N, as producer says\n") > 0;
	while (shale_channel_receive(numbers, &n, sizeof(n), NULL, SHALE_NO_DEADLINE) == 0)
		sum += n;
	return printf("sum %llu\n", (unsigned long long)sum) < 0;
}
