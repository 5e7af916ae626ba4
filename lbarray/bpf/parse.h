/* From octets to addresses: each step checks its own bounds and says why it stops. What is wrong with a packet is told
 * only where its destination is known, for only packets to VIPs are ours to drop. */
#ifndef LBARRAY_PARSE_H
#define LBARRAY_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"
#include "packet.h"

#define FRAGMENT_OFFSET 0x1fff
#define MORE_FRAGMENTS 0x2000
#define EXTENSION_HEADERS 4

struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

struct extension {
	__u8 next;
	__u8 length;
	__be16 offset;
	__be32 id;
};

static __always_inline int is_peer(const struct config *config, const __u16 *mac)
{
	__u64 key, near = config->near[((const __u8 *)mac)[5]];

	if (!near)
		return 0;
	key = mac_of(mac);
	return key == near || bpf_map_lookup_elem(&peers, &key) != 0;
}

static __always_inline int is_own(const struct config *config, const __u16 *mac)
{
	return mac_of(mac) == aligned_word(config->mac);
}

/* Behind up to two VLAN tags (IEEE 802.1Q, 802.1ad) and the mark of a frame that a worker passed on. */
static __always_inline int parse_ethernet(struct cursor *cursor, struct packet *packet, const struct config *config)
{
	struct ethernet *ethernet = cursor->at;
	struct vlan_tag *tag;
	__u16 ethertype;

	if ((void *)(ethernet + 1) > cursor->end)
		return PASSED_NOT_IP;
	ethertype = ethernet->type;
	cursor->at = ethernet + 1;
	packet->layer3 = sizeof(*ethernet);
#pragma unroll
	for (int tags = 0; tags < 2; tags++) {
		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		tag = cursor->at;
		if ((void *)(tag + 1) > cursor->end)
			return PASSED_NOT_IP;
		ethertype = tag->ethertype;
		cursor->at = tag + 1;
		packet->layer3 += sizeof(*tag);
	}
	if (ethertype == bpf_htons(MARK_ONCE) || ethertype == bpf_htons(MARK_TWICE)) {
		__u8 *version = cursor->at;
		__u64 key = mac_of(ethernet->source);
		__u32 *peer;

		/* From anybody else the mark means nothing. */
		peer = bpf_map_lookup_elem(&peers, &key);
		if (version + 1 > (__u8 *)cursor->end || !peer)
			return PASSED_NOT_IP;
		packet->sender = *peer + 1;
		packet->hop = ethertype == bpf_htons(MARK_ONCE) ? ONCE_PASSED_ON : TWICE_PASSED_ON;
		ethertype = *version >> 4 == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	} else if (is_own(config, ethernet->source)) {
		/* We sent it through the interface once more, for the kernel to see its new EtherType. */
		return PASSED_AGAIN;
	} else if (packet->hop == FROM_CLIENT && is_peer(config, ethernet->source)) {
		packet->hop = SCHEDULED;
	}
	packet->ethertype = ethertype;
	/* A switch that does not know a node's port yet sends its frames to all. */
	return packet->hop == FROM_CLIENT || is_own(config, ethernet->to) ? GO_ON : PASSED_ELSEWHERE;
}

/* Beyond twice a packet's time to live says how often it was passed on. */
static __always_inline void count_passes(struct packet *packet, __u8 life)
{
	if (packet->hop == TWICE_PASSED_ON && life <= PASSES_OF_TWO_ROWS - 2)
		packet->hop = SCHEDULED + PASSES_OF_TWO_ROWS + 1 - (life ? life : 1);
}

static __always_inline int parse_ipv4(struct cursor *cursor, struct packet *packet, __u32 octets, __u8 *protocol)
{
	struct iphdr *ip = cursor->at;
	__u32 header, total;
	__u16 offset;
	__u8 first;

	if ((void *)(ip + 1) > cursor->end)
		return PASSED_NOT_IP;
	packet->flow.words[1] = mapped(ip->saddr);
	packet->flow.words[3] = mapped(ip->daddr);
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (!total) /* coalesced by this machine beyond what the field can say */
		total = octets;
	/* No host sends from these (RFC 1122 §3.2.1.3), or to itself over the wire. */
	first = packet->flow.source[12];
	if (ip->version != 4 || header < sizeof(*ip) || total < header || !first || first == 127 || first >= 224 ||
	    ip->saddr == ip->daddr)
		return DROPPED_BAD_IP;
	if (total > octets)
		return DROPPED_TRUNCATED;
	packet->left = total - header;
	*protocol = ip->protocol;
	count_passes(packet, ip->ttl);
	offset = bpf_ntohs(ip->frag_off);
	if (offset & (FRAGMENT_OFFSET | MORE_FRAGMENTS)) {
		packet->fragment_id = ip->id;
		packet->fragment_protocol = ip->protocol;
		/* One that begins inside of the TCP header would change its flags (RFC 3128). */
		if ((offset & FRAGMENT_OFFSET) == 1)
			return DROPPED_BAD_IP;
		if (offset & FRAGMENT_OFFSET)
			return LATER_FRAGMENT;
		packet->is_first = 1;
	}
	cursor->at += header;
	return GO_ON;
}

static __always_inline int is_extension(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS ||
	       header == IPPROTO_AH || header == IPPROTO_FRAGMENT;
}

static __always_inline int parse_ipv6(struct cursor *cursor, struct packet *packet, __u32 octets, __u8 *protocol)
{
	struct ipv6hdr *ip = cursor->at;
	__u32 total, length;
	__u8 next;

	if ((void *)(ip + 1) > cursor->end)
		return PASSED_NOT_IP;
	write_ipv6(packet->flow.words, ip->saddr.s6_addr32);
	write_ipv6(packet->flow.words + 2, ip->daddr.s6_addr32);
	total = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (total == sizeof(*ip))
		total = octets;
	/* Multicast, unspecified and loopback are no senders (RFC 4291 §2.5, §2.7). Mapped addresses are our own way to
	 * write those of IPv4. */
	if (ip->version != 6 || packet->flow.source[0] == 0xff || is_ipv4(&ip->saddr) || is_ipv4(&ip->daddr) ||
	    (!ip->saddr.s6_addr32[0] && !ip->saddr.s6_addr32[1] && !ip->saddr.s6_addr32[2] &&
	     bpf_ntohl(ip->saddr.s6_addr32[3]) <= 1))
		return DROPPED_BAD_IP;
	if (total > octets)
		return DROPPED_TRUNCATED;
	packet->left = total - sizeof(*ip);
	count_passes(packet, ip->hop_limit);
	cursor->at = ip + 1;
	next = ip->nexthdr;
#pragma unroll
	for (int headers = 0; headers < EXTENSION_HEADERS; headers++) {
		struct extension *extension = cursor->at;

		if (!is_extension(next))
			break;
		if ((void *)(extension + 1) > cursor->end)
			return DROPPED_TRUNCATED;
		length = sizeof(*extension);
		if (next == IPPROTO_AH)
			length = (extension->length + 2) * 4;
		else if (next != IPPROTO_FRAGMENT)
			length = (extension->length + 1) * 8;
		if (length > packet->left || length < sizeof(*extension))
			return DROPPED_TRUNCATED;
		packet->left -= length;
		if (next == IPPROTO_FRAGMENT) {
			__u16 offset = bpf_ntohs(extension->offset);

			packet->fragment_id = extension->id;
			packet->fragment_protocol = extension->next;
			if (offset & ~7)
				return LATER_FRAGMENT;
			packet->is_first = offset & 1;
		}
		next = extension->next;
		cursor->at += length;
	}
	if (is_extension(next))
		return DROPPED_BAD_IP;
	*protocol = next;
	return GO_ON;
}

#endif
