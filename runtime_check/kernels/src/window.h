/* Layers that work on each channel alone. */
#ifndef SPARSE_WINDOW_H
#define SPARSE_WINDOW_H

#include "plan.h"

/* Pointers to the rows that windows read, in front of what they read. */
static inline int64_t window_pointer_bytes(const struct layer *layer) {
  const int64_t line = 64;
  return (layer->kernel[0] * (int64_t)sizeof(char *) + line - 1) / line * line;
}

/* Compute the channels `from` to `to` - 1, counted over the whole batch; `scratch` has the plan's sum_bytes, `factors` what
   SCALE multiplies each channel with. */
void window_channels(const struct layer *layer, const struct plan *plan, const float *x, const float *factors,
                     int64_t from, int64_t to, char *scratch, float *y);

#endif
