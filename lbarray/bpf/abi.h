/* What the packet program and Python share; lbarray/scheduler/abi.py says the same and a test compares them.
 * Addresses and ports are in network order, everything else in the machine's. IPv4 addresses are mapped (::ffff:0:0/96). */
#ifndef LBARRAY_ABI_H
#define LBARRAY_ABI_H

#define MAX_WORKERS 256
#define MAX_SERVICES 64
#define MAX_VIPS 64
#define FRONTS 4
#define MAX_ROWS 655373
#define FLOWS 262144
#define FLOW_BITS 18
#define NEAR 256
#define MAX_FRAGMENTS 4096
#define NOBODY 0xffff
#define QUOTED_OCTETS 512
#define REPORTS_OCTETS 65536
#define SHOWN_OCTETS 2048

/* How often a packet is passed on at most: to all who had its row, or to all who had one of its two. */
#define PASSES 3
#define PASSES_OF_TWO_ROWS 7

/* What one more connection costs a worker of the mean weight; and how much less another has to bear to get a new one in
 * place of the worker of its row: so many connections, and a part of what it bears itself (2 to this power). Below that
 * chance alone makes the difference. */
#define COST_OF_ONE 1024
#define MARGIN 4
#define MARGIN_SHIFT 4

/* EtherTypes of a frame that a worker passed on (IEEE 802: local experimental 1 and 2): once, and twice or more often.
 * No router makes them from a client's packet, no checksum covers them, and a switch forwards them as any other. From
 * the third time on the packet's time to live says how often it may still be passed on, and one: it ends. */
#define MARK_ONCE 0x88b5
#define MARK_TWICE 0x88b6

/* GUE (draft-ietf-intarea-gue), and the private data that tells how often a packet was passed on. */
#define GUE_PORT 6080
#define GUE_PRIVATE 0x4c42
/* In an outer IPv4 identification, or an outer IPv6 flow label, before the same number. */
#define TUNNEL_MARK 0x4c

/* Without this the compiler copies addresses octet by octet. */
#define WORDS __attribute__((aligned(4)))

struct service_key {
	__u8 address[16] WORDS;
	__u16 port;
	__u8 protocol;
	__u8 pad;
};

enum hash_by { HASH_BY_CONNECTION = 0, HASH_BY_CLIENT = 1 };

/* Who may have a connection: the worker of its row; that of its second row, too; whichever of them is less loaded gets
 * a new one. */
enum choice { ONE_ROW = 0, TWO_ROWS = 1, LESS_LOADED = 2 };

struct service {
	__u8 hash_by;
	__u8 active; /* 1: this node schedules its VIP; 0: what no other node has scheduled is passed up */
	__u8 slot;   /* its place among the shares */
	__u8 choice;
	__u16 number; /* no other service had it lately; never 0 */
	__u8 pad2[2];
	__u64 mask[2]; /* bits of a client's address that count when hashing by client; network order */
};

/* The first services once more, where a comparison finds them: a look-up by hash takes longer than all of them. */
struct front {
	struct service_key key;
	__u32 pad;
	struct service service;
	__u64 plain; /* the last eight octets of the key, where its address is an IPv4 one; 0: it is not */
};

struct config {
	__u64 begun[4];   /* the flow hash, as far as the array's secret alone takes it */
	__u8 mac[8] WORDS; /* this node's, and two octets of nothing */
	__u8 address[16] WORDS; /* this node's: the outer source of tunnels, and where they end */
	__u32 ifindex;    /* where forwarded frames leave */
	__u32 table_size; /* rows of the table */
	__u16 self;       /* this node's worker index */
	__u8 tunnels;     /* 1: what other nodes encapsulate is taken out */
	__u8 pad;
	__u32 mtu;        /* octets of a packet that leave in one frame */
	__u16 epoch;      /* of the rows: even ones are in table 0, odd ones in table 1 */
	__u16 pad2[3];
	struct front fronts[FRONTS];
	__u64 near[NEAR]; /* a peer's MAC address, by its last octet; there may be others that end so. 0: none does, and
			     this node's neither */
};

/* Who gets the new connections, and the last three who did before, the newest first. */
struct row {
	__u16 now;
	__u16 before[3];
};

enum worker_flag { WORKER_KNOWN = 1, WORKER_LOCAL = 2, WORKER_IPIP = 4, WORKER_GUE = 8 };

struct worker {
	__u8 mac[6] WORDS; /* its own, or its router's */
	__u8 flags;
	__u8 pad;
	__u8 address[16] WORDS; /* where its tunnel ends */
};

/* What a worker bears. */
struct cost {
	__u64 open;  /* its connections, as it last said */
	__u32 each;  /* of one more; 0: nothing is known of this worker */
	__u32 given; /* new connections since then */
};

/* What is known of a connection: the place has one, the one that was last learned of. Nothing is locked: the eight
 * octets from the port on are written at once, and the first sixteen differ as they should when two processors write to
 * one place. The sequence number only tells a SYN that comes again from one that begins a connection anew. */
struct memory {
	__u8 source[16] __attribute__((aligned(8)));
	__u16 source_port;
	__u16 service; /* its number; 0: nothing is remembered */
	__u16 worker;
	__u16 epoch;   /* of the rows when it was learned */
	__u32 sequence; /* of the segment that it was learned from */
	__u32 pad;
};

struct fragment {
	__u8 source[16] WORDS;
	__u8 vip[16] WORDS;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

/* Where the first fragment went, and the others follow. */
struct fate {
	__u16 worker;
	__u8 verdict;
	__u8 slot;
};

enum verdict {
	FORWARDED = 0,
	PASSED_ON = 1,
	PASSED_LOCAL = 2,
	PASSED_DELIVERED = 3,
	PASSED_AGAIN = 4,
	PASSED_INACTIVE = 5,
	PASSED_NOT_IP = 6,
	PASSED_OTHER_PROTOCOL = 7,
	PASSED_NO_SERVICE = 8,
	PASSED_NO_WORKER = 9,
	PASSED_ELSEWHERE = 10,
	DROPPED_TRUNCATED = 11,
	DROPPED_BAD_IP = 12,
	DROPPED_BAD_TCP = 13,
	DROPPED_LONE_FRAGMENT = 14,
	DROPPED_TOO_BIG = 15,
	DROPPED_NO_ROOM = 16, /* besides its verdict, where it has one */
	VERDICTS = 17,
};

/* A packet that does not fit into a tunnel, for Python to tell its sender. */
struct too_big {
	__u32 mtu; /* what would fit */
	__u8 frame[14 + QUOTED_OCTETS];
	__u8 pad[2];
};

struct tally {
	__u64 packets;
	__u64 octets;
};

/* What one worker was given of one service. */
struct share {
	__u64 packets;
	__u64 octets;
	__u64 connections; /* SYNs */
	__u64 cached;      /* packets whose worker was remembered */
	__u64 passed_on;   /* packets that another worker did not know */
	__u64 chosen;      /* SYNs whose row's worker was more loaded */
};

#endif
