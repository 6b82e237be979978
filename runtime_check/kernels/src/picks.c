#include "picks.h"

#include <stdlib.h>

/* Where the pixel that the kernel reaches at row `y` and column `x` lies, counted from the padding's corner. */
static int16_t pick(const struct layer *layer, const struct plan *plan, int64_t y, int64_t x) {
  y -= layer->pad[0];
  x -= layer->pad[1];
  const bool inside = y >= 0 && y < plan->height && x >= 0 && x < plan->width;
  return (int16_t)(inside ? y * plan->width + x : plan->height * plan->width);
}

static void list_picks(struct plan *plan, const struct layer *layer) {
  const int64_t *const stride = layer->stride, *const dilation = layer->dilation;
  int16_t *next = plan->picks;
  for (int64_t kx = 0; plan->plane_rows && kx < layer->kernel[1]; kx++)
    for (int64_t rest = 0; rest < stride[0]; rest++)
      for (int64_t row = 0; row < plan->plane_rows; row++)
        for (int64_t ox = 0; ox < plan->out_width; ox++)
          *next++ = pick(layer, plan, row * stride[0] + rest, ox * stride[1] + kx * dilation[1]);
  if (plan->plane_rows) return;
  for (int64_t ky = 0; ky < layer->kernel[0]; ky++)
    for (int64_t kx = 0; kx < layer->kernel[1]; kx++)
      for (int64_t oy = 0; oy < plan->out_height; oy++)
        for (int64_t ox = 0; ox < plan->out_width; ox++)
          *next++ = pick(layer, plan, oy * stride[0] + ky * dilation[0], ox * stride[1] + kx * dilation[1]);
}

/* The pick for element i of a channel's copy: of `filled` elements for each tap, or those of the planes and what their
   last rows' vectors read behind them. */
static int16_t pick_at(const struct plan *plan, int64_t filled, int64_t i) {
  const int16_t none = (int16_t)(plan->height * plan->width);
  if (plan->plane_rows) return i < plan->copied ? plan->picks[i] : none;
  const int64_t tap = i / filled, position = i % filled, at = tap * plan->positions + position;
  return position < plan->positions && at < plan->copied ? plan->picks[at] : none;
}

/* The slice whose first element is element i; false where `width` neighbours do not lie side by side. */
static bool find_slice(const struct plan *plan, int64_t filled, int64_t i, int width, struct slice *slice) {
  const int64_t pixels = plan->height * plan->width;
  bool found = false;
  *slice = (struct slice){0};
  for (int lane = 0; lane < width; lane++) {
    int64_t at = pick_at(plan, filled, i + lane);
    if (at == pixels) continue;
    if (plan->halved) at = at / 2 + at % 2 * (pixels / 2);
    if (found && at != slice->from + lane) return false;
    slice->from = (int32_t)at - lane;
    slice->inside[lane] = ~0u;
    found = true;
  }
  return true;
}

/* Slices of `width` elements for the whole copy; whether there are any. */
static bool find_slices(struct plan *plan, int64_t filled, int width) {
  const int64_t count = plan->plane_rows ? plan->copied + filled - plan->positions : plan->copied / plan->positions * filled;
  plan->slice_count = (count + width - 1) / width;
  if (plan->slice_count * width * (int64_t)sizeof(float) > plan->pitch) return false;
  for (int64_t i = 0; i < plan->slice_count; i++)
    if (!find_slice(plan, filled, i * width, width, &plan->slices[i])) return false;
  return true;
}

bool picks_prepare(struct plan *plan, const struct layer *layer) {
  const int64_t pixels = plan->height * plan->width;
  const bool strided = layer->stride[0] * layer->stride[1] > 1;
  if (plan->method != COLUMNS || layer->operation == LINEAR || pixels >= PICKED) return true;
  if (layer->taps == 1 && !strided) return true;
  if (!plan->plane_rows) plan->copied = layer->taps * plan->out_height * plan->out_width;
  plan->picks = calloc((size_t)plan->copied, sizeof *plan->picks);
  if (!plan->picks) return false;
  list_picks(plan, layer);
  plan->halved = layer->stride[1] == 2 && plan->width % 2 == 0;
  if (plan->images != plan->batch || (layer->stride[1] > 1 && !plan->halved)) return true;
  const int64_t filled = plan_filled(plan);
  plan->slices = calloc((size_t)(plan->pitch / (LANES_PER_VECTOR / 2 * (int64_t)sizeof(float)) + 1), sizeof *plan->slices);
  if (!plan->slices) return false;
  for (int width = LANES_PER_VECTOR; width >= LANES_PER_VECTOR / 2; width /= 2) {
    plan->half_slices = width < LANES_PER_VECTOR;
    if (!find_slices(plan, filled, width)) continue;
    free(plan->picks);
    plan->picks = NULL;
    return true;
  }
  free(plan->slices);
  plan->slices = NULL;
  return true;
}
