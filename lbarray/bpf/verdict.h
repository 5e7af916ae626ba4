/* Counting. */
#ifndef LBARRAY_VERDICT_H
#define LBARRAY_VERDICT_H

#include "maps.h"

static __always_inline void count(void *tallies, __u32 key, __u64 octets)
{
	struct tally *tally = bpf_map_lookup_elem(tallies, &key);

	if (tally) {
		tally->packets++;
		tally->octets += octets;
	}
}

#endif
