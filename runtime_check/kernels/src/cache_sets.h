/* Addresses that share a set of the first-level cache push each other out: 64 sets of 64-byte lines, 8 lines each. */
#ifndef SPARSE_CACHE_SETS_H
#define SPARSE_CACHE_SETS_H

#include <stdbool.h>
#include <stdint.h>

enum { PIECES = 64 };

/* A run of bytes that a tile reads from each channel. */
struct piece {
  int64_t offset, bytes;
};

/* `pitch` or a little more: the distance of channels with which `channels` of them fit the cache best. */
int64_t best_pitch(const struct piece *pieces, int count, int64_t pitch, int64_t channels);

/* Whether tiles of `vectors` vectors from channels `pitch` bytes apart can use most of the cache. */
bool spreads(int64_t pitch, int64_t vectors);

#endif
