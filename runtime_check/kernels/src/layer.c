#include "layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t count_nonzeros(const float *values, int64_t count) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; i++) found += values[i] != 0.0f;
  return found;
}

static bool within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

const char *layer_objection(const struct layer_spec *spec) {
  if (!within(spec->out_channels, 1, CHANNEL_LIMIT) || !within(spec->in_channels, 1, CHANNEL_LIMIT))
    return "channel count out of range";
  for (int i = 0; i < 2; i++) {
    if (!within(spec->kernel[i], 1, SPAN_LIMIT)) return "kernel size out of range";
    if (!within(spec->stride[i], 1, SPAN_LIMIT)) return "stride out of range";
    if (!within(spec->dilation[i], 1, SPAN_LIMIT)) return "dilation out of range";
  }
  for (int i = 0; i < 4; i++)
    if (!within(spec->pad[i], 0, SPAN_LIMIT)) return "padding out of range";
  const int64_t taps = spec->kernel[0] * spec->kernel[1];
  if (taps > TAP_LIMIT || taps * spec->in_channels > INT32_MAX) return "kernel too large";
  if (taps * spec->in_channels * spec->out_channels > BYTE_LIMIT / 4) return "weight too large";
  if (spec->operation == LINEAR && taps != 1) return "kernel size out of range";
  if (spec->operation >= DEPTHWISE && spec->in_channels != spec->out_channels) return "channel count out of range";
  if (spec->operation <= DEPTHWISE && !spec->weight) return "no weight";
  if (spec->low != spec->low || spec->high != spec->high || spec->low > spec->high) return "bounds are not a range";
  if (!isfinite(spec->activation.slope) || !isfinite(spec->activation.offset)) return "activation out of range";
  return NULL;
}

const char *layer_image_objection(const struct layer_spec *spec, int64_t height, int64_t width) {
  const int64_t size[2] = {height, width};
  int64_t padded = 1, packed = VECTOR_BYTES; /* packed: bytes of one channel in lanes */
  if (spec->operation == LINEAR) return NULL;
  for (int i = 0; i < 2; i++) {
    const int64_t reach = (spec->kernel[i] - 1) * spec->dilation[i];
    const int64_t pixels = (size[i] < 1 ? 1 : size[i]) + spec->pad[i] + spec->pad[i + 2];
    if (size[i] > POSITION_LIMIT) return "image too large";
    if (size[i] > 0 && pixels <= reach) return "image smaller than the kernel";
    padded *= pixels;
    int64_t steps = pixels > reach ? (pixels - reach - 1) / spec->stride[i] : 0; /* from the first output on */
    if (i == 0) steps /= LANES_PER_VECTOR;
    packed *= steps * spec->stride[i] + reach + 1;
  }
  return padded > POSITION_LIMIT || packed > INT32_MAX / 4 ? "padding or dilation too large" : NULL;
}

static void fill(struct layer *layer, const struct layer_spec *spec) {
  const int64_t columns = layer->in_channels * layer->taps;
  int64_t next = 0;
  for (int64_t k = 0; k < layer->out_channels; k++) {
    layer->start[k] = next;
    for (int64_t c = 0; c < columns; c++) {
      const float value = spec->transposed ? spec->weight[c * layer->out_channels + k] : spec->weight[k * columns + c];
      if (value == 0.0f) continue;
      layer->column[next] = (int32_t)c;
      layer->value[next++] = value;
    }
    layer->bias[k] = spec->bias ? spec->bias[k * spec->bias_stride] : 0.0f;
  }
  layer->start[layer->out_channels] = next;
}

static bool allocate(struct layer *layer) {
  const size_t channels = (size_t)layer->out_channels, values = (size_t)layer->nonzeros + 1;
  layer->bias = calloc(channels, sizeof *layer->bias);
  layer->value = calloc(values, sizeof *layer->value);
  if (layer->operation >= DEPTHWISE) return layer->bias && layer->value;
  layer->start = calloc(channels + 1, sizeof *layer->start);
  layer->column = calloc(values, sizeof *layer->column);
  return layer->bias && layer->value && layer->start && layer->column;
}

struct layer *layer_create(const struct layer_spec *spec, const struct isa *isa, const char **reason) {
  if ((*reason = layer_objection(spec))) return NULL;
  *reason = "out of memory";
  struct layer *layer = calloc(1, sizeof *layer);
  if (!layer) return NULL;
  layer->operation = spec->operation;
  layer->out_channels = spec->out_channels;
  layer->in_channels = spec->in_channels;
  layer->taps = spec->kernel[0] * spec->kernel[1];
  memcpy(layer->kernel, spec->kernel, sizeof layer->kernel);
  memcpy(layer->stride, spec->stride, sizeof layer->stride);
  memcpy(layer->dilation, spec->dilation, sizeof layer->dilation);
  memcpy(layer->pad, spec->pad, sizeof layer->pad);
  layer->low = spec->low;
  layer->high = spec->high;
  layer->activation = spec->activation;
  layer->isa = isa;
  const int64_t inputs = layer->operation == DEPTHWISE ? 1 : layer->in_channels;
  const int64_t weights = layer->out_channels * inputs * layer->taps;
  if (layer->operation == DEPTHWISE) layer->nonzeros = weights;
  if (layer->operation < DEPTHWISE) layer->nonzeros = count_nonzeros(spec->weight, weights);
  if (!allocate(layer)) {
    layer_release(layer);
    return NULL;
  }
  if (layer->operation < DEPTHWISE) fill(layer, spec);
  if (layer->operation == DEPTHWISE) {
    memcpy(layer->value, spec->weight, (size_t)weights * sizeof *layer->value);
    for (int64_t k = 0; k < layer->out_channels && spec->bias; k++) layer->bias[k] = spec->bias[k];
  }
  *reason = NULL;
  return layer;
}

void layer_release(struct layer *layer) {
  if (!layer) return;
  free(layer->start);
  free(layer->column);
  free(layer->value);
  free(layer->bias);
  free(layer);
}

bool layer_overhangs(const struct layer *layer, int64_t height, int64_t width) {
  return layer->operation == MAXIMUM && (layer->dilation[0] * (layer->kernel[0] - 1) >= height ||
                                         layer->dilation[1] * (layer->kernel[1] - 1) >= width);
}

bool layer_output(const struct layer *layer, int64_t height, int64_t width, int64_t *out_height, int64_t *out_width) {
  if (!within(height, 0, POSITION_LIMIT) || !within(width, 0, POSITION_LIMIT)) return false;
  int64_t spare[2] = {
      height + layer->pad[0] + layer->pad[2] - layer->dilation[0] * (layer->kernel[0] - 1) - 1,
      width + layer->pad[1] + layer->pad[3] - layer->dilation[1] * (layer->kernel[1] - 1) - 1,
  };
  for (int i = 0; i < 2 && layer->operation == MAXIMUM; i++) /* onnxruntime divides towards zero */
    if (spare[i] < 0 && spare[i] > -layer->stride[i]) spare[i] = 0;
  if (spare[0] < 0 || spare[1] < 0) return false;
  *out_height = spare[0] / layer->stride[0] + 1;
  *out_width = spare[1] / layer->stride[1] + 1;
  if (layer->operation == MEAN) {
    if (height * width == 0) return false;
    *out_height = *out_width = 1;
    return height <= POSITION_LIMIT / width;
  }
  const int64_t padded = (height + layer->pad[0] + layer->pad[2]) * (width + layer->pad[1] + layer->pad[3]);
  return padded <= POSITION_LIMIT && *out_height * *out_width <= POSITION_LIMIT;
}
