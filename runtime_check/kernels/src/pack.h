/* Copies of a layer's input in the layout that a plan's tiles read. */
#ifndef SPARSE_PACK_H
#define SPARSE_PACK_H

#include "plan.h"

/* Copy input channel `channel` of pass `image` to `output`; `scratch` holds the plan's image_bytes. */
void pack_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t image, int64_t channel,
                  char *scratch, char *output);

/* The same for channels `from` to `to` - 1, each where it belongs in `packed`. */
void pack_channels(const struct layer *layer, const struct plan *plan, const float *x, int64_t image, int64_t from,
                   int64_t to, char *scratch, char *packed);

/* One channel's pixels, row after row: where they lie in x, or a copy of what lies in lanes. */
const float *pack_plain(const struct layer *layer, const struct plan *plan, const float *x, int64_t image,
                        int64_t channel, float *copy);

/* Copy channel `channel`, counted over the batch, of what is added into lanes, where it belongs in `output`. */
void pack_residual(const struct layer *layer, const struct plan *plan, const float *residual, int64_t channel,
                   char *output);

/* Copy eight input columns of a linear layer, from `channel` on. */
void pack_inputs(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, char *packed);

#endif
