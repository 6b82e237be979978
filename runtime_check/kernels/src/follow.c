#include "follow.h"

#include <float.h>
#include <math.h>
#include <string.h>

static bool is_free(const struct taken *taken, const OrtNode *node) {
  for (size_t i = 0; i < taken->count; i++)
    if (taken->nodes[i] == node) return false;
  return true;
}

/* The node that reads the match's output alone, where it is free to be joined. */
static const OrtNode *follower(struct reader *reader, const struct taken *taken, const struct match *match) {
  const OrtNode *next = value_consumer(reader, match->output);
  return next && is_free(taken, next) ? next : NULL;
}

static void join(struct reader *reader, struct match *match, const OrtNode *node) {
  match->nodes[match->count++] = node;
  match->output = node_output(reader, node);
}

static bool join_add(struct reader *reader, const OrtNode *node, bool proven, struct match *match) {
  const OrtValueInfo *inputs[MAX_INPUTS];
  if (!node_is(reader, node, "Add") || node_inputs(reader, node, inputs) != 2 || !inputs[0] || !inputs[1]) return false;
  const char *sum = value_name(reader, match->output);
  const bool first = strcmp(value_name(reader, inputs[0]), sum) == 0;
  const bool second = strcmp(value_name(reader, inputs[1]), sum) == 0;
  if (first == second) return false;
  const OrtValueInfo *other = inputs[first ? 1 : 0];
  const struct shape shape = value_shape(reader, other);
  if (value_constant(reader, other).values || (proven && !shapes_equal(&shape, &match->result))) return false;
  match->residual = other;
  join(reader, match, node);
  return true;
}

/* A bound of Clip: absent, or a constant scalar. */
static bool bound(struct reader *reader, const OrtValueInfo *value, float *limit) {
  if (!value) return true;
  const struct constant constant = value_constant(reader, value);
  if (!constant.values || constant.count != 1) return false;
  *limit = constant.values[0];
  return true;
}

static bool join_bounds(struct reader *reader, const OrtNode *node, struct match *match) {
  float low = -INFINITY, high = INFINITY;
  const OrtValueInfo *inputs[MAX_INPUTS];
  const size_t count = node_inputs(reader, node, inputs);
  if (node_is(reader, node, "Relu")) {
    low = 0;
  } else if (node_is(reader, node, "Clip")) {
    low = -FLT_MAX; /* without bounds of its own, Clip keeps values finite */
    high = FLT_MAX;
    attribute_float(reader, node, "min", &low);
    attribute_float(reader, node, "max", &high);
    if (count > 1 && !bound(reader, inputs[1], &low)) return false;
    if (count > 2 && !bound(reader, inputs[2], &high)) return false;
    if (!(low <= high)) return false;
  } else {
    return false;
  }
  match->spec.low = low;
  match->spec.high = high;
  join(reader, match, node);
  return true;
}

/* The gate that a node computes, alone or times its input. */
static struct activation read_activation(struct reader *reader, const OrtNode *node) {
  struct activation activation = {.gate = NO_GATE, .slope = 1};
  if (node_is(reader, node, "HardSwish")) return (struct activation){HARD_SIGMOID, true, 1.0f / 6, 0.5f};
  if (node_is(reader, node, "HardSigmoid")) {
    activation = (struct activation){HARD_SIGMOID, false, 0.2f, 0.5f};
    attribute_float(reader, node, "alpha", &activation.slope);
    attribute_float(reader, node, "beta", &activation.offset);
  } else if (node_is(reader, node, "Sigmoid")) {
    activation.gate = SIGMOID;
  } else if (node_is(reader, node, "Swish")) {
    activation = (struct activation){SIGMOID, true, 1, 0};
    attribute_float(reader, node, "alpha", &activation.slope);
  }
  return activation;
}

static bool reads(struct reader *reader, const OrtNode *node, const OrtValueInfo *a, const OrtValueInfo *b) {
  const OrtValueInfo *inputs[MAX_INPUTS];
  if (!a || !b || node_inputs(reader, node, inputs) != 2 || !inputs[0] || !inputs[1]) return false;
  const char *first = value_name(reader, inputs[0]), *second = value_name(reader, inputs[1]);
  const char *const one = value_name(reader, a), *const other = value_name(reader, b);
  return (strcmp(first, one) == 0 && strcmp(second, other) == 0) ||
         (strcmp(first, other) == 0 && strcmp(second, one) == 0);
}

/* A gate of x, and x times that gate, which are all that read x. */
static bool join_pair(struct reader *reader, const struct taken *taken, struct match *match) {
  const OrtNode *both[2];
  if (value_consumers(reader, match->output, both, 2) != 2) return false;
  for (int i = 0; i < 2; i++) {
    const OrtNode *const gate = both[i], *const product = both[1 - i];
    struct activation activation = read_activation(reader, gate);
    if (activation.gate == NO_GATE || activation.times || !node_is(reader, product, "Mul")) continue;
    const OrtValueInfo *const factor = node_output(reader, gate);
    if (value_consumer(reader, factor) != product || !reads(reader, product, match->output, factor)) continue;
    if (!is_free(taken, gate) || !is_free(taken, product)) continue;
    match->spec.activation = activation;
    match->spec.activation.times = true;
    join(reader, match, gate);
    join(reader, match, product);
    return true;
  }
  return false;
}

void follow(struct reader *reader, const struct taken *taken, bool proven, struct match *match) {
  const enum operation operation = match->spec.operation;
  const OrtNode *next = follower(reader, taken, match);
  if (operation >= MEAN) return;
  if (next && operation < DEPTHWISE && join_add(reader, next, proven, match)) next = follower(reader, taken, match);
  if (next && join_bounds(reader, next, match)) return;
  if (operation > DEPTHWISE || join_pair(reader, taken, match) || !next) return;
  const struct activation activation = read_activation(reader, next);
  if (activation.gate == NO_GATE) return;
  match->spec.activation = activation;
  join(reader, match, next);
}
