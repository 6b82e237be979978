#include "cache_sets.h"

#include <string.h>

#include "isa.h"

enum { SETS = 64, WAYS = 7, CANDIDATES = 32, CHANNELS = 128 }; /* one way is left to weights and sums */

/* Lines of a block that do not fit into their sets. */
static int64_t crowded(const struct piece *pieces, int count, int64_t pitch, int64_t channels) {
  int64_t lines[SETS];
  memset(lines, 0, sizeof lines);
  for (int64_t c = 0; c < channels && c < CHANNELS; c++)
    for (int i = 0; i < count; i++) {
      const int64_t first = (c * pitch + pieces[i].offset) / CACHE_LINE;
      const int64_t last = (c * pitch + pieces[i].offset + pieces[i].bytes - 1) / CACHE_LINE;
      for (int64_t line = first; line <= last && line < first + SETS; line++) lines[line % SETS]++;
    }
  int64_t over = 0;
  for (int i = 0; i < SETS; i++) over += lines[i] > WAYS ? lines[i] - WAYS : 0;
  return over;
}

int64_t best_pitch(const struct piece *pieces, int count, int64_t pitch, int64_t channels) {
  int64_t best = (pitch + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE, fewest = INT64_MAX;
  const int64_t first = best;
  for (int i = 0; i < CANDIDATES; i++) {
    const int64_t over = crowded(pieces, count, first + i * CACHE_LINE, channels);
    if (over < fewest) fewest = over, best = first + i * CACHE_LINE;
    if (over == 0) break;
  }
  return best;
}

bool spreads(int64_t pitch, int64_t vectors) {
  const struct piece piece = {0, vectors * 32};
  const int64_t channels = 24576 / piece.bytes + 1;
  return crowded(&piece, 1, pitch, channels) * 8 < channels * piece.bytes / CACHE_LINE;
}
