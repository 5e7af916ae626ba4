/* Hands the kernel packets as a busy interface's driver does. Frames come back to a run as the last one left them, so
 * this gives them their Ethernet addresses back, and each packet one of 48 connections' ports. */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Where it is in a frame without options. */
#define IPV4_PORT 34
#define CONNECTIONS 48

__u8 addresses[16] = {1}; /* to, from: alone in .data */
__u32 count;

SEC("xdp")
int receive(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	__u16 *port = data + IPV4_PORT;

	if ((void *)(port + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(data, addresses, 12);
	*port = bpf_htons(20000 + count++ % CONNECTIONS);
	return XDP_PASS;
}

/* A veth can be handed such packets only while it has a program. */
SEC("xdp")
int pass(struct xdp_md *context)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
