/* The way of most packets, in one go: from a client, IPv4 without options, a whole TCP segment that begins no
 * connection, for one of the first services and a worker of this segment. Whatever is different in any way is left to
 * the general program, which would decide the same. */
#ifndef LBARRAY_PLAIN_H
#define LBARRAY_PLAIN_H

#include "choose.h"

#define VERSION_4_WITHOUT_OPTIONS 0x45

static __always_inline const struct service *at_the_front(const struct config *config, __u64 plain)
{
#pragma unroll
	for (int place = 0; place < FRONTS; place++) {
		if (config->fronts[place].plain == plain)
			return &config->fronts[place].service;
	}
	return 0;
}

/* The worker that the packet goes to, and that it was counted for; none: it is no such packet. */
static __always_inline const struct worker *forward_plain(const struct cursor *cursor, const struct config *config,
							   __u32 octets)
{
	const struct ethernet *ethernet = cursor->at;
	const struct iphdr *ip = (void *)(ethernet + 1);
	const struct tcphdr *tcp = (void *)(ip + 1);
	const __u8 *begins = (void *)ip;
	const struct service *service;
	const struct memory *memory;
	const struct worker *worker;
	const struct row *row;
	struct share *share;
	struct flow flow;
	__u32 total, index, key, cached = 0;
	__u64 hash;
	__u8 first, flags, words;

	if ((void *)(tcp + 1) > cursor->end || ethernet->type != bpf_htons(ETH_P_IP) ||
	    config->near[((const __u8 *)ethernet->source)[5]])
		return 0;
	total = bpf_ntohs(ip->tot_len);
	first = *(const __u8 *)&ip->saddr;
	if (*begins != VERSION_4_WITHOUT_OPTIONS || ip->protocol != IPPROTO_TCP ||
	    ip->frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS) || (__u8)(first - 1) >= 223 || first == 127 ||
	    ip->saddr == ip->daddr || total > octets - sizeof(*ethernet))
		return 0;
	flags = ((const __u8 *)tcp)[13];
	words = tcp->doff;
	if (flags & TCP_SYN || !(flags & (TCP_RST | TCP_ACK)) || !tcp->source || words < 5 ||
	    words * 4 + sizeof(*ip) > total)
		return 0;
	service = at_the_front(config, word_of(ip->daddr, pair_of(tcp->dest, bpf_htons(IPPROTO_TCP << 8))));
	if (!service || !service->active)
		return 0;
	flow.words[0] = 0;
	flow.words[1] = mapped(ip->saddr);
	flow.source_port = tcp->source;
	hash = hash_flow(&flow, 1, service, config);
	row = row_at(config->epoch, config, hash >> 32);
	if (!row)
		return 0;
	index = row->now;
	if (service->choice || row->before[0] != NOBODY) {
		memory = recall(&flow, place_of(&flow, service, hash), service);
		if (memory) {
			index = memory->worker;
			cached = 1;
		}
	}
	worker = bpf_map_lookup_elem(&workers, &index);
	if (!worker || worker->flags != WORKER_KNOWN)
		return 0;
	key = service->slot * MAX_WORKERS + index;
	share = bpf_map_lookup_elem(&shares, &key);
	if (share) {
		share->packets++;
		share->octets += octets;
		share->cached += cached;
	}
	return worker;
}

#endif
