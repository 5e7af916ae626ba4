/* Counting. */
#ifndef LBARRAY_VERDICT_H
#define LBARRAY_VERDICT_H

#include "maps.h"
#include "packet.h"

static __always_inline void count(__u32 verdict, __u64 octets)
{
	struct tally *tally = bpf_map_lookup_elem(&verdicts, &verdict);

	if (tally) {
		tally->packets++;
		tally->octets += octets;
	}
}

/* What goes to a worker by its row is counted here alone: one look-up for the most of all packets. */
static __always_inline void count_share(const struct packet *packet, __u32 verdict, __u64 octets)
{
	__u32 key = packet->slot * MAX_WORKERS + packet->worker;
	struct share *share = bpf_map_lookup_elem(&shares, &key);

	if (!share)
		return;
	if (verdict == PASSED_ON) {
		share->passed_on++;
		return;
	}
	share->packets++;
	share->octets += octets;
	if (begins_connection(packet)) {
		share->connections++;
		share->chosen += packet->is_chosen;
	}
	if (packet->is_cached)
		share->cached++;
}

#endif
