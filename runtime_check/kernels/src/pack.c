#include "pack.h"

#include <stdlib.h>
#include <string.h>

/* Interleave the eight groups of image rows, packed row by packed row. */
static void pack_lanes(const struct layer *layer, const struct plan *plan, const float *image, const float *end,
                       char *output) {
  struct interleave_job job = {
      .end = end,
      .width = plan->width,
      .left = layer->pad[1],
      .columns = plan->packed_columns,
      .stride = layer->stride[1],
      .phase = plan->phase,
  };
  for (int64_t r = 0; r < plan->packed_rows; r++) {
    for (int l = 0; l < LANES_PER_VECTOR; l++) {
      const int64_t y = l * plan->group_rows * layer->stride[0] + r - layer->pad[0];
      job.rows[l] = y >= 0 && y < plan->height ? image + y * plan->width : NULL;
    }
    job.output = output + r * plan->row_bytes;
    layer->isa->interleave(&job);
  }
}

/* One output row's worth of one tap: image row `y` from column `x` on, zeros outside. */
static void pack_row(const struct layer *layer, const struct plan *plan, const float *image, int64_t y, int64_t x,
                     float *output) {
  if (y < 0 || y >= plan->height) {
    memset(output, 0, (size_t)plan->out_width * sizeof *output);
    return;
  }
  const float *const row = image + y * plan->width;
  const int64_t stride = layer->stride[1];
  int64_t i = 0;
  for (; i < plan->out_width && x + i * stride < 0; i++) output[i] = 0.0f;
  int64_t end = x < plan->width ? (plan->width - x + stride - 1) / stride : 0;
  if (end > plan->out_width) end = plan->out_width;
  if (stride == 1 && end > i) {
    memcpy(output + i, row + x + i, (size_t)(end - i) * sizeof *output);
    i = end;
  }
  for (; i < end; i++) output[i] = row[x + i * stride];
  for (; i < plan->out_width; i++) output[i] = 0.0f;
}

enum { SMALL = 1024 }; /* pixels of an image whose elements are picked one by one */

bool pack_prepare(struct plan *plan, const struct layer *layer) {
  const int64_t pixels = plan->height * plan->width;
  if (plan->method != COLUMNS || layer->linear || pixels >= SMALL || layer->taps == 1) return true;
  plan->picks = calloc((size_t)(layer->taps * plan->out_height * plan->out_width), sizeof *plan->picks);
  if (!plan->picks) return false;
  int16_t *pick = plan->picks;
  for (int64_t ky = 0; ky < layer->kernel[0]; ky++)
    for (int64_t kx = 0; kx < layer->kernel[1]; kx++)
      for (int64_t oy = 0; oy < plan->out_height; oy++)
        for (int64_t ox = 0; ox < plan->out_width; ox++) {
          const int64_t y = oy * layer->stride[0] + ky * layer->dilation[0] - layer->pad[0];
          const int64_t x = ox * layer->stride[1] + kx * layer->dilation[1] - layer->pad[1];
          const bool inside = y >= 0 && y < plan->height && x >= 0 && x < plan->width;
          *pick++ = (int16_t)(inside ? y * plan->width + x : pixels);
        }
  return true;
}

static void pack_picked(const struct layer *layer, const struct plan *plan, const float *image, int64_t filled,
                        float *output) {
  const int64_t pixels = plan->height * plan->width, out_pixels = plan->out_height * plan->out_width;
  const int16_t *const picks = plan->picks;
  float values[SMALL];
  memcpy(values, image, (size_t)pixels * sizeof *values);
  values[pixels] = 0.0f;
  if (filled == out_pixels) {
    for (int64_t i = 0; i < layer->taps * out_pixels; i++) output[i] = values[picks[i]];
    return;
  }
  for (int64_t tap = 0; tap < layer->taps; tap++)
    for (int64_t i = 0; i < out_pixels; i++) output[tap * filled + i] = values[picks[tap * out_pixels + i]];
}

static void pack_columns(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel,
                         int64_t first, int64_t count, float *output) {
  const int64_t pixels = plan->height * plan->width, out_pixels = plan->out_height * plan->out_width;
  const int64_t filled = plan->narrow ? LANES_PER_VECTOR / 2 : plan->vectors * LANES_PER_VECTOR;
  const bool whole = layer->taps == 1 && out_pixels == pixels && layer->stride[0] == 1 && layer->stride[1] == 1 &&
                     layer->pad[0] == 0 && layer->pad[1] == 0;
  if (plan->picks) {
    for (int64_t n = 0; n < count; n++) {
      const float *const image = x + ((first + n) * layer->in_channels + channel) * pixels;
      pack_picked(layer, plan, image, filled, output + n * out_pixels);
    }
    for (int64_t tap = 0; filled > plan->positions && tap < layer->taps; tap++)
      memset(output + tap * filled + plan->positions, 0, (size_t)(filled - plan->positions) * sizeof *output);
    return;
  }
  for (int64_t tap = 0; tap < layer->taps; tap++, output += filled) {
    const int64_t dy = tap / layer->kernel[1] * layer->dilation[0] - layer->pad[0];
    const int64_t dx = tap % layer->kernel[1] * layer->dilation[1] - layer->pad[1];
    for (int64_t n = 0; n < count; n++) {
      const float *const image = x + ((first + n) * layer->in_channels + channel) * pixels;
      if (whole) {
        memcpy(output + n * pixels, image, (size_t)pixels * sizeof *output);
        continue;
      }
      for (int64_t y = 0; y < plan->out_height; y++)
        pack_row(layer, plan, image, y * layer->stride[0] + dy, dx, output + n * out_pixels + y * plan->out_width);
    }
    memset(output + plan->positions, 0, (size_t)(filled - plan->positions) * sizeof *output);
  }
}

void pack_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t image, int64_t channel,
                  char *packed) {
  char *const output = packed + channel * plan->pitch;
  if (plan->method == LANES) {
    const int64_t pixels = plan->height * plan->width;
    const float *const end = x + plan->batch * layer->in_channels * pixels;
    pack_lanes(layer, plan, x + (image * layer->in_channels + channel) * pixels, end, output);
  } else {
    pack_columns(layer, plan, x, channel, image, plan->batch / plan->images, (float *)output);
  }
}

void pack_inputs(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, char *packed) {
  const int64_t filled = plan->narrow ? LANES_PER_VECTOR / 2 : plan->vectors * LANES_PER_VECTOR;
  int64_t end = channel + LANES_PER_VECTOR;
  if (end > layer->in_channels) end = layer->in_channels;
  for (int64_t m = 0; m < plan->positions; m++)
    for (int64_t c = channel; c < end; c++)
      ((float *)(packed + c * plan->pitch))[m] = x[m * layer->in_channels + c];
  for (int64_t c = channel; c < end; c++)
    memset((float *)(packed + c * plan->pitch) + plan->positions, 0,
           (size_t)(filled - plan->positions) * sizeof(float));
}
