/* What Python is told of single packets. */
#ifndef LBARRAY_REPORT_H
#define LBARRAY_REPORT_H

#include "maps.h"
#include "packet.h"

/* Who floods us with packets that are too big shall not keep Python busy: one in so many nanoseconds, by processor. */
#define REPORT_PAUSE 2000000

static __always_inline struct too_big *reserve_report(__u32 fits)
{
	__u64 now = bpf_ktime_get_ns(), *last;
	struct too_big *report;
	__u32 zero = 0;

	last = bpf_map_lookup_elem(&reported, &zero);
	if (!last || now - *last < REPORT_PAUSE)
		return 0;
	*last = now;
	report = bpf_ringbuf_reserve(&reports, sizeof(*report), 0);
	if (report)
		report->mtu = fits;
	return report;
}

/* Not inlined, for the verifier to see the loop once. */
__attribute__((noinline)) int report_xdp(struct xdp_md *context, __u32 fits)
{
	const __u16 *from = (void *)(long)context->data;
	struct too_big *report;
	__u16 *to;

	if ((void *)from + sizeof(report->frame) > (void *)(long)context->data_end)
		return 0;
	report = reserve_report(fits);
	if (!report)
		return 0;
	to = (__u16 *)report->frame;
	for (int place = 0; place < sizeof(report->frame) / 2; place++)
		to[place] = from[place];
	bpf_ringbuf_submit(report, 0);
	return 0;
}

/* A capture on this machine wants to see the frame, as it leaves or as it is dropped. */
static __always_inline void show(struct xdp_md *context)
{
	__u32 sample = sampling, length;

	if (!sample || bpf_get_prandom_u32() % sample)
		return;
	length = context->data_end - context->data;
	bpf_perf_event_output(context, &shown,
			      BPF_F_CURRENT_CPU | (__u64)(length < SHOWN_OCTETS ? length : SHOWN_OCTETS) << 32, &length,
			      sizeof(length));
}

static __always_inline void report_tc(struct __sk_buff *context, __u32 fits)
{
	struct too_big *report = reserve_report(fits);

	if (!report)
		return;
	if (bpf_skb_load_bytes(context, 0, report->frame, sizeof(report->frame)))
		bpf_ringbuf_discard(report, 0);
	else
		bpf_ringbuf_submit(report, 0);
}

#endif
