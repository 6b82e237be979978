#include "plan.h"

#include <stdlib.h>

#include "geometry.h"
#include "picks.h"
#include "reach.h"
#include "weights.h"

void plan_release(struct plan *plan) {
  if (!plan) return;
  free(plan->start);
  free(plan->parts);
  free(plan->rows);
  free(plan->taps);
  free(plan->tiles);
  free(plan->picks);
  free(plan->slices);
  free(plan->reaches);
  free(plan->runs);
  free(plan);
}

struct plan *plan_create(const struct layer *layer, const int64_t image[3], int threads,
                         const struct layout *layout, const char **reason) {
  *reason = "out of memory";
  struct plan *plan = calloc(1, sizeof *plan);
  if (!plan) return NULL;
  plan->batch = image[0];
  plan->height = image[1];
  plan->width = image[2];
  plan->layout = *layout;
  const char *wrong = geometry_choose(plan, layer, threads);
  const bool sparse = plan->method != DOT && plan->method != WINDOW;
  if (!wrong && sparse && !weights_arrange(plan, layer)) wrong = "out of memory";
  if (!wrong && !(plan->tiny ? reach_prepare(plan, layer) : picks_prepare(plan, layer))) wrong = "out of memory";
  if (wrong) {
    *reason = wrong;
    plan_release(plan);
    return NULL;
  }
  *reason = NULL;
  return plan;
}
