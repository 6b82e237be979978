/* Register tiles of one layer: what tasks of a run have in common, and the run of a tile. */
#ifndef SPARSE_TILE_H
#define SPARSE_TILE_H

#include "run.h"

/* One pass: the copy and the tiles of one image, or of the whole batch where positions span it. */
struct pass {
  const struct layer *layer;
  const struct plan *plan;
  const float *x, *residual;
  float *y;
  char *packed;
  struct workspace *workspace;
  const struct threads *threads;
  pthread_t caller;
  int64_t image;
  const struct call *before, *next;
  char *sums; /* for a tile's sums; NULL where each tile takes a slot for them */
};

/* To be called by every task: notes the thread that it runs on. */
static inline void watch(const struct pass *pass) {
  if (pthread_equal(pthread_self(), pass->caller)) return;
  const uintptr_t self = (uintptr_t)pthread_self();
  for (int i = 0; i < HELPERS; i++) {
    uintptr_t known = atomic_load_explicit(&pass->threads->helpers->seen[i], memory_order_relaxed);
    if (known == 0 && atomic_compare_exchange_strong(&pass->threads->helpers->seen[i], &known, self)) return;
    if (known == self) return;
  }
}

static inline char *slot_memory(const struct pass *pass, int slot) {
  return slot < 0 ? NULL : pass->workspace->sums + (size_t)slot * pass->workspace->sum_bytes;
}

/* All blocks of one tile, for one chunk of output channels. Sums that are not complete stay close together, and at last go
   where they belong. */
void tile_run(const struct pass *pass, const struct tile *tile, int64_t image, int64_t chunk);

/* What lies around the channels `from` to `to` - 1 of y in lanes, counted over the batch. */
void tile_borders(const struct pass *pass, int64_t from, int64_t to);

#endif
