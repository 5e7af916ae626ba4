/* What the packet program is measured with: a run of BPF_PROG_TEST_RUN hands a program the frame that the last run left,
 * so these give it its beginning back, and call the program in question. They write in the widest words that the frame is
 * aligned to: a program that reads more than was written at once would wait for what no network card makes it wait for. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Where they are in a frame without options. */
#define IPV4_SOURCE 26
#define TCP_PORTS 34

struct { /* the program to call */
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");

struct beginning {
	__u32 count;
	__u8 vary; /* of how many packets each connection is; 0: all are of one */
	__u8 packet;
	__u16 to_begin; /* from here on the frame's first 14 octets */
	__u32 to_end;
	__u32 pad;
	__u64 source_and_type;
};

struct { /* of the frame and of the connections */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct beginning);
} beginnings SEC(".maps");

static __always_inline int begin_again(void *data, void *end)
{
	__u32 zero = 0;
	struct beginning *beginning = bpf_map_lookup_elem(&beginnings, &zero);
	__u32 *ports = data + TCP_PORTS, *source = data + IPV4_SOURCE;

	if (!beginning || (void *)(ports + 1) > end)
		return 0;
	*(__u16 *)data = beginning->to_begin;
	*(__u32 *)(data + 2) = beginning->to_end;
	*(__u64 *)(data + 6) = beginning->source_and_type;
	if (beginning->vary) {
		__u32 count = beginning->count;

		if (++beginning->packet >= beginning->vary) {
			beginning->packet = 0;
			beginning->count++;
		}
		*ports = bpf_htonl((count << 1 | 1) << 16 | (bpf_ntohl(*ports) & 0xffff));
		*source = bpf_htonl((bpf_ntohl(*source) & 0xffff0000) | (count >> 15 & 0xffff));
	}
	return 1;
}

SEC("xdp")
int replay_xdp(struct xdp_md *context)
{
	if (begin_again((void *)(long)context->data, (void *)(long)context->data_end))
		bpf_tail_call(context, &measured, 0);
	return XDP_ABORTED;
}

SEC("tc")
int replay_tc(struct __sk_buff *context)
{
	if (begin_again((void *)(long)context->data, (void *)(long)context->data_end))
		bpf_tail_call(context, &measured, 0);
	return TC_ACT_SHOT;
}

static __always_inline int swap(void *data, void *end)
{
	struct ethhdr *ethernet = data;
	__u8 mac[ETH_ALEN];

	if ((void *)(ethernet + 1) > end)
		return 0;
	__builtin_memcpy(mac, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
	return 1;
}

SEC("xdp")
int mac_swap_xdp(struct xdp_md *context)
{
	return swap((void *)(long)context->data, (void *)(long)context->data_end) ? XDP_TX : XDP_DROP;
}

SEC("tc")
int mac_swap_tc(struct __sk_buff *context)
{
	return swap((void *)(long)context->data, (void *)(long)context->data_end)
		       ? bpf_redirect(context->ifindex, 0)
		       : TC_ACT_SHOT;
}

/* What being called costs. */
SEC("xdp")
int nothing_xdp(struct xdp_md *context)
{
	return XDP_TX;
}

SEC("tc")
int nothing_tc(struct __sk_buff *context)
{
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
