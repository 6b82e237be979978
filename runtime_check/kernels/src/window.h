/* Layers that work on each channel alone. */
#ifndef SPARSE_WINDOW_H
#define SPARSE_WINDOW_H

#include "plan.h"

/* Compute channel `channel`, counted over the whole batch; `scratch` has the plan's sum_bytes, `factors` what SCALE
   multiplies each channel with. */
void window_channel(const struct layer *layer, const struct plan *plan, const float *x, const float *factors,
                    int64_t channel, char *scratch, float *y);

#endif
