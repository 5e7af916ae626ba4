/* From a flow to a number: SipHash-1-3 (Aumasson and Bernstein, 2012) with the array's secret, so that a client cannot
 * choose its worker. Addresses and source port are what a client can vary. decision.py computes the same. */
#ifndef LBARRAY_FLOW_H
#define LBARRAY_FLOW_H

#include "packet.h"

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define little(word) __builtin_bswap64(word)
#else
#define little(word) (word)
#endif

#define ROTATE(word, bits) ((word) << (bits) | (word) >> (64 - (bits)))
#define SIP_ROUND                                                                                                      \
	do {                                                                                                           \
		v0 += v1, v1 = ROTATE(v1, 13), v1 ^= v0, v0 = ROTATE(v0, 32);                                          \
		v2 += v3, v3 = ROTATE(v3, 16), v3 ^= v2;                                                               \
		v0 += v3, v3 = ROTATE(v3, 21), v3 ^= v0;                                                               \
		v2 += v1, v1 = ROTATE(v1, 17), v1 ^= v2, v2 = ROTATE(v2, 32);                                          \
	} while (0)
#define SIP_WORD(word)                                                                                                 \
	do {                                                                                                           \
		__u64 w = (word);                                                                                      \
		v3 ^= w;                                                                                               \
		SIP_ROUND;                                                                                             \
		v0 ^= w;                                                                                               \
	} while (0)

/* An IPv4 client is hashed as 4 octets, an IPv6 one as 16; then, by connection, its port. */
static __always_inline __u64 hash_flow(const struct packet *packet, const struct service *service,
				       const struct config *config)
{
	__u64 v0 = config->secret[0] ^ 0x736f6d6570736575ULL, v1 = config->secret[1] ^ 0x646f72616e646f6dULL;
	__u64 v2 = config->secret[0] ^ 0x6c7967656e657261ULL, v3 = config->secret[1] ^ 0x7465646279746573ULL;
	__u64 tail = 0, length, words[2];

	if (service->hash_by == HASH_BY_CONNECTION) {
		__u8 *octets = (__u8 *)&packet->flow.source_port;

		tail = octets[0] | (__u64)octets[1] << 8;
	}
	__builtin_memcpy(words, packet->flow.source, sizeof(words));
	if (service->hash_by == HASH_BY_CLIENT) {
		words[0] &= service->mask[0];
		words[1] &= service->mask[1];
	}
	if (packet->ethertype == bpf_htons(ETH_P_IP)) {
		length = 4;
		tail = (tail << 32) | (little(words[1]) >> 32);
	} else {
		length = 16;
		SIP_WORD(little(words[0]));
		SIP_WORD(little(words[1]));
	}
	length += service->hash_by == HASH_BY_CONNECTION ? 2 : 0;
	SIP_WORD(length << 56 | tail);
	v2 ^= 0xff;
	SIP_ROUND;
	SIP_ROUND;
	SIP_ROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
