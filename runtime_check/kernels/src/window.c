#include "window.h"

#include <math.h>

#include "pack.h"
#include "squeeze.h"
#include "unpack.h"

enum { FEW_ROWS = 5 }; /* of an output that eight groups would leave half empty */

/* One output of a tiny image. */
static float window_value(const struct layer *layer, const struct plan *plan, const float *image, const float *weights,
                          float bias, int64_t y, int64_t x) {
  const bool sums = layer->operation == DEPTHWISE;
  float value = sums ? bias : -INFINITY;
  for (int64_t ky = 0; ky < layer->kernel[0]; ky++) {
    const int64_t row = y * layer->stride[0] + ky * layer->dilation[0] - layer->pad[0];
    for (int64_t kx = 0; kx < layer->kernel[1]; kx++) {
      const int64_t column = x * layer->stride[1] + kx * layer->dilation[1] - layer->pad[1];
      if (row < 0 || row >= plan->height || column < 0 || column >= plan->width) continue;
      const float pixel = image[row * plan->width + column];
      if (sums)
        value += weights[ky * layer->kernel[1] + kx] * pixel;
      else if (!(pixel <= value))
        value = pixel;
    }
  }
  return finish_value(layer, value, NULL);
}

static void window_plain(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel,
                         char *scratch, float *y) {
  const int64_t k = channel % layer->out_channels;
  const float *const image = pack_plain(layer, plan, x, channel / layer->out_channels, k, scratch);
  const float *const weights = layer->value + k * layer->taps;
  float *output = y + channel * plan->out_height * plan->out_width;
  for (int64_t row = 0; row < plan->out_height; row++)
    for (int64_t column = 0; column < plan->out_width; column++)
      *output++ = window_value(layer, plan, image, weights, layer->bias[k], row, column);
  const int64_t pixels = plan->out_height * plan->out_width;
  output -= pixels;
  if (layer_activation(layer)) layer->isa->activate(&layer->activation, output, pixels, output);
}

/* One channel in lanes with what its windows reach around it, while it is close. */
static void stage_channel(const struct layer *layer, const struct plan *plan, const char *channel, char *scratch) {
  const struct form *x = &plan->layout.x;
  layer->isa->border(&(struct border_job){
      .channel = scratch,
      .form = &plan->layout.stage,
      .height = plan->height,
      .width = plan->width,
      .from = channel + x->top * x->row_bytes + x->left * VECTOR_BYTES,
      .from_row = x->row_bytes,
  });
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
  const bool read_in_lanes = plan->layout.direct || in_lanes(&plan->layout.stage);
  const bool plain = !in_lanes(&plan->layout.y) && !read_in_lanes && plan->out_height < FEW_ROWS;
  if (plain && layer->operation != SCALE) {
    window_plain(layer, plan, x, channel, scratch, y);
    return;
  }
  struct window_job job = {
      .row = layer->dilation[0] * plan->row_bytes,
      .column = layer->dilation[1] * VECTOR_BYTES,
      .step = layer->stride[1] * VECTOR_BYTES,
      .kernel = {layer->kernel[0], layer->kernel[1]},
      .columns = plan->out_width,
      .weights = layer->operation == DEPTHWISE ? layer->value + k * layer->taps
                 : layer->operation == SCALE   ? factors + channel
                                               : NULL,
      .bias = layer->bias[k],
      .low = layer->low,
      .high = layer->high,
  };
  const char *input = (const char *)x + channel * plan->pitch + plan->origin;
  char *row = scratch; /* not needed where x is read and y written in lanes */
  if (in_lanes(&plan->layout.stage)) {
    row = scratch + plan->pitch;
    stage_channel(layer, plan, (const char *)x + channel * plan->layout.x.pitch, scratch);
    input = scratch;
  } else if (!plan->layout.direct) {
    row = scratch + plan->image_bytes + plan->pitch;
    pack_channel(layer, plan, x, image, k, scratch, scratch + plan->image_bytes);
    input = scratch + plan->image_bytes;
  }
  char *const inside = (char *)y + channel * plan->layout.y.pitch + plan->layout.y.top * plan->layout.y.row_bytes +
                       plan->layout.y.left * VECTOR_BYTES;
  for (int64_t r = 0; r < plan->group_rows; r++) {
    job.input = input + r * layer->stride[0] * plan->row_bytes;
    job.output = in_lanes(&plan->layout.y) ? inside + r * plan->layout.y.row_bytes : row;
    layer->isa->window(&job);
    if (in_lanes(&plan->layout.y)) {
      if (layer_activation(layer))
        layer->isa->activate(&layer->activation, (float *)job.output, plan->out_width * LANES_PER_VECTOR, (float *)job.output);
      continue;
    }
    const struct tile tile = {.position = r, .rows = 1, .columns = (int32_t)plan->out_width};
    unpack_channel(layer, plan, &tile, image, k, row, NULL, y);
  }
  if (has_border(&plan->layout.y, plan->out_height))
    layer->isa->border(&(struct border_job){.channel = (char *)y + channel * plan->layout.y.pitch,
                                            .form = &plan->layout.y,
                                            .height = plan->out_height,
                                            .width = plan->out_width});
}
