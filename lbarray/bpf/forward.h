/* The frame is addressed anew; nothing above Ethernet changes, so no checksum does. */
#ifndef LBARRAY_FORWARD_H
#define LBARRAY_FORWARD_H

#include "maps.h"
#include "parse.h"

static __always_inline enum verdict choose_worker(const struct flow *flow, const struct config *config,
						  const struct service *service, struct worker **chosen, __u32 *index)
{
	__u32 key = 0;
	struct row *row;
	void *rows;

	if (!config->table_size)
		return PASSED_NO_WORKER;
	rows = bpf_map_lookup_elem(&tables, &key);
	if (!rows)
		return PASSED_NO_WORKER;
	key = hash_flow(flow, service->hash_by, config->seed) % config->table_size;
	row = bpf_map_lookup_elem(rows, &key);
	if (!row)
		return PASSED_NO_WORKER;
	*index = row->now;
	*chosen = bpf_map_lookup_elem(&workers, index);
	if (!*chosen || !((*chosen)->flags & WORKER_KNOWN))
		return PASSED_NO_WORKER;
	return (*chosen)->flags & WORKER_LOCAL ? PASSED_LOCAL : FORWARDED;
}

static __always_inline void address_frame(struct ethhdr *ethernet, const struct config *config,
					  const struct worker *worker)
{
	__builtin_memcpy(ethernet->h_source, config->mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, worker->mac, ETH_ALEN);
}

#endif
