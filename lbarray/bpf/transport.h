/* From an IP packet's content to a flow: TCP, UDP, and what an ICMP error quotes. */
#ifndef LBARRAY_TRANSPORT_H
#define LBARRAY_TRANSPORT_H

#include <linux/tcp.h>
#include <linux/udp.h>

#include "parse.h"

/* Of ICMP and of ICMPv6. */
struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 rest;
};

#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12

struct ports {
	__be16 source;
	__be16 destination;
};

static __always_inline int parse_tcp(struct cursor *cursor, struct packet *packet)
{
	struct tcphdr *tcp = cursor->at;
	__u8 flags;

	if ((void *)(tcp + 1) > cursor->end || packet->left < sizeof(*tcp))
		return DROPPED_TRUNCATED;
	write_ports(&packet->flow, tcp->source, tcp->dest, IPPROTO_TCP);
	packet->sequence = tcp->seq;
	packet->acknowledged = tcp->ack_seq;
	packet->kind = SEGMENT;
	flags = packet->tcp_flags = ((__u8 *)tcp)[13];
	/* RFC 9293 §3.10.7: a segment begins, resets or acknowledges something. */
	if (tcp->doff < 5 || !tcp->source || !tcp->dest || !(flags & (TCP_SYN | TCP_RST | TCP_ACK)) ||
	    ((flags & TCP_SYN) && (flags & (TCP_FIN | TCP_RST))))
		return DROPPED_BAD_TCP;
	if (tcp->doff * 4 > packet->left)
		return DROPPED_TRUNCATED;
	packet->payload = packet->left - tcp->doff * 4;
	return GO_ON;
}

static __always_inline int parse_udp(struct cursor *cursor, struct packet *packet)
{
	struct udphdr *udp = cursor->at;

	if ((void *)(udp + 1) > cursor->end || packet->left < sizeof(*udp))
		return DROPPED_TRUNCATED;
	write_ports(&packet->flow, udp->source, udp->dest, IPPROTO_UDP);
	packet->kind = DATAGRAM;
	return GO_ON;
}

/* The ports of a packet that we sent from the VIP: our port is its source. */
static __always_inline int parse_quoted(struct cursor *cursor, struct packet *packet, __u8 protocol)
{
	struct ports *ports = cursor->at;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return PASSED_OTHER_PROTOCOL;
	if ((void *)(ports + 1) > cursor->end)
		return DROPPED_TRUNCATED;
	write_ports(&packet->flow, ports->destination, ports->source, protocol);
	packet->kind = QUOTED;
	return GO_ON;
}

/* RFC 792, RFC 1191: destination unreachable ("too big" among it), time exceeded, parameter problem. */
static __always_inline int parse_icmp(struct cursor *cursor, struct packet *packet)
{
	struct icmp *icmp = cursor->at;
	struct iphdr *ip = (void *)(icmp + 1);
	__u32 header;

	if ((void *)(icmp + 1) > cursor->end)
		return DROPPED_TRUNCATED;
	if (icmp->type != ICMP_DEST_UNREACH && icmp->type != ICMP_TIME_EXCEEDED && icmp->type != ICMP_PARAMETERPROB)
		return PASSED_OTHER_PROTOCOL;
	if ((void *)(ip + 1) > cursor->end)
		return DROPPED_TRUNCATED;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return DROPPED_BAD_IP;
	if (__builtin_memcmp(&ip->saddr, packet->flow.to.address + 12, 4) || ip->frag_off & bpf_htons(FRAGMENT_OFFSET))
		return PASSED_OTHER_PROTOCOL;
	packet->flow.words[1] = mapped(ip->daddr);
	cursor->at = (void *)ip + header;
	return parse_quoted(cursor, packet, ip->protocol);
}

/* RFC 4443: types below 128 are errors; "packet too big" is 2. */
static __always_inline int parse_icmpv6(struct cursor *cursor, struct packet *packet)
{
	struct icmp *icmp = cursor->at;
	struct ipv6hdr *ip = (void *)(icmp + 1);
	__be32 vip[4];

	if ((void *)(icmp + 1) > cursor->end)
		return DROPPED_TRUNCATED;
	if (icmp->type < 1 || icmp->type > 4)
		return PASSED_OTHER_PROTOCOL;
	if ((void *)(ip + 1) > cursor->end)
		return DROPPED_TRUNCATED;
	__builtin_memcpy(vip, packet->flow.to.address, sizeof(vip));
	if (ip->saddr.s6_addr32[0] != vip[0] || ip->saddr.s6_addr32[1] != vip[1] ||
	    ip->saddr.s6_addr32[2] != vip[2] || ip->saddr.s6_addr32[3] != vip[3])
		return PASSED_OTHER_PROTOCOL;
	write_ipv6(packet->flow.words, ip->daddr.s6_addr32);
	cursor->at = ip + 1;
	return parse_quoted(cursor, packet, ip->nexthdr);
}

static __always_inline int parse_transport(struct cursor *cursor, struct packet *packet, __u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return parse_tcp(cursor, packet);
	if (protocol == IPPROTO_UDP)
		return parse_udp(cursor, packet);
	if (packet->is_first) /* of an error message: what it quotes may lie in the next */
		return PASSED_OTHER_PROTOCOL;
	if (protocol == IPPROTO_ICMP && packet->ethertype == bpf_htons(ETH_P_IP))
		return parse_icmp(cursor, packet);
	if (protocol == IPPROTO_ICMPV6 && packet->ethertype == bpf_htons(ETH_P_IPV6))
		return parse_icmpv6(cursor, packet);
	return PASSED_OTHER_PROTOCOL;
}

#endif
