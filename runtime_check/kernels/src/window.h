/* Layers that work on each channel alone: depthwise convolutions and pooling. */
#ifndef SPARSE_WINDOW_H
#define SPARSE_WINDOW_H

#include "plan.h"

/* Compute channel `channel`, counted over the whole batch; `scratch` has the plan's sum_bytes. */
void window_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, char *scratch,
                    float *y);

#endif
