/* The packet program of a node: one decision, attached as XDP or as a tc classifier to the interface that the VIPs'
 * packets come in by. It schedules what clients send to the VIPs of this node, and on every node gives what other
 * schedulers have sent here its second chance. Needs Linux 5.10. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "packet.h"
#include "maps.h"
#include "parse.h"
#include "transport.h"
#include "flow.h"
#include "memory.h"
#include "socket.h"
#include "choose.h"
#include "plain.h"
#include "frame.h"
#include "tunnel.h"
#include "report.h"
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

static __always_inline int choose(void *context, struct cursor *cursor, struct packet *packet,
				  const struct config *config, struct worker **worker, __u32 octets)
{
	const struct service *service;
	int verdict;

	packet->verdict = parse(cursor, packet, config, octets);
	LET_GO();
	verdict = packet->verdict;
	if (verdict == LATER_FRAGMENT)
		return follow_first_fragment(packet, worker);
	if (verdict != GO_ON)
		return refuse(packet, verdict);
	service = find_service(packet, config);
	if (!service)
		return PASSED_NO_SERVICE;
	packet->slot = service->slot;
	if (packet->hop == FROM_CLIENT) {
		if (!service->active)
			return PASSED_INACTIVE;
		verdict = schedule(context, packet, service, config, worker);
	} else {
		verdict = receive(context, packet, service, config, worker);
	}
	if (packet->is_first)
		remember_first_fragment(packet, verdict);
	return verdict;
}

/* Octets of the packet, or of the largest of those that it was coalesced from: each had all the headers. */
static __always_inline __u32 largest(const struct packet *packet, __u32 octets)
{
	__u32 whole = octets - ETH_HLEN;

	return packet->segment && packet->payload > packet->segment ? whole - packet->payload + packet->segment : whole;
}

static __always_inline void decide(void *context, struct cursor *cursor, struct packet *packet,
				  const struct config *config, struct worker **worker, __u32 octets)
{
	int verdict = choose(context, cursor, packet, config, worker, octets);

	if (verdict <= PASSED_ON && *worker && is_tunnelled(*worker)) {
		if (packet->layer3 != ETH_HLEN) {
			verdict = PASSED_NO_WORKER;
		} else if (largest(packet, octets) + outer_length(*worker) > config->mtu) {
			if (packet->hop == FROM_CLIENT && packet->kind != QUOTED)
				packet->fits = config->mtu - outer_length(*worker);
			verdict = DROPPED_TOO_BIG;
		}
	}
	packet->verdict = verdict;
}

static __always_inline void account(const struct packet *packet, int verdict, __u64 octets)
{
	if (verdict <= PASSED_LOCAL)
		count_share(packet, verdict, octets);
	if (verdict != FORWARDED && verdict != PASSED_LOCAL)
		count(verdict, octets);
}

/* A packet of a tunnel whose headers the kernel does not change. */
static __always_inline int lose(__u64 octets, int action)
{
	count(DROPPED_NO_ROOM, octets);
	return action;
}

static __always_inline struct packet *start(void)
{
	__u32 zero = 0;
	struct packet *packet = bpf_map_lookup_elem(&packets, &zero);

	if (packet)
		__builtin_memset(packet, 0, sizeof(*packet));
	return packet;
}

static __always_inline void see(struct cursor *cursor, __u32 data, __u32 end)
{
	cursor->at = (void *)(long)data;
	cursor->end = (void *)(long)end;
}

/* Take the outer headers away: Ethernet moves to where they end. */
static __always_inline int strip_xdp(struct xdp_md *context, __u32 length, __be16 ethertype)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct ethernet *before = data, *after;

	length &= 63;
	after = data + length;
	if ((void *)(before + 1) > end || (void *)(after + 1) > end)
		return 0;
	write_macs(after, mac_of(before->to), mac_of(before->source));
	after->type = ethertype;
	return !bpf_xdp_adjust_head(context, length);
}

static __always_inline int handle_xdp(struct xdp_md *context)
{
	const struct worker *plain;
	struct packet *packet;
	struct worker *worker = 0;
	struct config *config;
	struct cursor cursor;
	__u32 octets;
	int verdict;

	config = &configs;
	see(&cursor, context->data, context->data_end);
	plain = forward_plain(&cursor, config, cursor.end - cursor.at);
	if (plain)
		return address(&cursor, plain->mac, config->mac) ? XDP_TX : XDP_DROP;
	packet = start();
	if (!packet)
		return XDP_PASS;
	packet->stripped = find_tunnel(&cursor, config, packet);
	LET_GO();
	if (packet->stripped) {
		if (!strip_xdp(context, packet->stripped, packet->ethertype))
			return lose(cursor.end - cursor.at, XDP_DROP);
		see(&cursor, context->data, context->data_end);
	}
	LET_GO();
	octets = cursor.end - cursor.at;
	decide(context, &cursor, packet, config, &worker, octets);
	LET_GO();
	verdict = packet->verdict;
	account(packet, verdict, octets);
	see(&cursor, context->data, context->data_end);
	if (verdict <= PASSED_ON && worker) {
		if (!is_tunnelled(worker))
			return address_frame(&cursor, packet, config, worker, verdict) ? XDP_TX : XDP_DROP;
		if (bpf_xdp_adjust_head(context, -(int)outer_length(worker)))
			return lose(octets, XDP_DROP);
		see(&cursor, context->data, context->data_end);
		return write_outer(&cursor, packet, config, worker, passes_of(packet, verdict), octets - ETH_HLEN)
			       ? XDP_TX
			       : lose(octets, XDP_DROP);
	}
	if (verdict >= DROPPED_TRUNCATED) {
		if (packet->fits)
			report_xdp(context, packet->fits);
		return XDP_DROP;
	}
	if (packet->hop >= ONCE_PASSED_ON && verdict != PASSED_ELSEWHERE)
		restore_ethertype(&cursor, packet);
	return XDP_PASS;
}

SEC("xdp")
int schedule_xdp(struct xdp_md *context)
{
	int action = handle_xdp(context);

	if (action != XDP_PASS)
		show(context);
	return action;
}

/* Take the outer headers away. Whether the kernel has to see the packet's EtherType anew, or -1. */
static __always_inline int strip_tc(struct __sk_buff *context, __u32 length, __be16 ethertype)
{
	struct ethernet *ethernet;
	int changed;

	if (bpf_skb_adjust_room(context, -(int)length, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	bpf_skb_pull_data(context, context->len < HEADERS ? context->len : HEADERS);
	ethernet = (void *)(long)context->data;
	if ((void *)(ethernet + 1) > (void *)(long)context->data_end)
		return -1;
	changed = ethernet->type != ethertype;
	ethernet->type = ethertype;
	return changed;
}

/* Room for the outer headers. The kernel adds a tunnel once only, and to what it takes for IP: what came in a tunnel may
 * still be marked as such, and has its inner headers where they were; what another node passed on has that node's
 * EtherType in the buffer for good, and gets its room before Ethernet, which is written anew. */
static __always_inline int make_room_tc(struct __sk_buff *context, const struct packet *packet,
					const struct worker *worker)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO, tunnel;
	__u32 length = outer_length(worker);

	tunnel = is_ipv4(worker->address) ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	if (worker->flags & WORKER_GUE)
		tunnel |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	if (!bpf_skb_adjust_room(context, length, BPF_ADJ_ROOM_MAC, flags | tunnel))
		return 1;
	if (packet->stripped)
		return !bpf_skb_adjust_room(context, length, BPF_ADJ_ROOM_MAC, flags);
	return packet->hop >= ONCE_PASSED_ON && !bpf_skb_change_head(context, length, 0);
}

SEC("tc")
int schedule_tc(struct __sk_buff *context)
{
	const struct worker *plain;
	struct packet *packet;
	struct worker *worker = 0;
	struct config *config;
	struct cursor cursor;
	__u32 octets;
	int verdict, changed;

	config = &configs;
	see(&cursor, context->data, context->data_end);
	plain = forward_plain(&cursor, config, context->len);
	if (plain)
		return address(&cursor, plain->mac, config->mac) ? bpf_redirect(config->ifindex, 0) : TC_ACT_SHOT;
	packet = start();
	if (!packet)
		return TC_ACT_UNSPEC;
	/* Headers may lie in fragments of the buffer; those that cannot be pulled show as truncated. */
	bpf_skb_pull_data(context, context->len < HEADERS ? context->len : HEADERS);
	see(&cursor, context->data, context->data_end);
	packet->stripped = find_tunnel(&cursor, config, packet);
	LET_GO();
	if (packet->stripped) {
		changed = strip_tc(context, packet->stripped, packet->ethertype);
		if (changed < 0)
			return lose(context->len, TC_ACT_SHOT);
		packet->again = changed;
		see(&cursor, context->data, context->data_end);
	}
	LET_GO();
	octets = context->len;
	packet->segment = context->gso_size;
	decide(context, &cursor, packet, config, &worker, octets);
	LET_GO();
	verdict = packet->verdict;
	account(packet, verdict, octets);
	see(&cursor, context->data, context->data_end);
	if (verdict <= PASSED_ON && worker) {
		if (is_tunnelled(worker)) {
			if (!make_room_tc(context, packet, worker))
				return lose(octets, TC_ACT_SHOT);
			bpf_skb_pull_data(context, context->len < HEADERS ? context->len : HEADERS);
			see(&cursor, context->data, context->data_end);
			if (!write_outer(&cursor, packet, config, worker, passes_of(packet, verdict),
					 octets - ETH_HLEN))
				return lose(octets, TC_ACT_SHOT);
		} else if (!address_frame(&cursor, packet, config, worker, verdict)) {
			return TC_ACT_SHOT;
		}
		return bpf_redirect(config->ifindex, 0);
	}
	if (verdict >= DROPPED_TRUNCATED) {
		if (packet->fits)
			report_tc(context, packet->fits);
		return TC_ACT_SHOT;
	}
	if (verdict == PASSED_ELSEWHERE)
		return TC_ACT_UNSPEC;
	if (packet->hop >= ONCE_PASSED_ON && !packet->stripped)
		packet->again |= restore_ethertype(&cursor, packet);
	/* The kernel knows it by the EtherType that it came with: let it come in once more, from ourselves to ourselves. */
	if (packet->again && address(&cursor, config->mac, config->mac))
		return bpf_redirect(config->ifindex, BPF_F_INGRESS);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
