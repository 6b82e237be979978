/* What squeeze-and-excitation adds to a network: the mean of each channel, and each channel times a number. */
#ifndef SPARSE_SQUEEZE_H
#define SPARSE_SQUEEZE_H

#include "plan.h"

/* Channels are counted over the whole batch. */
void mean_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, float *y);

/* Whether both sides of a SCALE layer have the same lanes, or none. */
static inline bool lie_alike(const struct form *x, const struct form *y) { return x->group_rows == y->group_rows; }
/* y may be x where their forms are equal. */
void scale_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, float factor,
                   float *y);

#endif
