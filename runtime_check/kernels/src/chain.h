/* Layers that follow each other, and what lies between them: immutable but for the schedules it keeps. */
#ifndef SPARSE_CHAIN_H
#define SPARSE_CHAIN_H

#include "form.h"
#include "layer.h"
#include "run.h"

enum { EXTENT_RANK = 8, SCHEDULES = 8 };

/* The sizes of one tensor. */
struct extent {
  int rank;
  int64_t sizes[EXTENT_RANK];
};

/* One layer and the values it reads and makes; `residual` is -1 where nothing is added. */
struct step {
  struct layer *layer;
  int x, residual, y;
};

static inline bool extents_equal(const struct extent *a, const struct extent *b) {
  bool same = a->rank == b->rank;
  for (int i = 0; same && i < a->rank; i++) same = a->sizes[i] == b->sizes[i];
  return same;
}

struct schedule;

/* Values 0 to input_count - 1 come from outside; each of the others is made by one step, before anything reads it, and
   they are numbered in the order of their steps. */
struct chain {
  struct step *steps;
  int step_count, value_count, input_count, output_count;
  int *outputs; /* values that go outside */

  pthread_mutex_t lock; /* of what follows */
  struct schedule *schedules[SCHEDULES];
  uint64_t clock;
};

struct value {
  struct extent extent;
  struct form form;
  int64_t bytes, offset; /* in the workspace; offset -1: the caller's memory; bytes 0: in slots, or not at all */
};

/* How a chain runs on inputs of certain sizes. Immutable. */
struct schedule {
  struct value *values;
  struct plan **plans; /* [step_count]; NULL where a step's batch is empty: steps side by side may have other batches */
  int64_t value_bytes, packed_bytes, sum_bytes;
  int threads;
  int64_t passes; /* how often the steps are gone through: once, or for each image of a batch */

  int references; /* guarded by the chain's lock */
  uint64_t used;
};

/* Takes steps, outputs and the layers in `steps` over, also where it fails and returns NULL. */
struct chain *chain_create(struct step *steps, int step_count, int value_count, int input_count, int *outputs,
                           int output_count);
void chain_release(struct chain *chain);

/* The schedule for inputs of these sizes, divided among so many threads, from the cache or new; give it back with `schedule_return`.
   Returns NULL and points `reason` to a constant text when the chain cannot run on them. */
struct schedule *schedule_borrow(struct chain *chain, const struct extent *inputs, int threads, const char **reason);
void schedule_return(struct chain *chain, struct schedule *schedule);

/* Runs all steps. `values` holds the caller's memory for inputs and outputs, NULL for the rest; outputs may not overlap
   anything. Returns NULL, or the error that a thread's call returned. */
void *chain_run(const struct chain *chain, const struct schedule *schedule, float **values, struct workspace *workspace,
                const struct threads *threads);

#endif
