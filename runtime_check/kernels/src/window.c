#include "window.h"

#include <string.h>

#include "pack.h"
#include "squeeze.h"
#include "unpack.h"

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

/* The taps' vectors of all positions lie one after the other, as a single row of windows. */
static void window_tiny(const struct layer *layer, const struct plan *plan, struct window_job *job, const float *x,
                        int64_t channel, char *scratch, float *y) {
  const int64_t pixels = plan->out_height * plan->out_width, bytes = plan->vectors * VECTOR_BYTES;
  char *const copy = scratch + plan->image_bytes;
  float *const output = y + channel * pixels;
  pack_tiny(layer, plan, x, channel / layer->out_channels, channel % layer->out_channels, scratch, copy);
  job->input = copy;
  job->row = layer->kernel[1] * bytes;
  job->column = bytes;
  job->step = VECTOR_BYTES;
  job->columns = plan->vectors;
  job->output = copy + layer->taps * bytes;
  layer->isa->window(job);
  memcpy(output, job->output, (size_t)pixels * sizeof *output);
  if (layer_activation(layer)) layer->isa->activate(&layer->activation, output, pixels, output);
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
  if (plan->tiny) {
    window_tiny(layer, plan, &job, x, channel, scratch, y);
    return;
  }
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
