/* What the packet program and Python share; lbarray/scheduler/abi.py says the same and a test compares them.
 * Addresses and ports are in network order, everything else in the machine's. IPv4 addresses are mapped (::ffff:0:0/96). */
#ifndef LBARRAY_ABI_H
#define LBARRAY_ABI_H

#define MAX_WORKERS 256
#define MAX_SERVICES 256
#define MAX_ROWS 131071

struct config {
	__u32 ifindex;     /* where forwarded frames leave */
	__u32 table_size;  /* rows in use */
	__u32 seed;        /* of the hash; the same on every node */
	__u8 mac[6];       /* this node's, the source of forwarded frames */
	__u16 pad;
};

struct service_key {
	__u8 address[16];
	__u16 port;
	__u8 protocol;
	__u8 pad;
};

enum hash_by { HASH_BY_CONNECTION = 0, HASH_BY_CLIENT = 1 };

struct service {
	__u32 hash_by;
	__u32 active; /* 1: this node schedules its VIP; 0: pass up */
};

/* Who gets the new connections, and the last two who did before. */
struct row {
	__u16 now;
	__u16 before[2];
	__u16 pad;
};

enum worker_flag { WORKER_KNOWN = 1, WORKER_LOCAL = 2 };

struct worker {
	__u8 mac[6];
	__u8 flags;
	__u8 pad;
};

enum verdict {
	FORWARDED = 0,
	PASSED_LOCAL = 1,
	PASSED_INACTIVE = 2,
	PASSED_NOT_IP = 3,
	PASSED_NOT_TCP = 4,
	PASSED_NO_SERVICE = 5,
	PASSED_FRAGMENT = 6,
	PASSED_NO_WORKER = 7,
	PASSED_TRUNCATED = 8,
	VERDICTS = 9,
};

struct tally {
	__u64 packets;
	__u64 octets;
};

#endif
