/* Which worker a packet is for. */
#ifndef LBARRAY_CHOOSE_H
#define LBARRAY_CHOOSE_H

#include "flow.h"
#include "memory.h"
#include "socket.h"

static __always_inline const struct service *find_service(const struct packet *packet, const struct config *config)
{
	const __u32 *wanted = (const __u32 *)&packet->flow.to;

#pragma unroll
	for (int place = 0; place < FRONTS; place++) {
		const __u32 *key = (const __u32 *)&config->fronts[place].key;

		if (key[4] == wanted[4] && key[3] == wanted[3] && key[2] == wanted[2] && key[1] == wanted[1] &&
		    key[0] == wanted[0])
			return &config->fronts[place].service;
	}
	return bpf_map_lookup_elem(&services, &packet->flow.to);
}

static __always_inline struct row *find_row(struct packet *packet, const struct service *service,
					    const struct config *config)
{
	__u64 hash;
	__u32 key = config->table;
	void *rows = bpf_map_lookup_elem(&tables, &key);

	if (!rows || !config->table_size)
		return 0;
	hash = hash_flow(packet, service, config);
	packet->place = place_of(packet, service, hash);
	/* The upper half of the hash times the number of rows: a division would cost more than all else here. */
	key = (hash >> 32) * config->table_size >> 32;
	return bpf_map_lookup_elem(rows, &key);
}

static __always_inline struct worker *known_worker(__u32 index)
{
	struct worker *worker = bpf_map_lookup_elem(&workers, &index);

	return worker && worker->flags & WORKER_KNOWN ? worker : 0;
}

static __always_inline int is_among(const __u16 *owners, __u16 index)
{
	return owners[0] == index || owners[1] == index || owners[2] == index || owners[3] == index;
}

/* One to whom a packet can be passed on: known, and not this node. */
static __always_inline void consider(struct packet *packet, __u16 index, __u16 sender)
{
	struct worker *worker;

	if (packet->previous != NOBODY || index == NOBODY || index == sender)
		return;
	worker = known_worker(index);
	if (worker && !(worker->flags & WORKER_LOCAL))
		packet->previous = index;
}

/* Who had the row before this worker did, as far as the row remembers, and can be reached. Nodes may remember a row
 * differently, for changes that come close together are one change to some and several to others, and while a change
 * spreads some have not heard of it. So a worker whose the row never was goes on behind the one that sent the packet; and
 * where nobody is left there, what another node has sent goes to whoever else had the row or has it: that node may know
 * something that is not known here yet. */
static __always_inline struct worker *previous_owner(struct packet *packet, const struct row *row, __u16 self)
{
	__u16 owners[4] = {row->now, row->before[0], row->before[1], row->before[2]};
	__u16 sender = packet->sender ? packet->sender - 1 : NOBODY;
	__u16 behind = is_among(owners, self) ? self : sender;
	int earlier = behind == NOBODY || !is_among(owners, behind);

	packet->previous = NOBODY;
#pragma unroll
	for (int place = 0; place < 4; place++) {
		if (earlier)
			consider(packet, owners[place], sender);
		LET_GO();
		earlier |= owners[place] == behind;
	}
	if (packet->hop) {
#pragma unroll
		for (int place = 1; place <= 4; place++) {
			consider(packet, owners[place & 3], sender);
			LET_GO();
		}
	}
	LET_GO();
	return packet->previous == NOBODY ? 0 : known_worker(packet->previous);
}

/* A packet that has come to this worker: is it of a connection that it holds, or may begin here? If not, another worker
 * that had the row may hold it: the second chance. A packet is passed on three times at most, each time to one who had
 * the row earlier. What the kernel said of a connection holds until the rows change, or it begins anew. */
static __always_inline int second_chance(void *context, struct packet *packet, const struct row *row,
					 const struct service *service, const struct config *config,
					 const struct memory *memory, struct worker **worker, int deliver)
{
	struct worker *previous;
	int began_here = 0;

	if (packet->flow.to.protocol != IPPROTO_TCP || begins_connection(packet) || packet->hop == THRICE_PASSED_ON)
		return deliver;
	previous = previous_owner(packet, row, config->self);
	if (!previous)
		return deliver;
	if (memory) {
		began_here = memory->worker == config->self;
		if (memory->epoch == config->epoch) {
			if (began_here)
				return deliver;
			if (memory->worker == packet->previous)
				goto pass_on;
		}
	}
	if (is_held(context, packet)) {
		remember(packet, service, config, config->self);
		return deliver;
	}
	/* One that began here with a SYN cookie may yet come to be. */
	if (!began_here)
		remember(packet, service, config, packet->previous);
pass_on:
	packet->is_cached = 0;
	packet->worker = packet->previous;
	*worker = previous;
	return PASSED_ON;
}

/* A packet from a client. Connections are remembered when they begin, and asked for only where the row has moved: only
 * there the answer can differ. */
static __always_inline int schedule(void *context, struct packet *packet, const struct service *service,
				    const struct config *config, struct worker **worker)
{
	struct row *row = find_row(packet, service, config);
	const struct memory *memory = 0;
	__u32 index;

	if (!row)
		return PASSED_NO_WORKER;
	index = row->now;
	if (begins_connection(packet)) {
		remember(packet, service, config, index);
	} else if (row->before[0] != NOBODY) {
		memory = recall(packet, service);
		if (memory && known_worker(memory->worker)) {
			index = memory->worker;
			packet->is_cached = 1;
		}
	}
	*worker = known_worker(index);
	if (!*worker)
		return PASSED_NO_WORKER;
	packet->worker = index;
	if (!((*worker)->flags & WORKER_LOCAL))
		return FORWARDED;
	return second_chance(context, packet, row, service, config, memory, worker, PASSED_LOCAL);
}

/* A packet that another node has sent here. */
static __always_inline int receive(void *context, struct packet *packet, const struct service *service,
				   const struct config *config, struct worker **worker)
{
	struct row *row = find_row(packet, service, config);

	if (!row)
		return PASSED_DELIVERED;
	if (begins_connection(packet))
		remember(packet, service, config, config->self);
	else if (row->before[0] != NOBODY || row->now != config->self)
		return second_chance(context, packet, row, service, config, recall(packet, service), worker,
				     PASSED_DELIVERED);
	return PASSED_DELIVERED;
}

#endif
