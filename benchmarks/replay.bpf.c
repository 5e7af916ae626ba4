/* What the packet program is measured with: a run of BPF_PROG_TEST_RUN hands a program the frame that the last run left,
 * so these give it its beginning back, and call the program in question. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Where they are in a frame without options. */
#define IPV4_SOURCE_END 28
#define IPV4_PORT 34

struct { /* the program to call */
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");

struct { /* the frame's first 14 octets, and of how many packets each connection is; 0: all are of one */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct beginning { __u8 ethernet[14]; __u8 vary; __u8 packet; __u32 count; });
} beginnings SEC(".maps");

static __always_inline int begin_again(void *data, void *end)
{
	__u32 zero = 0;
	struct beginning *beginning = bpf_map_lookup_elem(&beginnings, &zero);
	__u16 *port = data + IPV4_PORT, *source = data + IPV4_SOURCE_END;

	if (!beginning || (void *)(port + 1) > end)
		return 0;
	__builtin_memcpy(data, beginning->ethernet, ETH_HLEN);
	if (beginning->vary) {
		__u32 count = beginning->count;

		if (++beginning->packet >= beginning->vary) {
			beginning->packet = 0;
			beginning->count++;
		}
		*port = bpf_htons(count << 1 | 1);
		*source = bpf_htons(count >> 15);
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
