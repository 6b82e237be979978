#include "plan.h"

#include <stdlib.h>

#include "geometry.h"
#include "pack.h"
#include "weights.h"

void plan_release(struct plan *plan) {
  if (!plan) return;
  free(plan->parts);
  free(plan->rows);
  free(plan->taps);
  free(plan->tiles);
  free(plan->picks);
  free(plan);
}

static struct plan *plan_create(const struct layer *layer, int64_t batch, int64_t height, int64_t width,
                                const char **reason) {
  *reason = "out of memory";
  struct plan *plan = calloc(1, sizeof *plan);
  if (!plan) return NULL;
  plan->batch = batch;
  plan->height = height;
  plan->width = width;
  const char *wrong = geometry_choose(plan, layer);
  if (!wrong && plan->method != DOT && !(weights_arrange(plan, layer) && pack_prepare(plan, layer)))
    wrong = "out of memory";
  if (wrong) {
    *reason = wrong;
    plan_release(plan);
    return NULL;
  }
  *reason = NULL;
  return plan;
}

static struct plan *find(struct layer *layer, int64_t batch, int64_t height, int64_t width) {
  for (int i = 0; i < PLAN_CACHE; i++) {
    struct plan *plan = layer->plans[i];
    if (plan && plan->batch == batch && plan->height == height && plan->width == width) {
      plan->references++;
      plan->used = ++layer->clock;
      return plan;
    }
  }
  return NULL;
}

/* Put a new plan in the place of the one unused for longest; without a free place it lives for one run. */
static void keep(struct layer *layer, struct plan *plan) {
  int oldest = -1;
  for (int i = 0; i < PLAN_CACHE; i++) {
    if (!layer->plans[i]) {
      oldest = i;
      break;
    }
    if (layer->plans[i]->references > 0) continue;
    if (oldest < 0 || layer->plans[i]->used < layer->plans[oldest]->used) oldest = i;
  }
  if (oldest < 0) return;
  plan_release(layer->plans[oldest]);
  layer->plans[oldest] = plan;
}

struct plan *plan_borrow(struct layer *layer, int64_t batch, int64_t height, int64_t width, const char **reason) {
  *reason = NULL;
  pthread_mutex_lock(&layer->lock);
  struct plan *plan = find(layer, batch, height, width);
  pthread_mutex_unlock(&layer->lock);
  if (plan) return plan;
  plan = plan_create(layer, batch, height, width, reason); /* unlocked: other shapes go on meanwhile */
  if (!plan) return NULL;
  plan->references = 1;
  pthread_mutex_lock(&layer->lock);
  struct plan *other = find(layer, batch, height, width); /* another run may have been quicker */
  if (!other) {
    plan->used = ++layer->clock;
    keep(layer, plan);
  }
  pthread_mutex_unlock(&layer->lock);
  if (!other) return plan;
  plan_release(plan);
  return other;
}

void plan_return(struct layer *layer, struct plan *plan) {
  bool kept = false;
  pthread_mutex_lock(&layer->lock);
  plan->references--;
  for (int i = 0; i < PLAN_CACHE; i++) kept |= layer->plans[i] == plan;
  const bool last = plan->references == 0;
  pthread_mutex_unlock(&layer->lock);
  if (!kept && last) plan_release(plan);
}
