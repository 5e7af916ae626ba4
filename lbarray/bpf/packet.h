/* A packet while it is looked at. */
#ifndef LBARRAY_PACKET_H
#define LBARRAY_PACKET_H

#include "abi.h"
#include "words.h"

#define GO_ON VERDICTS            /* a step's answer when the packet is still of interest */
#define LATER_FRAGMENT (VERDICTS + 1) /* it has no ports: it goes where the first one went */

struct cursor {
	void *at;
	void *end;
};

/* How a packet came. */
enum hop { FROM_CLIENT = 0, SCHEDULED = 1, ONCE_PASSED_ON = 2, TWICE_PASSED_ON = 3 };

enum kind { SEGMENT = 0, DATAGRAM = 1, QUOTED = 2 };

/* Those of two rows. */
#define OWNERS 8

/* Client first: the source is the client, the destination the VIP. */
struct flow {
	union {
		struct {
			__u8 source[16];
			struct service_key to;
			__u16 source_port;
			__u16 pad;
		};
		__u64 words[5];
	};
};

static __always_inline void write_ports(struct flow *flow, __u16 source, __u16 to, __u8 protocol)
{
	flow->words[4] = word_of(pair_of(to, bpf_htons(protocol << 8)), pair_of(source, 0));
}

struct packet {
	struct flow flow;
	__be32 fragment_id;
	__be32 sequence;
	__be32 acknowledged;
	__u32 segment;  /* octets of payload of each of those that it was coalesced from; 0: it is one */
	__u32 payload;  /* octets behind TCP's header */
	__u32 left;     /* octets of the packet that are still to come */
	__u16 ethertype;
	__u8 layer3;    /* where the IP header begins in the frame */
	__u8 hop;
	__u8 kind;
	__u8 tcp_flags;
	__u8 is_first;  /* first of several fragments */
	__u8 fragment_protocol;
	__u8 is_cached;
	__u8 is_chosen; /* over the worker of its row */
	__u8 slot;
	__u16 worker;   /* whom it is for */
	__u32 fits;     /* octets that would, of one that is too big and whose sender shall know */
	__u32 stripped; /* octets of outer headers that were taken out */
	__u32 again;    /* the kernel has to see its EtherType anew */
	__u32 verdict;
	__u16 epoch;    /* of the rows that it meets */
	__u16 next;     /* who may have the connection behind this worker */
	__u32 place;    /* of the connection in the memory */
	__u32 half;     /* of its hash: where its second row is */
	__u16 owners[OWNERS]; /* who may have the connection */
	__u16 sender;   /* the worker that passed it on, and 1; or 0 */
};

/* What is in memory is read from it again. The verifier then lets go of how each value came about, and does not follow
 * every way to here on its own: the ways are multiplied otherwise. */
#define LET_GO() asm volatile("" ::: "memory")

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

static __always_inline int begins_connection(const struct packet *packet)
{
	return packet->kind == SEGMENT && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

#endif
