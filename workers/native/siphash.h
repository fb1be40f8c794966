/*
 * SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF"; one round a word, three at the end).
 * Keyed, because users choose file names: without the key nobody can choose names that all fall into one chain.
 */
#ifndef RINGMOUNT_SIPHASH_H
#define RINGMOUNT_SIPHASH_H
#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t sip_rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = sip_rotate(v[1], 13) ^ v[0];
	v[3] = sip_rotate(v[3], 16) ^ v[2];
	v[0] = sip_rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = sip_rotate(v[1], 17) ^ v[2];
	v[3] = sip_rotate(v[3], 21) ^ v[0];
	v[2] = sip_rotate(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
}

static inline uint64_t siphash13(const uint64_t key[2], const void *data, size_t length)
{
	uint64_t v[4] = {
		key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
		key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573,
	};
	const unsigned char *bytes = data, *tail = bytes + (length & ~(size_t)7);
	uint64_t word;
	for (; bytes < tail; bytes += 8) {
		memcpy(&word, bytes, 8);
		sip_word(v, le64toh(word));
	}
	word = 0;
	memcpy(&word, tail, length & 7);
	sip_word(v, le64toh(word) | (uint64_t)length << 56);
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
