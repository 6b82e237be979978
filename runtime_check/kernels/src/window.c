#include "window.h"

#include "pack.h"
#include "squeeze.h"
#include "unpack.h"

/* At most eight channels of tiny images. */
static void tiny_channels(const struct layer *layer, const struct plan *plan, const float *x, int64_t from, int64_t to,
                          char *scratch, float *y) {
  const int64_t pixels = plan->height * plan->width, outputs = plan->out_height * plan->out_width;
  const int64_t channels = layer->out_channels, copy_bytes = plan->image_bytes / LANES_PER_VECTOR;
  char *const input = scratch + plan->image_bytes, *const weights = input + pixels * VECTOR_BYTES;
  char *const output = weights + layer->taps * VECTOR_BYTES;
  float bias[LANES_PER_VECTOR] = {0};
  struct interleave_job images = {
      .end = copy_bytes ? (const float *)(scratch + plan->image_bytes) : x + plan->batch * channels * pixels,
      .width = pixels,
      .columns = pixels,
      .stride = 1,
      .output = input,
  };
  struct interleave_job kernels = {
      .end = layer->value + channels * layer->taps,
      .width = layer->taps,
      .columns = layer->taps,
      .stride = 1,
      .output = weights,
  };
  struct separate_job sums = {
      .input = output,
      .step = VECTOR_BYTES,
      .columns = outputs,
      .low = layer->low,
      .high = layer->high,
      .activation = layer_activation(layer),
  };
  for (int64_t l = 0; l < to - from; l++) {
    const int64_t image = (from + l) / channels, k = (from + l) % channels;
    images.rows[l] = pack_plain(layer, plan, x, image, k, (float *)(scratch + l * copy_bytes));
    if (layer->operation == DEPTHWISE) kernels.rows[l] = layer->value + k * layer->taps;
    bias[l] = layer->bias[k];
    sums.rows[l] = y + (from + l) * outputs;
  }
  layer->isa->interleave(&images);
  if (layer->operation == DEPTHWISE) layer->isa->interleave(&kernels);
  layer->isa->reach(&(struct reach_job){
      .input = input,
      .weights = layer->operation == DEPTHWISE ? weights : NULL,
      .bias = bias,
      .reaches = plan->reaches,
      .runs = plan->runs,
      .run_count = plan->run_count,
      .step = layer->stride[1] * VECTOR_BYTES,
      .output = output,
  });
  layer->isa->separate(&sums);
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

static void window_channel(const struct layer *layer, const struct plan *plan, const float *x, const float *factors,
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
  /* Pointers to rows, then rows. */
  char *const memory = scratch + plan->image_bytes + window_pointer_bytes(layer), *const row = memory + plan->pitch;
  const char *const inside = (const char *)x + channel * from->pitch + from->top * from->row_bytes + from->left * VECTOR_BYTES;
  const char **const rows = (const char **)(scratch + plan->image_bytes);
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

void window_channels(const struct layer *layer, const struct plan *plan, const float *x, const float *factors,
                     int64_t from, int64_t to, char *scratch, float *y) {
  if (!plan->tiny)
    for (int64_t channel = from; channel < to; channel++) window_channel(layer, plan, x, factors, channel, scratch, y);
  else
    for (int64_t first = from; first < to; first += LANES_PER_VECTOR) {
      const int64_t end = to - first < LANES_PER_VECTOR ? to : first + LANES_PER_VECTOR;
      tiny_channels(layer, plan, x, first, end, scratch, y);
    }
}
