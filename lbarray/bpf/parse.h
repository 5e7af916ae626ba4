/* From octets to a flow: each step checks its own bounds and says why it stops. */
#ifndef LBARRAY_PARSE_H
#define LBARRAY_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include "abi.h"

struct cursor {
	void *at;
	void *end;
};

/* Client first: source is the client, destination the VIP. Network order. */
struct flow {
	__u32 source[4];
	struct service_key to;
	__u16 source_port;
};

#define GO_ON VERDICTS /* a step's answer when the packet is still of interest */

static __always_inline enum verdict parse_ethernet(struct cursor *cursor, __u16 *protocol)
{
	struct ethhdr *ethernet = cursor->at;

	if ((void *)(ethernet + 1) > cursor->end)
		return PASSED_TRUNCATED;
	*protocol = ethernet->h_proto;
	cursor->at = ethernet + 1;
	return GO_ON;
}

static __always_inline enum verdict parse_ipv4(struct cursor *cursor, struct flow *flow)
{
	struct iphdr *ip = cursor->at;
	__u32 length;

	if ((void *)(ip + 1) > cursor->end)
		return PASSED_TRUNCATED;
	length = ip->ihl * 4;
	if (length < sizeof(*ip))
		return PASSED_TRUNCATED;
	if (ip->protocol != IPPROTO_TCP)
		return PASSED_NOT_TCP;
	/* A later fragment has no ports. Linux reassembles before the local stack sees it, so pass all of them up. */
	if (ip->frag_off & bpf_htons(0x3fff))
		return PASSED_FRAGMENT;
	flow->source[0] = 0;
	flow->source[1] = 0;
	flow->source[2] = bpf_htonl(0xffff);
	flow->source[3] = ip->saddr;
	__builtin_memset(flow->to.address, 0, 10);
	flow->to.address[10] = 0xff;
	flow->to.address[11] = 0xff;
	__builtin_memcpy(flow->to.address + 12, &ip->daddr, 4);
	flow->to.protocol = IPPROTO_TCP;
	cursor->at += length;
	return GO_ON;
}

static __always_inline enum verdict parse_ipv6(struct cursor *cursor, struct flow *flow)
{
	struct ipv6hdr *ip = cursor->at;

	if ((void *)(ip + 1) > cursor->end)
		return PASSED_TRUNCATED;
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return PASSED_FRAGMENT;
	if (ip->nexthdr != IPPROTO_TCP)
		return PASSED_NOT_TCP;
	__builtin_memcpy(flow->source, &ip->saddr, 16);
	__builtin_memcpy(flow->to.address, &ip->daddr, 16);
	flow->to.protocol = IPPROTO_TCP;
	cursor->at = ip + 1;
	return GO_ON;
}

static __always_inline enum verdict parse_tcp(struct cursor *cursor, struct flow *flow)
{
	struct tcphdr *tcp = cursor->at;

	if ((void *)(tcp + 1) > cursor->end)
		return PASSED_TRUNCATED;
	flow->source_port = tcp->source;
	flow->to.port = tcp->dest;
	flow->to.pad = 0;
	return GO_ON;
}

#endif
