/* The parts of a plan that follow from shapes alone: method, memory layout, tiles. */
#ifndef SPARSE_GEOMETRY_H
#define SPARSE_GEOMETRY_H

#include "plan.h"

/* Fill method, layout and tiles for the batch, height and width already set. Returns NULL or what is wrong. */
const char *geometry_choose(struct plan *plan, const struct layer *layer, int threads);

/* Bytes from a channel's first vector to the one that kernel element `tap` multiplies for output position 0. */
int64_t geometry_tap(const struct plan *plan, const struct layer *layer, int64_t tap);

#endif
