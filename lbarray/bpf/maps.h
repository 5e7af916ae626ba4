/* Every map, with its purpose. Python fills the upper ones. */
#ifndef LBARRAY_MAPS_H
#define LBARRAY_MAPS_H

#include "abi.h"
#include "packet.h"

/* What this node is. */
struct config configs SEC(".data.configs");

struct { /* the VIPs and ports that are scheduled */
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct { /* every VIP of a service; 1: this node schedules it */
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__uint(key_size, 16);
	__uint(value_size, sizeof(__u32));
} vips SEC(".maps");

struct rows { /* a Maglev table; sized by the loader, and written through its memory */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_ROWS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct row));
};

struct { /* the one in use, which the configuration names, and the one that is written next */
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct rows);
} tables SEC(".maps");

struct { /* how to reach each worker */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct worker);
} workers SEC(".maps");

struct { /* what each worker bears: to choose between two */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct cost);
} costs SEC(".maps");

struct { /* MAC addresses of the other nodes: what comes from them was scheduled already */
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u64);
	__type(value, __u32);
} peers SEC(".maps");

struct { /* addresses of the other nodes: who may encapsulate for us */
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WORKERS);
	__uint(key_size, 16);
	__uint(value_size, sizeof(__u32));
} tunnel_peers SEC(".maps");

struct { /* where connections are; read by Python without asking the kernel */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FLOWS);
	__type(key, __u32);
	__type(value, struct memory);
} flows SEC(".maps");

struct { /* where first fragments went */
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FRAGMENTS);
	__type(key, struct fragment);
	__type(value, struct fate);
} fragments SEC(".maps");

struct { /* packets that did not fit into a tunnel; those that nobody has taken yet leave no room for more */
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, REPORTS_OCTETS);
} reports SEC(".maps");

/* One of so many frames that leave or are dropped as XDP is shown, for no tap of the kernel sees them; 0: none. */
volatile __u32 sampling SEC(".data.sampling");

struct { /* to whom: nobody, most of the time */
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} shown SEC(".maps");

struct { /* the packet that a processor looks at. On the stack the verifier would follow every value that it may have, and
	    see the program a thousand times. */
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} packets SEC(".maps");

struct { /* when this processor last reported one, in nanoseconds */
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} reported SEC(".maps");

struct { /* what became of packets, by verdict; those that a worker was given are among the shares */
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);
	__type(value, struct tally);
} verdicts SEC(".maps");

struct { /* what each worker was given: slot of the service times MAX_WORKERS, plus worker */
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_SERVICES * MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct share);
} shares SEC(".maps");

#endif
