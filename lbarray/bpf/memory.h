/* What this node knows of connections: an array of places, each for whichever connection was last put there. Putting one
 * there takes a store and no look, where a hash table with a list of what was least recently used takes longer than all
 * else that is done for a packet. Who finds nothing asks the kernel, or relies on the second chance. */
#ifndef LBARRAY_MEMORY_H
#define LBARRAY_MEMORY_H

#include "maps.h"
#include "packet.h"

/* By client, many connections have the same hash: what else they differ in is added. Which places another client's
 * connections have nobody knows without the secret. decision.py computes the same. */
static __always_inline __u32 place_of(const struct flow *flow, const struct service *service, __u32 hash)
{
	const __u32 *source = (const __u32 *)flow->source;

	hash += source[3] * 0x9e3779b1 + flow->source_port * 0x85ebca6b + service->number * 0xc2b2ae35;
	return hash >> (32 - FLOW_BITS);
}

static __always_inline void remember(const struct packet *packet, const struct service *service, __u16 worker)
{
	__u32 place = packet->place;
	struct memory *memory = bpf_map_lookup_elem(&flows, &place);
	__u64 *words = (__u64 *)memory;

	if (!memory)
		return;
	words[0] = packet->flow.words[0];
	words[1] = packet->flow.words[1];
	words[2] = word_of(pair_of(packet->flow.source_port, service->number), pair_of(worker, packet->epoch));
	words[3] = word_of(packet->sequence, 0);
}

static __always_inline const struct memory *recall(const struct flow *flow, __u32 place, const struct service *service)
{
	const __u64 *wanted = flow->words, *found;
	const struct memory *memory = bpf_map_lookup_elem(&flows, &place);

	if (!memory)
		return 0;
	found = (const __u64 *)memory;
	if (found[1] != wanted[1] || found[0] != wanted[0] || memory->source_port != flow->source_port ||
	    memory->service != service->number)
		return 0;
	return memory;
}

#endif
