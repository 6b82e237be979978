/* Runs one layer, with whatever threads the caller has. */
#ifndef SPARSE_RUN_H
#define SPARSE_RUN_H

#include "layer.h"
#include "plan.h"
#include "workspace.h"

enum { HELPERS = 3 };

/* The threads besides its caller's that tasks of a session were seen to run on, the first few of them. */
struct helpers {
  atomic_uintptr_t seen[HELPERS]; /* 0: none yet */
};

/* How many threads layers are to be divided among: 1, 2, or, where more were seen, 4. */
int helpers_threads(struct helpers *helpers);

/* Calls task(data, i) for i from 0 to count - 1, in any order and possibly at once; returns NULL or an error. */
struct threads {
  void *(*each)(void *context, void (*task)(void *data, size_t i), size_t count, void *data);
  void *context;
  struct helpers *helpers;
};

/* A layer's plan and tensors, of the sizes and forms that the plan says; `residual` is NULL where nothing is added. */
struct call {
  const struct layer *layer;
  const struct plan *plan;
  const float *x, *residual;
  float *y;
};

/* y = activation(bounds(layer(x) + residual)); y may not overlap the others; `packed` has room for the plan's copy of x.
   `before` is NULL, or begins the sums of `call`, which adds it in place of a residual. `next` is NULL, or reads groups of
   channels of what `call` makes. What begins sums or is made in groups has no y. Returns NULL, or the error that `each`
   returned. */
void *layer_run(const struct call *call, const struct call *before, const struct call *next, char *packed,
                struct workspace *workspace, const struct threads *threads);

#endif
