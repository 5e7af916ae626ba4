/* From a flow to a number: SipHash-1-3 (Aumasson and Bernstein, 2012) with the array's secret, so that a client cannot
 * choose its worker. Addresses and source port are what a client can vary. decision.py computes the same. */
#ifndef LBARRAY_FLOW_H
#define LBARRAY_FLOW_H

#include "packet.h"

#define ROTATE(word, bits) ((word) << (bits) | (word) >> (64 - (bits)))
/* The half of a round that meets no input. */
#define SIP_BEGIN (v0 += v1, v1 = ROTATE(v1, 13), v1 ^= v0, v0 = ROTATE(v0, 32))
#define SIP_END                                                                                                        \
	do {                                                                                                           \
		v2 += v3, v3 = ROTATE(v3, 16), v3 ^= v2;                                                               \
		v0 += v3, v3 = ROTATE(v3, 21), v3 ^= v0;                                                               \
		v2 += v1, v1 = ROTATE(v1, 17), v1 ^= v2, v2 = ROTATE(v2, 32);                                          \
	} while (0)
/* A word, where the round has begun. */
#define SIP_WORD(word)                                                                                                 \
	do {                                                                                                           \
		__u64 w = (word);                                                                                      \
		v3 ^= w;                                                                                               \
		SIP_END;                                                                                               \
		v0 ^= w;                                                                                               \
		SIP_BEGIN;                                                                                             \
	} while (0)

/* An IPv4 client is hashed as 4 octets, an IPv6 one as 16; then, by connection, its port. */
static __always_inline __u64 hash_flow(const struct flow *flow, int is_ipv4, const struct service *service,
				       const struct config *config)
{
	__u64 v0 = config->begun[0], v1 = config->begun[1], v2 = config->begun[2], v3 = config->begun[3];
	__u64 last = 0, end = little64(flow->words[1] & service->mask[1]);

	if (service->hash_by == HASH_BY_CONNECTION)
		last = 2ULL << 56 | little16(flow->source_port);
	if (is_ipv4) {
		last = (last & 2ULL << 56) + (4ULL << 56) + (last << 32 | end >> 32);
	} else {
		SIP_WORD(little64(flow->words[0] & service->mask[0]));
		SIP_WORD(end);
		last += 16ULL << 56;
	}
	SIP_WORD(last);
	v2 ^= 0xff;
	SIP_END;
	SIP_BEGIN;
	SIP_END;
	SIP_BEGIN;
	SIP_END;
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
