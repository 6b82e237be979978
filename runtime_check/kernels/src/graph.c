#include "graph.h"

#include <string.h>

/* Run a call of the interface unless an earlier one failed; true when it succeeded. */
#define READ(call) (!reader->error && !(reader->error = reader->api->call))

const char *node_operator(struct reader *reader, const OrtNode *node) {
  const char *found = NULL;
  return READ(Node_GetOperatorType(node, &found)) && found ? found : "";
}

bool node_is(struct reader *reader, const OrtNode *node, const char *name) {
  const char *domain = NULL;
  if (strcmp(node_operator(reader, node), name) != 0 || !READ(Node_GetDomain(node, &domain))) return false;
  return !domain || !*domain || strcmp(domain, "ai.onnx") == 0;
}

bool graph_is_inner(struct reader *reader, const OrtGraph *graph) {
  const OrtNode *parent = NULL;
  return READ(Graph_GetParentNode(graph, &parent)) && parent;
}

const char *value_name(struct reader *reader, const OrtValueInfo *value) {
  const char *name = NULL;
  return value && READ(GetValueInfoName(value, &name)) && name ? name : "";
}

const OrtValueInfo *node_output(struct reader *reader, const OrtNode *node) {
  size_t count = 0;
  const OrtValueInfo *output = NULL;
  if (!READ(Node_GetNumOutputs(node, &count)) || count != 1 || !READ(Node_GetOutputs(node, &output, 1))) return NULL;
  return output;
}

const char *node_name(struct reader *reader, const OrtNode *node) {
  const char *name = NULL;
  if (READ(Node_GetName(node, &name)) && name && *name) return name;
  return value_name(reader, node_output(reader, node));
}

size_t node_inputs(struct reader *reader, const OrtNode *node, const OrtValueInfo *inputs[MAX_INPUTS]) {
  size_t count = 0;
  if (!READ(Node_GetNumInputs(node, &count)) || count > MAX_INPUTS) return 0;
  if (!READ(Node_GetInputs(node, inputs, count))) return 0;
  for (size_t i = 0; i < count; i++)
    if (inputs[i] && !*value_name(reader, inputs[i])) inputs[i] = NULL;
  return count;
}

size_t node_reads(struct reader *reader, const OrtNode *node, const OrtValueInfo **values, size_t room) {
  size_t count = 0, inner = 0;
  if (!READ(Node_GetNumInputs(node, &count)) || !READ(Node_GetNumImplicitInputs(node, &inner))) return 0;
  if (count + inner > room) return count + inner;
  if (!READ(Node_GetInputs(node, values, count))) return 0;
  return READ(Node_GetImplicitInputs(node, values + count, inner)) ? count + inner : 0;
}

static const OrtOpAttr *attribute(struct reader *reader, const OrtNode *node, const char *name, int type) {
  const OrtOpAttr *found = NULL;
  int actual = 0;
  if (reader->error) return NULL;
  OrtStatus *missing = reader->api->Node_GetAttributeByName(node, name, &found);
  if (missing) { /* the operator has no such attribute, or leaves it out */
    reader->api->ReleaseStatus(missing);
    return NULL;
  }
  return found && READ(OpAttr_GetType(found, &actual)) && actual == type ? found : NULL;
}

/* Reads at most `size` bytes; returns how many, or -1 where there are more or none can be read. */
static int64_t read_bytes(struct reader *reader, const OrtOpAttr *found, int type, void *bytes, size_t size) {
  size_t used = 0;
  if (!found || reader->error) return -1;
  OrtStatus *longer = reader->api->ReadOpAttr(found, type, bytes, size, &used);
  if (!longer) return (int64_t)used;
  reader->api->ReleaseStatus(longer);
  return -1;
}

bool attribute_ints(struct reader *reader, const OrtNode *node, const char *name, int64_t *values, size_t *count) {
  const OrtOpAttr *found = attribute(reader, node, name, ORT_ATTRIBUTE_INTS);
  const int64_t bytes = read_bytes(reader, found, ORT_ATTRIBUTE_INTS, values, *count * sizeof *values);
  if (bytes < 0) return false;
  *count = (size_t)bytes / sizeof *values;
  return true;
}

bool attribute_int(struct reader *reader, const OrtNode *node, const char *name, int64_t *value) {
  const OrtOpAttr *found = attribute(reader, node, name, ORT_ATTRIBUTE_INT);
  return read_bytes(reader, found, ORT_ATTRIBUTE_INT, value, sizeof *value) == sizeof *value;
}

bool attribute_float(struct reader *reader, const OrtNode *node, const char *name, float *value) {
  const OrtOpAttr *found = attribute(reader, node, name, ORT_ATTRIBUTE_FLOAT);
  return read_bytes(reader, found, ORT_ATTRIBUTE_FLOAT, value, sizeof *value) == sizeof *value;
}

void attribute_text(struct reader *reader, const OrtNode *node, const char *name, char text[ATTRIBUTE_TEXT]) {
  const OrtOpAttr *found = attribute(reader, node, name, ORT_ATTRIBUTE_STRING);
  if (!found) return;
  memset(text, 0, ATTRIBUTE_TEXT);
  if (read_bytes(reader, found, ORT_ATTRIBUTE_STRING, text, ATTRIBUTE_TEXT - 1) < 0) text[0] = '?';
}

static void read_shape(struct reader *reader, const OrtTensorInfo *tensor, struct shape *shape) {
  int type = 0;
  size_t rank = 0;
  if (!READ(GetTensorElementType(tensor, &type)) || type != ORT_FLOAT) return;
  if (!READ(GetDimensionsCount(tensor, &rank)) || rank > MAX_RANK) return;
  if (!READ(GetDimensions(tensor, shape->sizes, rank))) return;
  if (!READ(GetSymbolicDimensions(tensor, shape->names, rank))) return;
  shape->rank = (int)rank;
}

struct shape value_shape(struct reader *reader, const OrtValueInfo *value) {
  struct shape shape = {.rank = -1};
  const OrtTypeInfo *type = NULL;
  const OrtTensorInfo *tensor = NULL;
  if (!value || !READ(GetValueInfoTypeInfo(value, &type)) || !type) return shape;
  if (READ(CastTypeInfoToTensorInfo(type, &tensor)) && tensor) read_shape(reader, tensor, &shape);
  return shape;
}

struct constant value_constant(struct reader *reader, const OrtValueInfo *value) {
  struct constant constant = {.values = NULL, .shape = {.rank = -1}};
  bool is_constant = false;
  const OrtValue *tensor = NULL;
  OrtTensorInfo *info = NULL;
  void *data = NULL;
  if (!value || !READ(ValueInfo_IsConstantInitializer(value, &is_constant)) || !is_constant) return constant;
  if (!READ(ValueInfo_GetInitializerValue(value, &tensor)) || !tensor) return constant;
  if (!READ(GetTensorTypeAndShape(tensor, &info))) return constant;
  read_shape(reader, info, &constant.shape);
  reader->api->ReleaseTensorInfo(info);
  constant.count = 1;
  for (int i = 0; i < constant.shape.rank; i++) {
    const int64_t size = constant.shape.sizes[i];
    if (size < 0 || __builtin_mul_overflow(constant.count, size, &constant.count)) return constant;
  }
  if (constant.shape.rank >= 0 && READ(GetTensorMutableData((OrtValue *)tensor, &data))) constant.values = data;
  return constant;
}

bool value_ints(struct reader *reader, const OrtValueInfo *value, int64_t *values, size_t *count) {
  bool is_constant = false;
  const OrtValue *tensor = NULL;
  OrtTensorInfo *info = NULL;
  int type = 0;
  size_t rank = 0;
  int64_t length = 0;
  void *data = NULL;
  if (!value || !READ(ValueInfo_IsConstantInitializer(value, &is_constant)) || !is_constant) return false;
  if (!READ(ValueInfo_GetInitializerValue(value, &tensor)) || !tensor) return false;
  if (!READ(GetTensorTypeAndShape(tensor, &info))) return false;
  const bool fits = READ(GetTensorElementType(info, &type)) && type == ORT_INT64 &&
                    READ(GetDimensionsCount(info, &rank)) && rank == 1 && READ(GetDimensions(info, &length, 1)) &&
                    length >= 0 && (uint64_t)length <= *count;
  reader->api->ReleaseTensorInfo(info);
  if (!fits || !READ(GetTensorMutableData((OrtValue *)tensor, &data))) return false;
  memcpy(values, data, (size_t)length * sizeof *values);
  *count = (size_t)length;
  return true;
}

size_t value_consumers(struct reader *reader, const OrtValueInfo *value, const OrtNode **nodes, size_t room) {
  bool returned = true;
  size_t count = 0;
  int64_t indices[CONSUMERS];
  if (!value || !READ(ValueInfo_IsGraphOutput(value, &returned)) || returned) return 0;
  if (!READ(ValueInfo_GetValueNumConsumers(value, &count)) || count > room || count > CONSUMERS) return count;
  return READ(ValueInfo_GetValueConsumers(value, nodes, indices, count)) ? count : 0;
}

const OrtNode *value_consumer(struct reader *reader, const OrtValueInfo *value) {
  const OrtNode *consumer;
  return value_consumers(reader, value, &consumer, 1) == 1 ? consumer : NULL;
}

const OrtNode *value_producer(struct reader *reader, const OrtValueInfo *value) {
  const OrtNode *producer = NULL;
  size_t index = 0;
  return value && READ(ValueInfo_GetValueProducer(value, &producer, &index)) ? producer : NULL;
}

bool shapes_equal(const struct shape *a, const struct shape *b) {
  if (a->rank < 0 || a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++) {
    if (a->sizes[i] != b->sizes[i]) return false;
    if (a->sizes[i] >= 0) continue;
    if (!a->names[i] || !b->names[i] || !*a->names[i] || strcmp(a->names[i], b->names[i]) != 0) return false;
  }
  return true;
}
