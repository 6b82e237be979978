#include "chain.h"

#include <stdlib.h>

#include "schedule.h"

struct chain *chain_create(struct step *steps, int step_count, int value_count, int input_count, int *outputs,
                           int output_count) {
  struct chain *chain = calloc(1, sizeof *chain);
  if (!chain || pthread_mutex_init(&chain->lock, NULL)) {
    free(chain);
    for (int i = 0; i < step_count; i++) layer_release(steps[i].layer);
    free(steps);
    free(outputs);
    return NULL;
  }
  chain->steps = steps;
  chain->step_count = step_count;
  chain->value_count = value_count;
  chain->input_count = input_count;
  chain->outputs = outputs;
  chain->output_count = output_count;
  return chain;
}

void chain_release(struct chain *chain) {
  if (!chain) return;
  for (int i = 0; i < SCHEDULES; i++) schedule_release(chain, chain->schedules[i]);
  for (int i = 0; i < chain->step_count; i++) layer_release(chain->steps[i].layer);
  pthread_mutex_destroy(&chain->lock);
  free(chain->steps);
  free(chain->outputs);
  free(chain);
}

static bool for_inputs(const struct chain *chain, const struct schedule *schedule, const struct extent *inputs) {
  bool same = true;
  for (int v = 0; same && v < chain->input_count; v++) same = extents_equal(&schedule->values[v].extent, &inputs[v]);
  return same;
}

static struct schedule *find(struct chain *chain, const struct extent *inputs, int threads) {
  for (int i = 0; i < SCHEDULES; i++) {
    struct schedule *schedule = chain->schedules[i];
    if (!schedule || schedule->threads != threads || !for_inputs(chain, schedule, inputs)) continue;
    schedule->references++;
    schedule->used = ++chain->clock;
    return schedule;
  }
  return NULL;
}

/* Put a new schedule in the place of one for the same inputs and fewer threads, or of none, or of the one unused for
   longest; where all are in use it lives for one run. */
static void keep(struct chain *chain, const struct extent *inputs, struct schedule *schedule) {
  int place = -1;
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < SCHEDULES && least > 0; i++) {
    const struct schedule *const other = chain->schedules[i];
    if (other && other->references > 0) continue;
    const uint64_t worth = !other ? 1 : for_inputs(chain, other, inputs) ? 0 : 1 + other->used;
    if (worth >= least) continue;
    least = worth;
    place = i;
  }
  if (place < 0) return;
  schedule_release(chain, chain->schedules[place]);
  chain->schedules[place] = schedule;
}

struct schedule *schedule_borrow(struct chain *chain, const struct extent *inputs, int threads, const char **reason) {
  *reason = NULL;
  pthread_mutex_lock(&chain->lock);
  struct schedule *schedule = find(chain, inputs, threads);
  pthread_mutex_unlock(&chain->lock);
  if (schedule) return schedule;
  schedule = schedule_create(chain, inputs, threads, reason); /* unlocked: other shapes go on meanwhile */
  if (!schedule) return NULL;
  schedule->references = 1;
  pthread_mutex_lock(&chain->lock);
  struct schedule *other = find(chain, inputs, threads); /* another run may have been quicker */
  if (!other) {
    schedule->used = ++chain->clock;
    keep(chain, inputs, schedule);
  }
  pthread_mutex_unlock(&chain->lock);
  if (!other) return schedule;
  schedule_release(chain, schedule);
  return other;
}

void schedule_return(struct chain *chain, struct schedule *schedule) {
  bool kept = false;
  pthread_mutex_lock(&chain->lock);
  schedule->references--;
  for (int i = 0; i < SCHEDULES; i++) kept |= chain->schedules[i] == schedule;
  const bool last = schedule->references == 0;
  pthread_mutex_unlock(&chain->lock);
  if (!kept && last) schedule_release(chain, schedule);
}

/* The memory of a value in one pass. */
static float *locate(const struct schedule *schedule, int v, int64_t pass, float **values,
                     const struct workspace *workspace) {
  const struct value *value = &schedule->values[v];
  if (value->offset >= 0) return (float *)(workspace->memory + value->offset);
  int64_t elements = pass; /* of the passes before */
  for (int i = 1; pass > 0 && i < value->extent.rank; i++) elements *= value->extent.sizes[i];
  return values[v] + elements;
}

/* A step's plan and its tensors in one pass. */
static struct call find_call(const struct chain *chain, const struct schedule *schedule, int i, int64_t pass,
                             float **values, const struct workspace *workspace) {
  const struct step *const step = &chain->steps[i];
  return (struct call){
      .layer = step->layer,
      .plan = schedule->plans[i],
      .x = locate(schedule, step->x, pass, values, workspace),
      .residual = step->residual < 0 ? NULL : locate(schedule, step->residual, pass, values, workspace),
      .y = locate(schedule, step->y, pass, values, workspace),
  };
}

void *chain_run(const struct chain *chain, const struct schedule *schedule, float **values, struct workspace *workspace,
                const struct threads *threads) {
  void *error = NULL;
  char *const packed = workspace->memory + schedule->value_bytes;
  for (int64_t pass = 0; pass < schedule->passes; pass++)
    for (int i = 0; i < chain->step_count && !error; i++) {
      if (!schedule->plans[i]) continue;
      struct call call = find_call(chain, schedule, i, pass, values, workspace), other;
      if (call.plan->layout.begins) {
        other = call;
        call = find_call(chain, schedule, ++i, pass, values, workspace);
        call.residual = NULL;
        error = layer_run(&call, &other, NULL, packed, workspace, threads);
      } else if (call.plan->layout.group_channels) {
        other = find_call(chain, schedule, ++i, pass, values, workspace);
        error = layer_run(&call, NULL, &other, packed, workspace, threads);
      } else {
        error = layer_run(&call, NULL, NULL, packed, workspace, threads);
      }
    }
  return error;
}
