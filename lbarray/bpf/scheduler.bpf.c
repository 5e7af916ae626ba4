/* The scheduler: a tc classifier on the interface that the VIPs' packets come in by. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "maps.h"
#include "parse.h"
#include "flow.h"
#include "forward.h"
#include "verdict.h"

static __always_inline enum verdict decide(struct cursor *cursor, const struct config *config, struct worker **worker,
					   __u32 *index)
{
	struct flow flow = {};
	struct service *service;
	enum verdict verdict;
	__u16 protocol;

	verdict = parse_ethernet(cursor, &protocol);
	if (verdict != GO_ON)
		return verdict;
	if (protocol == bpf_htons(ETH_P_IP))
		verdict = parse_ipv4(cursor, &flow);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		verdict = parse_ipv6(cursor, &flow);
	else
		return PASSED_NOT_IP;
	if (verdict != GO_ON)
		return verdict;
	verdict = parse_tcp(cursor, &flow);
	if (verdict != GO_ON)
		return verdict;
	service = bpf_map_lookup_elem(&services, &flow.to);
	if (!service)
		return PASSED_NO_SERVICE;
	if (!service->active)
		return PASSED_INACTIVE;
	return choose_worker(&flow, config, service, worker, index);
}

SEC("tc")
int schedule(struct __sk_buff *packet)
{
	struct cursor cursor;
	struct config *config;
	struct worker *worker = 0;
	enum verdict verdict;
	__u32 zero = 0, index = 0;

	config = bpf_map_lookup_elem(&configs, &zero);
	if (!config)
		return TC_ACT_OK;
	/* Headers may lie in fragments of the buffer; failing to pull them shows as truncated. */
	bpf_skb_pull_data(packet, sizeof(struct ethhdr) + 60 + sizeof(struct tcphdr) < packet->len
					  ? sizeof(struct ethhdr) + 60 + sizeof(struct tcphdr)
					  : packet->len);
	cursor.at = (void *)(long)packet->data;
	cursor.end = (void *)(long)packet->data_end;
	verdict = decide(&cursor, config, &worker, &index);
	count(&verdicts, verdict, packet->len);
	if (verdict == PASSED_LOCAL)
		count(&shares, index, packet->len);
	if (verdict != FORWARDED || !worker)
		return TC_ACT_OK;
	count(&shares, index, packet->len);
	cursor.at = (void *)(long)packet->data;
	if (cursor.at + sizeof(struct ethhdr) > (void *)(long)packet->data_end)
		return TC_ACT_OK;
	address_frame(cursor.at, config, worker);
	return bpf_redirect(config->ifindex, 0);
}

char _license[] SEC("license") = "GPL";
