/* Which worker a packet is for. */
#ifndef LBARRAY_CHOOSE_H
#define LBARRAY_CHOOSE_H

#include "flow.h"
#include "memory.h"
#include "socket.h"

static __always_inline const struct service *find_service(const struct packet *packet, const struct config *config)
{
	const __u64 *wanted = packet->flow.words + 2;

#pragma unroll
	for (int place = 0; place < FRONTS; place++) {
		const __u64 *key = (const __u64 *)&config->fronts[place].key;

		if (*(const __u32 *)(key + 2) == *(const __u32 *)(wanted + 2) && key[1] == wanted[1] &&
		    key[0] == wanted[0])
			return &config->fronts[place].service;
	}
	return bpf_map_lookup_elem(&services, &packet->flow.to);
}

/* The half of a hash times the number of rows: a division would cost more than all else here. */
static __always_inline struct row *row_at(__u16 epoch, const struct config *config, __u32 half)
{
	__u32 key = epoch & 1;
	void *rows = bpf_map_lookup_elem(&tables, &key);

	if (!rows)
		return 0;
	key = (__u64)half * config->table_size >> 32;
	return bpf_map_lookup_elem(rows, &key);
}

static __always_inline struct row *find_row(struct packet *packet, const struct service *service,
					    const struct config *config)
{
	__u64 hash;

	packet->epoch = config->epoch; /* once: rows, and what is learned of them, belong together */
	hash = hash_flow(&packet->flow, packet->ethertype == bpf_htons(ETH_P_IP), service, config);
	packet->place = place_of(&packet->flow, service, hash);
	packet->half = hash;
	return row_at(packet->epoch, config, hash >> 32);
}

static __always_inline struct worker *known_worker(__u32 index)
{
	struct worker *worker = bpf_map_lookup_elem(&workers, &index);

	return worker && worker->flags & WORKER_KNOWN ? worker : 0;
}

static __always_inline __u64 burden(const struct cost *cost)
{
	return cost->open + (__u64)cost->each * cost->given;
}

/* Who gets a new connection: the worker of its row, or that of its second row where it bears less (the power of two
 * choices; Mitzenmacher 2001). Loads are up to a second old: what was given since then is counted here, or all would go
 * to whoever was the least loaded then. A SYN that comes again goes where it went before. */
static __always_inline __u16 less_loaded(struct packet *packet, const struct service *service,
					 const struct config *config, __u16 owner)
{
	const struct row *second = row_at(packet->epoch, config, packet->half);
	const struct memory *memory = recall(&packet->flow, packet->place, service);
	struct cost *cost, *others;
	__u32 key = owner, other;

	cost = bpf_map_lookup_elem(&costs, &key);
	if (!second || !cost)
		return owner;
	other = second->now;
	others = bpf_map_lookup_elem(&costs, &other);
	if (!others || other == owner || !known_worker(other))
		other = owner;
	else if (memory && memory->sequence == packet->sequence &&
		 (memory->worker == owner || memory->worker == other))
		return memory->worker;
	else if (!cost->each || !others->each ||
		 burden(others) + (burden(others) >> MARGIN_SHIFT) + MARGIN * COST_OF_ONE >= burden(cost))
		other = owner;
	else
		cost = others;
	__sync_fetch_and_add(&cost->given, 1);
	return other;
}

static __always_inline __u16 but_for(__u16 index, const struct row *row)
{
	return index == row->now || index == row->before[0] || index == row->before[1] || index == row->before[2] ?
		       NOBODY :
		       index;
}

/* The workers that may have a connection: that of its row and those who had the row before, the newest first; where it
 * has a second row, each behind that of the same age, and once. */
static __always_inline void list_owners(struct packet *packet, const struct row *row, const struct row *second)
{
	__u16 *owners = packet->owners;

	owners[0] = row->now;
	owners[1] = row->before[0];
	if (!second) {
		owners[2] = row->before[1];
		owners[3] = row->before[2];
		owners[4] = owners[5] = owners[6] = owners[7] = NOBODY;
		return;
	}
	owners[2] = but_for(second->now, row);
	owners[3] = but_for(second->before[0], row);
	owners[4] = row->before[1];
	owners[5] = but_for(second->before[1], row);
	owners[6] = row->before[2];
	owners[7] = but_for(second->before[2], row);
}

/* One to whom a packet can be passed on: known, and not this node. */
static __always_inline void consider(struct packet *packet, __u16 index, __u16 sender)
{
	struct worker *worker;

	if (packet->next != NOBODY || index == NOBODY || index == sender)
		return;
	worker = known_worker(index);
	if (worker && !(worker->flags & WORKER_LOCAL))
		packet->next = index;
}

/* Who may have a connection behind this worker, as far as the rows remember, and can be reached. Nodes may remember a row
 * differently, for changes that come close together are one change to some and several to others, and while a change
 * spreads some have not heard of it. So whoever has the row now is first, where it is plain that the packet has not been
 * there; then come those who had it before this worker and the one that sent the packet; and where nobody is left, what
 * another node has sent goes to whoever else had the row or has it: that node may know something that is not known here
 * yet. But not for ever: what nobody holds would go round. */
static __always_inline struct worker *next_owner(struct packet *packet, __u16 self)
{
	__u16 sender = packet->sender ? packet->sender - 1 : NOBODY;
	__u32 behind = 0;

	packet->next = NOBODY;
#pragma unroll
	for (int place = 0; place < OWNERS; place++) {
		if (packet->owners[place] == self || (sender != NOBODY && packet->owners[place] == sender))
			behind = place + 1;
	}
	if (packet->hop == ONCE_PASSED_ON) /* it has been at the sender and here alone */
		consider(packet, packet->owners[0], sender);
	LET_GO();
#pragma unroll
	for (int place = 0; place < OWNERS; place++) {
		if (place >= behind)
			consider(packet, packet->owners[place], sender);
		LET_GO();
	}
	if (packet->hop && packet->hop <= PASSES) {
#pragma unroll
		for (int place = 1; place <= OWNERS; place++) {
			consider(packet, packet->owners[place % OWNERS], sender);
			LET_GO();
		}
	}
	LET_GO();
	return packet->next == NOBODY ? 0 : known_worker(packet->next);
}

/* A packet that has come to this worker: is it of a connection that it holds, or may begin here? If not, another worker
 * that may have it gets it: the second chance. A packet is passed on three times at most, or seven where there are two
 * rows. What the kernel said of a connection holds until the rows change, or it begins anew. */
static __always_inline int second_chance(void *context, struct packet *packet, const struct row *row,
					 const struct service *service, const struct config *config,
					 const struct memory *memory, struct worker **worker, int deliver)
{
	__u8 most = service->choice ? PASSES_OF_TWO_ROWS : PASSES;
	struct worker *next;
	int began_here = memory && memory->worker == config->self;

	if (packet->flow.to.protocol != IPPROTO_TCP || begins_connection(packet) || packet->hop > most)
		return deliver;
	if (began_here && memory->epoch == packet->epoch)
		return deliver;
	list_owners(packet, row, service->choice ? row_at(packet->epoch, config, packet->half) : 0);
	LET_GO();
	next = next_owner(packet, config->self);
	if (!next)
		return deliver;
	if (memory && memory->epoch == packet->epoch && memory->worker == packet->next)
		goto pass_on;
	if (is_held(context, packet)) {
		remember(packet, service, config->self);
		return deliver;
	}
	/* One that began here with a SYN cookie may yet come to be. */
	if (!began_here)
		remember(packet, service, packet->next);
pass_on:
	packet->is_cached = 0;
	packet->worker = packet->next;
	*worker = next;
	return PASSED_ON;
}

/* A packet from a client. Connections are remembered when they begin, and asked for only where the answer can differ from
 * what the row says: where it has moved, or the connection had another worker to go to from the beginning. */
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
		if (service->choice == LESS_LOADED)
			index = less_loaded(packet, service, config, index);
		packet->is_chosen = index != row->now;
		remember(packet, service, index);
	} else if (service->choice || row->before[0] != NOBODY) {
		memory = recall(&packet->flow, packet->place, service);
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
		remember(packet, service, config->self);
	else if (service->choice || row->before[0] != NOBODY || row->now != config->self)
		return second_chance(context, packet, row, service, config,
				     recall(&packet->flow, packet->place, service), worker, PASSED_DELIVERED);
	return PASSED_DELIVERED;
}

#endif
