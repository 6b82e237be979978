#include "match.h"

#include <math.h>
#include <string.h>

#include "follow.h"

bool match_has_weights(struct reader *reader, const OrtNode *node) {
  return node_is(reader, node, "Conv") || node_is(reader, node, "Gemm") || node_is(reader, node, "MatMul");
}

bool match_starts(struct reader *reader, const OrtNode *node) {
  return match_has_weights(reader, node) || node_is(reader, node, "MaxPool") || node_is(reader, node, "GlobalAveragePool") ||
         node_is(reader, node, "ReduceMean") || node_is(reader, node, "Mul");
}

/* A list attribute of exactly `count` entries, which stays as it is where it is left out. */
static bool list(struct reader *reader, const OrtNode *node, const char *name, int64_t *values, size_t count) {
  int64_t found[8];
  size_t length = 8;
  if (!attribute_ints(reader, node, name, found, &length)) {
    int64_t single;
    return !attribute_int(reader, node, name, &single); /* present, but not a list */
  }
  if (length == 0) return true;
  if (length != count) return false;
  memcpy(values, found, count * sizeof *values);
  return true;
}

/* Padding in numbers. With a stride, automatic padding depends on the image, and a size that a file names need not be the
   one that comes. */
static const char *match_padding(struct reader *reader, const OrtNode *node, struct match *match) {
  struct layer_spec *spec = &match->spec;
  char kind[ATTRIBUTE_TEXT] = "NOTSET";
  attribute_text(reader, node, "auto_pad", kind);
  const bool numbers = !*kind || strcmp(kind, "NOTSET") == 0, upper = strcmp(kind, "SAME_UPPER") == 0;
  const bool same = upper || strcmp(kind, "SAME_LOWER") == 0;
  if (!same && !numbers && strcmp(kind, "VALID") != 0) return "automatic padding of an unknown kind";
  if (!list(reader, node, "pads", spec->pad, 4)) return "pads are not four numbers";
  for (int i = 0; i < 4; i++)
    if (!numbers && spec->pad[i]) return "both automatic padding and numbers";
  for (int i = 0; same && i < 2; i++) {
    if (spec->stride[i] != 1 || spec->dilation[i] != 1) return "automatic padding with a stride or dilation";
    const int64_t total = spec->kernel[i] - 1;
    spec->pad[i] = upper ? total / 2 : total - total / 2;
    spec->pad[i + 2] = total - spec->pad[i];
  }
  return NULL;
}

static const char *match_conv(struct reader *reader, const OrtNode *node, const OrtValueInfo *const *inputs,
                              size_t count, struct match *match) {
  struct layer_spec *spec = &match->spec;
  const struct constant weight = value_constant(reader, inputs[1]);
  int64_t group = 1, kernel[2];
  if (!weight.values) return "weights are not constant float32";
  if (weight.shape.rank != 4) return "not two-dimensional";
  attribute_int(reader, node, "group", &group);
  const bool depthwise = group == weight.shape.sizes[0] && weight.shape.sizes[1] == 1 && group > 1;
  if (group != 1 && !depthwise) return "grouped convolution";
  if (depthwise) spec->operation = DEPTHWISE;
  spec->out_channels = weight.shape.sizes[0];
  spec->in_channels = depthwise ? group : weight.shape.sizes[1];
  for (int i = 0; i < 2; i++) {
    spec->kernel[i] = kernel[i] = weight.shape.sizes[2 + i];
    spec->stride[i] = spec->dilation[i] = 1;
  }
  if (!list(reader, node, "kernel_shape", kernel, 2) || kernel[0] != spec->kernel[0] || kernel[1] != spec->kernel[1])
    return "kernel_shape is not that of the weights";
  if (!list(reader, node, "strides", spec->stride, 2)) return "strides are not two numbers";
  if (!list(reader, node, "dilations", spec->dilation, 2)) return "dilations are not two numbers";
  const char *reason = match_padding(reader, node, match);
  if (reason) return reason;
  spec->weight = weight.values;
  if (count > 2 && inputs[2]) {
    const struct constant bias = value_constant(reader, inputs[2]);
    if (!bias.values || bias.shape.rank != 1 || bias.count != spec->out_channels) return "bias is not one constant per output channel";
    spec->bias = bias.values;
  }
  return match->input.rank == 4 ? NULL : "input is not a four-dimensional float32 tensor";
}

/* Windows that lie inside the image, and no second output. */
static const char *match_pool(struct reader *reader, const OrtNode *node, struct match *match) {
  struct layer_spec *spec = &match->spec;
  int64_t ceil_mode = 0;
  char kind[ATTRIBUTE_TEXT] = "NOTSET";
  spec->operation = MAXIMUM;
  for (int i = 0; i < 2; i++) spec->stride[i] = spec->dilation[i] = 1;
  attribute_int(reader, node, "ceil_mode", &ceil_mode);
  if (match->input.rank != 4 || match->input.sizes[1] < 1) return "input is not a four-dimensional float32 tensor";
  if (!list(reader, node, "kernel_shape", spec->kernel, 2) || !list(reader, node, "strides", spec->stride, 2) ||
      !list(reader, node, "dilations", spec->dilation, 2) || !list(reader, node, "pads", spec->pad, 4))
    return "not two-dimensional";
  attribute_text(reader, node, "auto_pad", kind);
  if (ceil_mode || spec->pad[0] || spec->pad[1] || spec->pad[2] || spec->pad[3] ||
      (*kind && strcmp(kind, "NOTSET") != 0 && strcmp(kind, "VALID") != 0))
    return "padded pooling";
  spec->in_channels = spec->out_channels = match->input.sizes[1];
  return NULL;
}

static void fill_squeeze(struct layer_spec *spec, enum operation operation, int64_t channels) {
  spec->operation = operation;
  spec->in_channels = spec->out_channels = channels;
  for (int i = 0; i < 2; i++) spec->kernel[i] = spec->stride[i] = spec->dilation[i] = 1;
}

/* The mean over height and width, which stay as axes of one element. */
static const char *match_mean(struct reader *reader, const OrtNode *node, struct match *match) {
  const OrtValueInfo *inputs[MAX_INPUTS];
  const size_t given = node_inputs(reader, node, inputs);
  int64_t axes[2] = {2, 3}, keep = 1;
  if (match->input.rank != 4 || match->input.sizes[1] < 1) return "input is not a four-dimensional float32 tensor";
  if (node_is(reader, node, "ReduceMean")) {
    size_t count = 2;
    attribute_int(reader, node, "keepdims", &keep);
    const bool known = given > 1 ? value_ints(reader, inputs[1], axes, &count)
                                 : attribute_ints(reader, node, "axes", axes, &count);
    if (!known || count != 2 || keep != 1) return "not the mean of images";
    for (int i = 0; i < 2; i++) axes[i] += axes[i] < 0 ? 4 : 0;
    if (axes[0] + axes[1] != 5 || axes[0] * axes[1] != 6) return "not the mean of images";
  }
  fill_squeeze(&match->spec, MEAN, match->input.sizes[1]);
  return NULL;
}

/* Images times one number each, in either order. */
static const char *match_scale(struct reader *reader, const OrtValueInfo *const *inputs, bool proven,
                               struct match *match) {
  const struct shape shapes[2] = {value_shape(reader, inputs[0]), value_shape(reader, inputs[1])};
  for (int i = 0; i < 2; i++) {
    const struct shape *x = &shapes[i], *factor = &shapes[1 - i];
    if (x->rank != 4 || factor->rank != 4 || x->sizes[1] < 1 || factor->sizes[2] != 1 || factor->sizes[3] != 1) continue;
    if (x->sizes[2] == 1 && x->sizes[3] == 1) continue;
    struct shape pixel = *x;
    pixel.sizes[2] = pixel.sizes[3] = 1;
    if (proven && !shapes_equal(&pixel, factor)) continue;
    match->x = inputs[i];
    match->residual = inputs[1 - i];
    match->input = *x;
    fill_squeeze(&match->spec, SCALE, x->sizes[1]);
    return NULL;
  }
  return "not images times one number each";
}

static const char *match_linear(struct reader *reader, const OrtNode *node, const OrtValueInfo *const *inputs,
                                size_t count, struct match *match) {
  struct layer_spec *spec = &match->spec;
  const bool gemm = node_is(reader, node, "Gemm");
  const struct constant weight = value_constant(reader, inputs[1]);
  int64_t flipped = 0, input_flipped = 0;
  float alpha = 1, beta = 1;
  if (!weight.values) return "weights are not constant float32";
  if (weight.shape.rank != 2) return "weights are not a matrix";
  if (gemm) {
    attribute_int(reader, node, "transB", &flipped);
    attribute_int(reader, node, "transA", &input_flipped);
    attribute_float(reader, node, "alpha", &alpha);
    attribute_float(reader, node, "beta", &beta);
  }
  if (input_flipped || alpha != 1 || beta != 1) return "transposed or scaled input";
  spec->operation = LINEAR;
  spec->transposed = !flipped;
  spec->out_channels = weight.shape.sizes[flipped ? 0 : 1];
  spec->in_channels = weight.shape.sizes[flipped ? 1 : 0];
  for (int i = 0; i < 2; i++) spec->kernel[i] = spec->stride[i] = spec->dilation[i] = 1;
  spec->weight = weight.values;
  if (count > 2 && inputs[2]) {
    const struct constant bias = value_constant(reader, inputs[2]);
    const int last = bias.shape.rank - 1;
    const bool whole = bias.values && last >= 0 && bias.shape.sizes[last] == bias.count;
    if (!bias.values || (bias.count != 1 && !(whole && bias.count == spec->out_channels)))
      return "bias is not one constant per output";
    spec->bias = bias.values;
    spec->bias_stride = bias.count == 1 ? 0 : 1;
  }
  return match->input.rank >= 2 ? NULL : "input is not a float32 matrix";
}

const char *match_layer(struct reader *reader, const OrtNode *node, const struct taken *taken, bool proven,
                        struct match *match) {
  const OrtValueInfo *inputs[MAX_INPUTS];
  const size_t count = node_inputs(reader, node, inputs);
  *match = (struct match){.nodes = {node}, .count = 1, .spec = {.low = -INFINITY, .high = INFINITY, .bias_stride = 1}};
  match->output = node_output(reader, node);
  const bool alone = node_is(reader, node, "MaxPool") || node_is(reader, node, "GlobalAveragePool") ||
                     node_is(reader, node, "ReduceMean");
  if (count < (alone ? 1 : 2) || !inputs[0] || (!alone && !inputs[1]) || !match->output)
    return "inputs or outputs are missing";
  match->x = inputs[0];
  match->input = value_shape(reader, match->x);
  match->result = value_shape(reader, match->output);
  const char *reason;
  if (node_is(reader, node, "Conv"))
    reason = match_conv(reader, node, inputs, count, match);
  else if (node_is(reader, node, "MaxPool"))
    reason = match_pool(reader, node, match);
  else if (alone)
    reason = match_mean(reader, node, match);
  else if (node_is(reader, node, "Mul"))
    reason = match_scale(reader, inputs, proven, match);
  else
    reason = match_linear(reader, node, inputs, count, match);
  if (reason) return reason;
  follow(reader, taken, proven, match);
  return match->output ? NULL : "inputs or outputs are missing";
}
