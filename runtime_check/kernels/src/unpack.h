/* From a tile's sums to the output tensor, with residual and bounds. */
#ifndef SPARSE_UNPACK_H
#define SPARSE_UNPACK_H

#include "plan.h"

/* Write output channel `channel` of one tile of pass `image`; `sums` are the channel's vectors. */
void unpack_channel(const struct layer *layer, const struct plan *plan, const struct tile *tile, int64_t image,
                    int64_t channel, const char *sums, const float *residual, float *y);

/* The output channels `from` to `to` - 1 of one tile, whose sums lie `pitch` bytes from one channel to the next. */
void unpack_tile(const struct layer *layer, const struct plan *plan, const struct tile *tile, int64_t image,
                 int64_t from, int64_t to, const char *sums, int64_t pitch, const float *residual, float *y);

/* One value with residual and bounds; a NaN stays one. */
static inline float finish_value(const struct layer *layer, float value, const float *residual) {
  if (residual) value += *residual;
  if (value < layer->low) value = layer->low;
  if (value > layer->high) value = layer->high;
  return value;
}

#endif
