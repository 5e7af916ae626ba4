/* From a flow to a row: the hash. lbarray/scheduler/decision.py computes the same. */
#ifndef LBARRAY_FLOW_H
#define LBARRAY_FLOW_H

#include "abi.h"
#include "parse.h"

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	word *= 0xcc9e2d51;
	word = (word << 15) | (word >> 17);
	word *= 0x1b873593;
	hash ^= word;
	hash = (hash << 13) | (hash >> 19);
	return hash * 5 + 0xe6546b64;
}

static __always_inline __u32 finish(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ (hash >> 16);
}

/* Words are taken as big-endian numbers, so that every machine of an array agrees. */
static __always_inline __u32 hash_flow(const struct flow *flow, __u32 hash_by, __u32 seed)
{
	__u32 hash = seed;

	hash = mix(hash, bpf_ntohl(flow->source[0]));
	hash = mix(hash, bpf_ntohl(flow->source[1]));
	hash = mix(hash, bpf_ntohl(flow->source[2]));
	hash = mix(hash, bpf_ntohl(flow->source[3]));
	if (hash_by == HASH_BY_CONNECTION)
		hash = mix(hash, ((__u32)bpf_ntohs(flow->source_port) << 16) | bpf_ntohs(flow->to.port));
	return finish(hash);
}

#endif
