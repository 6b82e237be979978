/* Runs one layer, with whatever threads the caller has. */
#ifndef SPARSE_RUN_H
#define SPARSE_RUN_H

#include "layer.h"
#include "plan.h"
#include "workspace.h"

/* Calls task(data, i) for i from 0 to count - 1, in any order and possibly at once; returns NULL or an error. */
struct threads {
  void *(*each)(void *context, void (*task)(void *data, size_t i), size_t count, void *data);
  void *context;
  atomic_bool *several; /* set for good once tasks were seen to run on more than one thread */
};

/* A layer of windows that reads what another makes, while it is close. */
struct follower {
  const struct layer *layer;
  const struct plan *plan;
  float *y;
};

/* y = activation(bounds(layer(x) + residual)). x, residual (or NULL) and y have the sizes and forms of the plan; y may not overlap
   the others; `packed` has room for the plan's copy of x. Where the plan makes groups of channels, `next` reads them and
   y is NULL. Returns NULL, or the error that `each` returned. */
void *layer_run(const struct layer *layer, const struct plan *plan, const float *x, const float *residual, float *y,
                const struct follower *next, char *packed, struct workspace *workspace, const struct threads *threads);

#endif
