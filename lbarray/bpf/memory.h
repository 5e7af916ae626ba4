/* What this node knows of connections: an array of places, each for whichever connection was last put there. Putting one
 * there takes a store and no look, where a hash table with a list of what was least recently used takes longer than all
 * else that is done for a packet. Who finds nothing asks the kernel, or relies on the second chance. */
#ifndef LBARRAY_MEMORY_H
#define LBARRAY_MEMORY_H

#include "maps.h"
#include "packet.h"

/* By client, many connections have the same hash: what else they differ in is added. Which places another client's
 * connections have nobody knows without the secret. decision.py computes the same. */
static __always_inline __u32 place_of(const struct packet *packet, const struct service *service, __u32 hash)
{
	const __u32 *source = (const __u32 *)packet->flow.source;

	hash += source[3] * 0x9e3779b1 + packet->flow.source_port * 0x85ebca6b + service->number * 0xc2b2ae35;
	return hash >> (32 - FLOW_BITS);
}

static __always_inline void remember(const struct packet *packet, const struct service *service, __u16 worker)
{
	__u32 place = packet->place;
	struct memory *memory = bpf_map_lookup_elem(&flows, &place);
	struct memory learned = {
		.source_port = packet->flow.source_port,
		.service = service->number,
		.worker = worker,
		.epoch = packet->epoch,
		.sequence = packet->sequence,
	};

	if (!memory)
		return;
	__builtin_memcpy(learned.source, packet->flow.source, sizeof(learned.source));
	*memory = learned;
}

static __always_inline const struct memory *recall(const struct packet *packet, const struct service *service)
{
	const __u64 *wanted = (const __u64 *)packet->flow.source, *found;
	__u32 place = packet->place;
	const struct memory *memory = bpf_map_lookup_elem(&flows, &place);

	if (!memory)
		return 0;
	found = (const __u64 *)memory->source;
	if (found[1] != wanted[1] || found[0] != wanted[0] || memory->source_port != packet->flow.source_port ||
	    memory->service != service->number)
		return 0;
	return memory;
}

#endif
