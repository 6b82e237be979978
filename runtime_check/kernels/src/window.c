#include "window.h"

#include <string.h>

#include "pack.h"
#include "squeeze.h"
#include "unpack.h"

/* Scratch memory: a plain image where tiny windows need one, pointers to rows, then rows. */
static const char **row_pointers(const struct plan *plan, char *scratch) {
  return (const char **)(scratch + plan->image_bytes);
}

static char *row_memory(const struct layer *layer, const struct plan *plan, char *scratch) {
  return scratch + plan->image_bytes + window_pointer_bytes(layer, plan);
}

/* The taps' vectors of all positions lie one after the other, as rows of windows of one column. */
static void window_tiny(const struct layer *layer, const struct plan *plan, struct window_job *job, const float *x,
                        int64_t channel, char *scratch, float *y) {
  const int64_t pixels = plan->out_height * plan->out_width, bytes = plan->vectors * VECTOR_BYTES;
  char *const copy = row_memory(layer, plan, scratch);
  const char **const rows = row_pointers(plan, scratch);
  float *const output = y + channel * pixels;
  pack_tiny(layer, plan, x, channel / layer->out_channels, channel % layer->out_channels, scratch, copy);
  for (int64_t tap = 0; tap < layer->taps; tap++) rows[tap] = copy + tap * bytes;
  job->rows = rows;
  job->kernel[0] = layer->taps;
  job->kernel[1] = job->stride = job->dilation = 1;
  job->columns = plan->vectors;
  job->output = copy + layer->taps * bytes;
  layer->isa->window(job);
  memcpy(output, job->output, (size_t)pixels * sizeof *output);
  if (layer_activation(layer)) layer->isa->activate(&layer->activation, output, pixels, output);
}

/* The rows above and below a group, which windows reach: other groups' rows and zeros. */
static void make_around(const struct layer *layer, const struct plan *plan, const char *inside, char *around) {
  const struct form *x = &plan->layout.x, *stage = &plan->layout.stage;
  struct regroup_job job = {
      .channel = inside,
      .group_rows = x->group_rows,
      .row_bytes = x->row_bytes,
      .height = plan->height,
      .width = plan->width,
      .distance = x->group_rows,
      .left = stage->left,
      .step = 1,
      .columns = stage->left + plan->width + stage->right,
      .stride = 1,
  };
  for (int64_t r = 0; r < stage->top + stage->bottom; r++) {
    job.first = r < stage->top ? r - stage->top : x->group_rows + r - stage->top;
    job.output = around + r * stage->row_bytes;
    layer->isa->regroup(&job);
  }
}

void window_channel(const struct layer *layer, const struct plan *plan, const float *x, const float *factors,
                    int64_t channel, char *scratch, float *y) {
  const int64_t k = channel % layer->out_channels, image = channel / layer->out_channels;
  if (layer->operation == MEAN) {
    mean_channel(layer, plan, x, channel, y);
    return;
  }
  if (layer->operation == SCALE && lie_alike(&plan->layout.x, &plan->layout.y)) {
    scale_channel(layer, plan, x, channel, factors[channel], y);
    return;
  }
  const struct form *from = &plan->layout.x, *to = &plan->layout.y, *stage = &plan->layout.stage;
  struct window_job job = {
      .kernel = {layer->kernel[0], layer->kernel[1]},
      .stride = layer->stride[1],
      .dilation = layer->dilation[1],
      .columns = plan->out_width,
      .weights = layer->operation == DEPTHWISE ? layer->value + k * layer->taps
                 : layer->operation == SCALE   ? factors + channel
                                               : NULL,
      .bias = layer->bias[k],
      .low = layer->low,
      .high = layer->high,
  };
  if (plan->tiny) {
    window_tiny(layer, plan, &job, x, channel, scratch, y);
    return;
  }
  char *const memory = row_memory(layer, plan, scratch), *const row = memory + plan->pitch;
  const char *const inside = (const char *)x + channel * from->pitch + from->top * from->row_bytes + from->left * VECTOR_BYTES;
  const char **const rows = row_pointers(plan, scratch);
  const bool in_place = in_lanes(stage);
  job.rows = rows;
  if (in_place)
    make_around(layer, plan, inside, memory);
  else
    pack_channel(layer, plan, x, image, k, scratch, memory);
  char *const output = (char *)y + channel * to->pitch + to->top * to->row_bytes + to->left * VECTOR_BYTES;
  for (int64_t r = 0; r < plan->group_rows; r++) {
    for (int64_t ky = 0; ky < layer->kernel[0]; ky++) {
      const int64_t at = r * layer->stride[0] + ky * layer->dilation[0]; /* from the copy's first row, or the first around */
      const int64_t within = at - stage->top;
      if (!in_place)
        rows[ky] = memory + at * plan->row_bytes;
      else if (within >= 0 && within < from->group_rows)
        rows[ky] = inside + within * from->row_bytes - stage->left * VECTOR_BYTES;
      else
        rows[ky] = memory + (within < 0 ? at : at - from->group_rows) * stage->row_bytes;
    }
    job.output = in_lanes(to) ? output + r * to->row_bytes : row;
    layer->isa->window(&job);
    if (in_lanes(to)) {
      if (layer_activation(layer))
        layer->isa->activate(&layer->activation, (float *)job.output, plan->out_width * LANES_PER_VECTOR, (float *)job.output);
      continue;
    }
    const struct tile tile = {.position = r, .rows = 1, .columns = (int32_t)plan->out_width};
    unpack_channel(layer, plan, &tile, image, k, row, NULL, y);
  }
  if (has_border(to, plan->out_height))
    layer->isa->border(&(struct border_job){.channel = (char *)y + channel * to->pitch,
                                            .form = to,
                                            .height = plan->out_height,
                                            .width = plan->out_width});
}
