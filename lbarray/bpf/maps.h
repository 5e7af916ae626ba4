/* Every map, with its purpose. Python fills all but the tallies. */
#ifndef LBARRAY_MAPS_H
#define LBARRAY_MAPS_H

#include "abi.h"

struct { /* what this node is doing */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} configs SEC(".maps");

struct { /* the VIPs and ports that are scheduled */
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct rows { /* a Maglev table; sized by the loader */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_ROWS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct row));
};

struct { /* the one in use, replaced as a whole */
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct rows);
} tables SEC(".maps");

struct { /* how to reach each worker */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct worker);
} workers SEC(".maps");

struct { /* what became of packets, by verdict */
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);
	__type(value, struct tally);
} verdicts SEC(".maps");

struct { /* what each worker was given */
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct tally);
} shares SEC(".maps");

#endif
