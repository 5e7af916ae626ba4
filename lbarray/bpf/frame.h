/* The frame is addressed anew; nothing above Ethernet changes, so no checksum does. */
#ifndef LBARRAY_FRAME_H
#define LBARRAY_FRAME_H

#include "parse.h"

/* As much as all headers together may be long: Ethernet with two tags, IP with options, TCP. */
#define HEADERS 192

static __always_inline int write_ethertype(struct cursor *cursor, const struct packet *packet, __u16 ethertype)
{
	__u16 *at = cursor->at + ((packet->layer3 - 2) & 31);

	if ((void *)(at + 1) > cursor->end)
		return 0;
	*at = ethertype;
	return 1;
}

/* Leave a packet no longer to live than this; an IPv4 checksum is updated as in RFC 1624. */
static __always_inline int shorten_life(struct cursor *cursor, const struct packet *packet, __u8 life)
{
	void *at = cursor->at + (packet->layer3 & 31);

	if (packet->ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = at;
		__u32 sum;

		if ((void *)(ip + 1) > cursor->end)
			return 0;
		if (ip->ttl <= life)
			return 1;
		sum = (__u16)~ip->check + (__u16)~bpf_htons(ip->ttl << 8) + bpf_htons(life << 8);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		ip->check = ~sum;
		ip->ttl = life;
	} else {
		struct ipv6hdr *ip = at;

		if ((void *)(ip + 1) > cursor->end)
			return 0;
		if (ip->hop_limit > life)
			ip->hop_limit = life;
	}
	return 1;
}

/* To and from whom, by words that begin with their addresses. */
static __always_inline int address(struct cursor *cursor, const void *to, const void *source)
{
	struct ethernet *ethernet = cursor->at;

	if ((void *)(ethernet + 1) > cursor->end)
		return 0;
	write_macs(ethernet, aligned_word(to), aligned_word(source));
	return 1;
}

static __always_inline int address_frame(struct cursor *cursor, const struct packet *packet,
					 const struct config *config, const struct worker *worker, int verdict)
{
	if (!address(cursor, worker->mac, config->mac))
		return 0;
	if (verdict != PASSED_ON)
		return 1;
	if (packet->hop >= TWICE_PASSED_ON &&
	    !shorten_life(cursor, packet, SCHEDULED + PASSES_OF_TWO_ROWS - packet->hop))
		return 0;
	return write_ethertype(cursor, packet,
			       packet->hop >= ONCE_PASSED_ON ? bpf_htons(MARK_TWICE) : bpf_htons(MARK_ONCE));
}

static __always_inline int restore_ethertype(struct cursor *cursor, const struct packet *packet)
{
	return write_ethertype(cursor, packet, packet->ethertype);
}

#endif
