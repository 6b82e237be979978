#include "reach.h"

#include <stdlib.h>

/* What the window at one output pixel reaches; returns how many elements. */
static int32_t find_reach(const struct plan *plan, const struct layer *layer, int64_t y, int64_t x, struct reach *reaches) {
  int32_t count = 0;
  for (int64_t tap = 0; tap < layer->taps; tap++) {
    const int64_t row = y * layer->stride[0] + tap / layer->kernel[1] * layer->dilation[0] - layer->pad[0];
    const int64_t column = x * layer->stride[1] + tap % layer->kernel[1] * layer->dilation[1] - layer->pad[1];
    if (row < 0 || row >= plan->height || column < 0 || column >= plan->width) continue;
    reaches[count++] = (struct reach){(int32_t)tap * VECTOR_BYTES, (int32_t)(row * plan->width + column) * VECTOR_BYTES};
  }
  return count;
}

/* Whether a window reaches what its neighbour to the left does, one stride further. */
static bool alike(const struct reach *left, const struct reach *right, int32_t count, int64_t step) {
  for (int32_t i = 0; i < count; i++)
    if (left[i].weight != right[i].weight || left[i].input + step != right[i].input) return false;
  return true;
}

/* What each window of a tiny image reaches. A run's reaches are those of its first window. */
bool reach_prepare(struct plan *plan, const struct layer *layer) {
  const int64_t outputs = plan->out_height * plan->out_width, step = layer->stride[1] * VECTOR_BYTES;
  plan->reaches = calloc((size_t)((outputs + 1) * layer->taps), sizeof *plan->reaches);
  plan->runs = calloc((size_t)outputs, sizeof *plan->runs);
  if (!plan->reaches || !plan->runs) return false;
  struct reach *next = plan->reaches; /* behind those that are kept */
  for (int64_t y = 0; y < plan->out_height; y++) {
    struct window_run *run = NULL;
    for (int64_t x = 0; x < plan->out_width; x++) {
      const int32_t count = find_reach(plan, layer, y, x, next);
      const bool same = run && run->reaches == count && alike(next - count, next, count, step * run->windows);
      if (same) {
        run->windows++;
        continue;
      }
      run = &plan->runs[plan->run_count++];
      *run = (struct window_run){1, count};
      next += count;
    }
  }
  return true;
}
