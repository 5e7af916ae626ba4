/* Workers beyond a router: a packet is put into another one (IPIP, RFC 2003 and 2473, or GUE) that is addressed to the
 * worker's node, and taken out there by this same program, for not every kernel has the tunnels. Only other nodes of the
 * array may send such packets; whatever else comes in tunnels is left to the kernel. */
#ifndef LBARRAY_TUNNEL_H
#define LBARRAY_TUNNEL_H

#include "choose.h"

#define PROTOCOL_IPV4 4
#define PROTOCOL_IPV6 41
#define OUTER_TTL 64

struct gue {
	__u8 control; /* version 0, a header of one more word */
	__u8 protocol;
	__be16 flags;
	__be16 private;
	__u8 passes; /* in as many bits as PASSES_OF_TWO_ROWS has */
	__u8 pad;
};

static __always_inline int is_tunnelled(const struct worker *worker)
{
	return worker->flags & (WORKER_IPIP | WORKER_GUE);
}

static __always_inline __u32 outer_length(const struct worker *worker)
{
	__u32 length = is_ipv4(worker->address) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	return worker->flags & WORKER_GUE ? length + sizeof(struct udphdr) + sizeof(struct gue) : length;
}

/* How long the headers are that another node has put around the packet; 0: none. Learns how it came, and what it is. */
static __always_inline __u32 find_tunnel(const struct cursor *cursor, const struct config *config,
					 struct packet *packet)
{
	struct ethernet *ethernet = cursor->at;
	__u32 length, source[4] = {}, passes, least, *peer;
	const __u32 *own = (const __u32 *)config->address;
	__u8 protocol;

	if (!config->tunnels || (void *)(ethernet + 1) > cursor->end)
		return 0;
	if (ethernet->type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > cursor->end || ip->version != 4 || ip->ihl != 5 || ip->daddr != own[3] ||
		    !is_ipv4(config->address) || ip->frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS))
			return 0;
		source[2] = bpf_htonl(0xffff);
		source[3] = ip->saddr;
		protocol = ip->protocol;
		passes = bpf_ntohs(ip->id) >> 8 == TUNNEL_MARK ? bpf_ntohs(ip->id) & PASSES_OF_TWO_ROWS : 0;
		length = sizeof(*ip);
	} else if (ethernet->type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > cursor->end || ip->version != 6 || ip->daddr.s6_addr32[0] != own[0] ||
		    ip->daddr.s6_addr32[1] != own[1] || ip->daddr.s6_addr32[2] != own[2] ||
		    ip->daddr.s6_addr32[3] != own[3])
			return 0;
		__builtin_memcpy(source, &ip->saddr, 16);
		protocol = ip->nexthdr;
		passes = ip->flow_lbl[1] == TUNNEL_MARK ? ip->flow_lbl[2] & PASSES_OF_TWO_ROWS : 0;
		length = sizeof(*ip);
	} else {
		return 0;
	}
	if (protocol == IPPROTO_UDP) {
		struct udphdr *udp = (void *)(ethernet + 1) + length;
		struct gue *gue = (void *)(udp + 1);

		if ((void *)(gue + 1) > cursor->end || udp->dest != bpf_htons(GUE_PORT) || gue->control != 1 ||
		    gue->flags || gue->private != bpf_htons(GUE_PRIVATE))
			return 0;
		protocol = gue->protocol;
		passes = gue->passes & PASSES_OF_TWO_ROWS;
		length += sizeof(*udp) + sizeof(*gue);
	}
	if (protocol != PROTOCOL_IPV4 && protocol != PROTOCOL_IPV6)
		return 0;
	/* Less is no whole segment, and the kernel takes nothing out before so little. */
	least = protocol == PROTOCOL_IPV4 && ethernet->type == bpf_htons(ETH_P_IP) ? sizeof(struct iphdr)
										    : sizeof(struct ipv6hdr);
	if ((void *)(ethernet + 1) + length + least > cursor->end)
		return 0;
	peer = bpf_map_lookup_elem(&tunnel_peers, source);
	if (!peer)
		return 0;
	packet->sender = passes ? *peer + 1 : 0;
	packet->ethertype = protocol == PROTOCOL_IPV4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	packet->hop = SCHEDULED + passes;
	return length;
}

static __always_inline __u8 passes_of(const struct packet *packet, int verdict)
{
	if (verdict != PASSED_ON)
		return 0;
	return packet->hop <= SCHEDULED ? 1 : packet->hop;
}

static __always_inline __u16 sum_of_header(const struct iphdr *ip)
{
	const __u16 *halves = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int place = 0; place < 10; place++)
		sum += halves[place];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* The outer source port tells connections apart for those who spread packets by it. */
static __always_inline __be16 entropy(const struct packet *packet)
{
	const __u32 *source = (const __u32 *)packet->flow.source;
	__u32 mixed = source[3] ^ source[2] ^ source[1] ^ packet->flow.source_port;

	return bpf_htons(0xc000) | ((mixed ^ mixed >> 16) & bpf_htons(0x3fff));
}

/* Write the outer headers into the room that was made for them. */
static __always_inline int write_outer(const struct cursor *cursor, const struct packet *packet,
				       const struct config *config, const struct worker *worker, __u8 passes,
				       __u32 octets)
{
	struct ethernet *ethernet = cursor->at;
	__u8 inner = packet->ethertype == bpf_htons(ETH_P_IP) ? PROTOCOL_IPV4 : PROTOCOL_IPV6;
	__u8 protocol = worker->flags & WORKER_GUE ? IPPROTO_UDP : inner;
	__u32 content = octets + (worker->flags & WORKER_GUE ? sizeof(struct udphdr) + sizeof(struct gue) : 0);
	void *after;

	if ((void *)(ethernet + 1) > cursor->end)
		return 0;
	write_macs(ethernet, aligned_word(worker->mac), aligned_word(config->mac));
	if (is_ipv4(worker->address)) {
		struct iphdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > cursor->end)
			return 0;
		ethernet->type = bpf_htons(ETH_P_IP);
		__builtin_memset(ip, 0, sizeof(*ip));
		ip->version = 4;
		ip->ihl = 5;
		ip->tot_len = bpf_htons(sizeof(*ip) + content);
		ip->id = bpf_htons(TUNNEL_MARK << 8 | passes); /* free for use where nothing is fragmented (RFC 6864) */
		ip->frag_off = bpf_htons(0x4000);
		ip->ttl = OUTER_TTL;
		ip->protocol = protocol;
		__builtin_memcpy(&ip->saddr, config->address + 12, 4);
		__builtin_memcpy(&ip->daddr, worker->address + 12, 4);
		ip->check = sum_of_header(ip);
		after = ip + 1;
	} else {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > cursor->end)
			return 0;
		ethernet->type = bpf_htons(ETH_P_IPV6);
		__builtin_memset(ip, 0, sizeof(*ip));
		ip->version = 6;
		ip->flow_lbl[1] = TUNNEL_MARK;
		ip->flow_lbl[2] = passes;
		ip->payload_len = bpf_htons(content);
		ip->nexthdr = protocol;
		ip->hop_limit = OUTER_TTL;
		__builtin_memcpy(&ip->saddr, config->address, 16);
		__builtin_memcpy(&ip->daddr, worker->address, 16);
		after = ip + 1;
	}
	if (worker->flags & WORKER_GUE) {
		struct udphdr *udp = after;
		struct gue *gue = (void *)(udp + 1);

		if ((void *)(gue + 1) > cursor->end)
			return 0;
		udp->source = entropy(packet);
		udp->dest = bpf_htons(GUE_PORT);
		udp->len = bpf_htons(content);
		udp->check = 0; /* the inner packet has its own (RFC 6935) */
		gue->control = 1;
		gue->protocol = inner;
		gue->flags = 0;
		gue->private = bpf_htons(GUE_PRIVATE);
		gue->passes = passes;
		gue->pad = 0;
	}
	return 1;
}

#endif
