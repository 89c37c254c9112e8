#include <shale/shale.h>
#include <stdio.h>
#include <unistd.h>
int main(void)
{
	struct shale_segment *segment;
	struct shale_channel *numbers;
	if (shale_segment_create(NULL, &segment) ||
	    shale_channel_open(segment, "numbers", NULL, &numbers))
		return fprintf(stderr, "no segment here: try shale doctor\n") > 0;
	fprintf(stderr, "run: consumer /proc/%d/fd/%d\n", getpid(), shale_segment_fd(segment));
	for (uint64_t n = 1; n <= 1000000; n++)
		shale_channel_send(numbers, &n, sizeof(n), SHALE_NO_DEADLINE);
	return shale_channel_shutdown(numbers);
}
