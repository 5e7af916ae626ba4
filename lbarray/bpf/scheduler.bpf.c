/* The packet program of a node: one decision, attached as XDP or as a tc classifier to the interface that the VIPs'
 * packets come in by. It schedules what clients send to the VIPs of this node, and on every node gives what other
 * schedulers have sent here its second chance. Needs Linux 5.10. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "transport.h"
#include "flow.h"
#include "socket.h"
#include "choose.h"
#include "frame.h"
#include "verdict.h"

/* A packet that is no good, or none of ours: only what is for a VIP of ours, or was scheduled to us, may be dropped. */
static __always_inline int refuse(const struct packet *packet, int verdict)
{
	__u32 *active;

	if (verdict < DROPPED_TRUNCATED)
		return verdict;
	active = bpf_map_lookup_elem(&vips, packet->flow.to.address);
	if (!active)
		return PASSED_NO_SERVICE;
	return *active || packet->hop ? verdict : PASSED_INACTIVE;
}

static __always_inline void name_fragment(struct fragment *fragment, const struct packet *packet)
{
	__builtin_memcpy(fragment->source, packet->flow.source, 16);
	__builtin_memcpy(fragment->vip, packet->flow.to.address, 16);
	fragment->id = packet->fragment_id;
	fragment->protocol = packet->fragment_protocol;
}

static __always_inline int follow_first_fragment(struct packet *packet, struct worker **worker)
{
	struct fragment fragment = {};
	struct fate *fate;
	int verdict;

	name_fragment(&fragment, packet);
	fate = bpf_map_lookup_elem(&fragments, &fragment);
	if (!fate) {
		verdict = refuse(packet, DROPPED_LONE_FRAGMENT);
		return verdict == DROPPED_LONE_FRAGMENT && packet->hop ? PASSED_DELIVERED : verdict;
	}
	packet->worker = fate->worker;
	packet->slot = fate->slot;
	*worker = known_worker(fate->worker);
	return *worker ? fate->verdict : PASSED_NO_WORKER;
}

static __always_inline void remember_first_fragment(struct packet *packet, int verdict)
{
	struct fate fate = {.worker = packet->worker, .verdict = verdict, .slot = packet->slot};
	struct fragment fragment = {};

	if (verdict != FORWARDED && verdict != PASSED_LOCAL && verdict != PASSED_ON)
		return;
	name_fragment(&fragment, packet);
	bpf_map_update_elem(&fragments, &fragment, &fate, BPF_ANY);
}

static __always_inline int parse(struct cursor *cursor, struct packet *packet, const struct config *config,
				 __u32 octets)
{
	__u8 protocol;
	int verdict = parse_ethernet(cursor, packet, config);

	if (verdict != GO_ON)
		return verdict;
	octets -= packet->layer3;
	if (packet->ethertype == bpf_htons(ETH_P_IP))
		verdict = parse_ipv4(cursor, packet, octets, &protocol);
	else if (packet->ethertype == bpf_htons(ETH_P_IPV6))
		verdict = parse_ipv6(cursor, packet, octets, &protocol);
	else
		return PASSED_NOT_IP;
	return verdict == GO_ON ? parse_transport(cursor, packet, protocol) : verdict;
}

static __always_inline int decide(void *context, struct cursor *cursor, struct packet *packet,
				  const struct config *config, struct worker **worker, __u32 octets)
{
	struct service *service;
	struct row *row;
	int verdict = parse(cursor, packet, config, octets);

	if (verdict == LATER_FRAGMENT)
		return follow_first_fragment(packet, worker);
	if (verdict != GO_ON)
		return refuse(packet, verdict);
	service = bpf_map_lookup_elem(&services, &packet->flow.to);
	if (!service)
		return PASSED_NO_SERVICE;
	packet->slot = service->slot;
	if (packet->hop == FROM_CLIENT) {
		if (!service->active)
			return PASSED_INACTIVE;
		verdict = schedule(context, packet, service, config, worker);
	} else {
		row = find_row(packet, service, config);
		verdict = PASSED_DELIVERED;
		if (row && (row->before[0] != NOBODY || row->now != config->self))
			verdict = second_chance(context, packet, row, config, worker, PASSED_DELIVERED);
	}
	if (packet->is_first)
		remember_first_fragment(packet, verdict);
	return verdict;
}

static __always_inline void account(const struct packet *packet, int verdict, __u64 octets)
{
	if (verdict <= PASSED_LOCAL)
		count_share(packet, verdict, octets);
	if (verdict != FORWARDED && verdict != PASSED_LOCAL)
		count(verdict, octets);
}

SEC("xdp")
int schedule_xdp(struct xdp_md *context)
{
	struct cursor cursor = {.at = (void *)(long)context->data, .end = (void *)(long)context->data_end};
	struct packet packet = {};
	struct worker *worker = 0;
	struct config *config;
	__u32 zero = 0, octets = cursor.end - cursor.at;
	int verdict;

	config = bpf_map_lookup_elem(&configs, &zero);
	if (!config)
		return XDP_PASS;
	verdict = decide(context, &cursor, &packet, config, &worker, octets);
	account(&packet, verdict, octets);
	cursor.at = (void *)(long)context->data;
	cursor.end = (void *)(long)context->data_end;
	if (verdict <= PASSED_ON && worker)
		return address_frame(&cursor, &packet, config, worker, verdict) ? XDP_TX : XDP_DROP;
	if (verdict >= DROPPED_TRUNCATED)
		return XDP_DROP;
	if (packet.hop >= ONCE_PASSED_ON)
		restore_ethertype(&cursor, &packet);
	return XDP_PASS;
}

SEC("tc")
int schedule_tc(struct __sk_buff *context)
{
	struct packet packet = {};
	struct worker *worker = 0;
	struct config *config;
	struct cursor cursor;
	__u32 zero = 0, octets = context->len;
	int verdict;

	config = bpf_map_lookup_elem(&configs, &zero);
	if (!config)
		return TC_ACT_UNSPEC;
	/* Headers may lie in fragments of the buffer; those that cannot be pulled show as truncated. */
	bpf_skb_pull_data(context, octets < HEADERS ? octets : HEADERS);
	cursor.at = (void *)(long)context->data;
	cursor.end = (void *)(long)context->data_end;
	verdict = decide(context, &cursor, &packet, config, &worker, octets);
	account(&packet, verdict, octets);
	cursor.at = (void *)(long)context->data;
	cursor.end = (void *)(long)context->data_end;
	if (verdict <= PASSED_ON && worker)
		return address_frame(&cursor, &packet, config, worker, verdict) ? bpf_redirect(config->ifindex, 0)
										: TC_ACT_SHOT;
	if (verdict >= DROPPED_TRUNCATED)
		return TC_ACT_SHOT;
	if (packet.hop >= ONCE_PASSED_ON && restore_ethertype(&cursor, &packet)) {
		/* The kernel knows it by the EtherType that it came with: let it come in once more. */
		if (address_again(&cursor, config))
			return bpf_redirect(config->ifindex, BPF_F_INGRESS);
	}
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
