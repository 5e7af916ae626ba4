/* Octets as words. What is written in pieces and read as a whole makes a processor wait until all pieces have left it:
 * so addresses are put together in registers. */
#ifndef LBARRAY_WORDS_H
#define LBARRAY_WORDS_H

#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FIRST_AND_SECOND(first, second, bits) ((first) << (bits) | (second))
#define little64(word) __builtin_bswap64(word)
#define little16(half) __builtin_bswap16(half)
#else
#define FIRST_AND_SECOND(first, second, bits) ((second) << (bits) | (first))
#define little64(word) (word)
#define little16(half) (half)
#endif

/* Four octets and the four behind them. */
static __always_inline __u64 word_of(__u32 first, __u32 second)
{
	return FIRST_AND_SECOND((__u64)first, (__u64)second, 32);
}

/* Two octets and the two behind them. */
static __always_inline __u32 pair_of(__u16 first, __u16 second)
{
	return FIRST_AND_SECOND((__u32)first, (__u32)second, 16);
}

/* The last eight octets of a mapped IPv4 address. */
static __always_inline __u64 mapped(__be32 address)
{
	return word_of(bpf_htonl(0xffff), address);
}

static __always_inline void write_ipv6(__u64 *words, const __be32 *address)
{
	words[0] = word_of(address[0], address[1]);
	words[1] = word_of(address[2], address[3]);
}

/* A mapped address. */
static __always_inline int is_ipv4(const void *address)
{
	const __u32 *words = address;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

/* As struct ethhdr, in the halves that it is aligned to. */
struct ethernet {
	__u16 to[3];
	__u16 source[3];
	__be16 type;
};

/* A MAC address and two octets of nothing. */
static __always_inline __u64 mac_of(const __u16 *mac)
{
	return word_of(pair_of(mac[0], mac[1]), pair_of(mac[2], 0));
}

static __always_inline __u64 aligned_word(const void *octets)
{
	return *(const __u64 *)octets;
}

/* From words that begin with a MAC address. Its parts are aligned as they are where an IP header shall be. */
static __always_inline void write_macs(struct ethernet *ethernet, __u64 to, __u64 source)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	ethernet->to[0] = to >> 48;
	*(__u32 *)(ethernet->to + 1) = to >> 16;
	*(__u32 *)ethernet->source = source >> 32;
	ethernet->source[2] = source >> 16;
#else
	ethernet->to[0] = to;
	*(__u32 *)(ethernet->to + 1) = to >> 16;
	*(__u32 *)ethernet->source = source;
	ethernet->source[2] = source >> 32;
#endif
}

#endif
