/* Keeps its processor awake at the lowest priority and looks at the clock all the time: where it sees a gap, others had the
 * processor. soaker FILE writes into FILE's memory how long it had the processor so far, and how quick the machine was: of
 * each 64 looks that of the shortest, for one right behind a gap takes longer. (The method is that of the kernel's osnoise
 * tracer.) */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Looking takes some 30 ns, the smallest of all interrupts many times that. */
#define GAP_NS 400
#define BLOCK 64
#define REGISTER_GLOBAL_EXPEDITED 4 /* see benchmarks/interrupts.py */

struct soaked {
	volatile uint64_t mine_ns;
	volatile uint64_t blocks;
	volatile uint64_t shortest_ns; /* of all blocks */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

int main(int count, char **words)
{
	struct sched_param lowest = {0};
	struct soaked *soaked;
	uint64_t last, now, shortest = GAP_NS;
	int file, looks = 0;

	file = count == 2 ? open(words[1], O_RDWR) : -1;
	soaked = mmap(0, sizeof(*soaked), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (soaked == MAP_FAILED || sched_setscheduler(0, SCHED_IDLE, &lowest)) {
		perror("soaker");
		return 1;
	}
	syscall(SYS_membarrier, REGISTER_GLOBAL_EXPEDITED, 0, 0);
	for (last = now_ns();; last = now) {
		now = now_ns();
		if (now - last > GAP_NS)
			continue;
		soaked->mine_ns += now - last;
		if (now - last < shortest)
			shortest = now - last;
		if (++looks < BLOCK)
			continue;
		soaked->blocks++;
		soaked->shortest_ns += shortest;
		shortest = GAP_NS;
		looks = 0;
	}
}
