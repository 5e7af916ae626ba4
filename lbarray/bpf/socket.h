/* Does this machine hold the connection of a packet? */
#ifndef LBARRAY_SOCKET_H
#define LBARRAY_SOCKET_H

#include "transport.h"

#define TIME_WAIT 6  /* BPF_TCP_TIME_WAIT */
#define LISTENING 10 /* BPF_TCP_LISTEN */

/* A connection that began with a SYN cookie of ours exists only in the client's next packet. The headers are made anew
 * of what the kernel looks at. */
static __always_inline int has_cookie(struct bpf_sock *listener, const struct packet *packet)
{
	struct tcphdr tcp = {
		.source = packet->flow.source_port,
		.dest = packet->flow.to.port,
		.seq = packet->sequence,
		.ack_seq = packet->acknowledged,
		.doff = 5,
		.ack = 1,
	};

	if (packet->ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr ip = {.version = 4, .ihl = 5};

		__builtin_memcpy(&ip.saddr, packet->flow.source + 12, 4);
		__builtin_memcpy(&ip.daddr, packet->flow.to.address + 12, 4);
		return !bpf_tcp_check_syncookie(listener, &ip, sizeof(ip), &tcp, sizeof(tcp));
	} else {
		struct ipv6hdr ip = {.version = 6};

		__builtin_memcpy(&ip.saddr, packet->flow.source, 16);
		__builtin_memcpy(&ip.daddr, packet->flow.to.address, 16);
		return !bpf_tcp_check_syncookie(listener, &ip, sizeof(ip), &tcp, sizeof(tcp));
	}
}

static __always_inline int is_held(void *context, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__u32 size;
	int held = 0;

	if (packet->ethertype == bpf_htons(ETH_P_IP)) {
		__builtin_memcpy(&tuple.ipv4.saddr, packet->flow.source + 12, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, packet->flow.to.address + 12, 4);
		tuple.ipv4.sport = packet->flow.source_port;
		tuple.ipv4.dport = packet->flow.to.port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, packet->flow.source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, packet->flow.to.address, 16);
		tuple.ipv6.sport = packet->flow.source_port;
		tuple.ipv6.dport = packet->flow.to.port;
		size = sizeof(tuple.ipv6);
	}
	socket = bpf_skc_lookup_tcp(context, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	/* Not in TIME_WAIT: the client may have begun anew from the same port, at another worker, and misses nothing if
	 * not. The kernel keeps one that was closed here and not yet by the client like that, too. */
	if (socket->state != LISTENING) {
		held = socket->state != TIME_WAIT; /* established, half open, or closing */
	} else if (packet->kind == SEGMENT && packet->tcp_flags & TCP_ACK) {
		held = has_cookie(socket, packet);
	}
	bpf_sk_release(socket);
	return held;
}

#endif
