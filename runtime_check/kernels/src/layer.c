#include "layer.h"

#include <stdlib.h>

#include "plan.h"

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
  if (spec->linear && taps != 1) return "kernel size out of range";
  if (!spec->weight) return "no weight";
  if (spec->low != spec->low || spec->high != spec->high || spec->low > spec->high) return "bounds are not a range";
  return NULL;
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

struct layer *layer_create(const struct layer_spec *spec, const struct isa *isa, const char **reason) {
  if ((*reason = layer_objection(spec))) return NULL;
  *reason = "out of memory";
  struct layer *layer = calloc(1, sizeof *layer);
  if (!layer) return NULL;
  if (pthread_mutex_init(&layer->lock, NULL)) {
    free(layer);
    return NULL;
  }
  layer->linear = spec->linear;
  layer->out_channels = spec->out_channels;
  layer->in_channels = spec->in_channels;
  layer->taps = spec->kernel[0] * spec->kernel[1];
  for (int i = 0; i < 2; i++) {
    layer->kernel[i] = spec->kernel[i];
    layer->stride[i] = spec->stride[i];
    layer->dilation[i] = spec->dilation[i];
  }
  for (int i = 0; i < 4; i++) layer->pad[i] = spec->pad[i];
  layer->low = spec->low;
  layer->high = spec->high;
  layer->isa = isa;
  layer->nonzeros = count_nonzeros(spec->weight, layer->out_channels * layer->in_channels * layer->taps);
  layer->start = calloc((size_t)layer->out_channels + 1, sizeof *layer->start);
  layer->column = calloc((size_t)layer->nonzeros + 1, sizeof *layer->column);
  layer->value = calloc((size_t)layer->nonzeros + 1, sizeof *layer->value);
  layer->bias = calloc((size_t)layer->out_channels, sizeof *layer->bias);
  if (!layer->start || !layer->column || !layer->value || !layer->bias) {
    layer_release(layer);
    return NULL;
  }
  fill(layer, spec);
  *reason = NULL;
  return layer;
}

void layer_release(struct layer *layer) {
  if (!layer) return;
  for (int i = 0; i < PLAN_CACHE; i++) plan_release(layer->plans[i]);
  pthread_mutex_destroy(&layer->lock);
  free(layer->start);
  free(layer->column);
  free(layer->value);
  free(layer->bias);
  free(layer);
}

bool layer_output(const struct layer *layer, int64_t height, int64_t width, int64_t *out_height, int64_t *out_width) {
  if (!within(height, 0, POSITION_LIMIT) || !within(width, 0, POSITION_LIMIT)) return false;
  const int64_t spare[2] = {
      height + layer->pad[0] + layer->pad[2] - layer->dilation[0] * (layer->kernel[0] - 1) - 1,
      width + layer->pad[1] + layer->pad[3] - layer->dilation[1] * (layer->kernel[1] - 1) - 1,
  };
  if (spare[0] < 0 || spare[1] < 0) return false;
  *out_height = spare[0] / layer->stride[0] + 1;
  *out_width = spare[1] / layer->stride[1] + 1;
  const int64_t padded = (height + layer->pad[0] + layer->pad[2]) * (width + layer->pad[1] + layer->pad[3]);
  return padded <= POSITION_LIMIT && *out_height * *out_width <= POSITION_LIMIT;
}
