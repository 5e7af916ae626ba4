/* Does nothing: veth delivers what XDP sends back at its one end only where the other end has a program. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int pass(struct xdp_md *context)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
