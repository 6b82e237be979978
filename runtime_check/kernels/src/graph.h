/* Reading onnxruntime's graph: the first error is kept, later reads then give nothing. */
#ifndef SPARSE_GRAPH_H
#define SPARSE_GRAPH_H

#include "ort_abi.h"

enum { MAX_RANK = 8, MAX_INPUTS = 8, CONSUMERS = 8, ATTRIBUTE_TEXT = 32 };

struct reader {
  const OrtApi *api;
  OrtStatus *error;
};

struct shape {
  int rank;                /* -1 where unknown, or not a float tensor of at most MAX_RANK axes */
  int64_t sizes[MAX_RANK]; /* -1 where free */
  const char *names[MAX_RANK]; /* of free sizes; "" where they have none */
};

struct constant {
  const float *values; /* NULL where the value is not a constant float tensor */
  struct shape shape;
  int64_t count;
};

/* Whether the node is ONNX's own operator `name`. */
bool node_is(struct reader *reader, const OrtNode *node, const char *name);
/* Whether the graph lies inside a node, as the branches of If do. */
bool graph_is_inner(struct reader *reader, const OrtGraph *graph);
const char *node_operator(struct reader *reader, const OrtNode *node);
/* The node's name, or that of its first output where it has none. */
const char *node_name(struct reader *reader, const OrtNode *node);
/* Inputs of the node, NULL where left out; returns their number, or 0 where there are more than MAX_INPUTS. */
size_t node_inputs(struct reader *reader, const OrtNode *node, const OrtValueInfo *inputs[MAX_INPUTS]);
/* Values that the node reads, also in the graphs inside it: at most `room` of them are written, all are counted. */
size_t node_reads(struct reader *reader, const OrtNode *node, const OrtValueInfo **values, size_t room);
/* The node's only output, or NULL. */
const OrtValueInfo *node_output(struct reader *reader, const OrtNode *node);

/* Attributes; false where the attribute is missing or of another type. `*count` holds the room and the number found. */
bool attribute_ints(struct reader *reader, const OrtNode *node, const char *name, int64_t *values, size_t *count);
bool attribute_int(struct reader *reader, const OrtNode *node, const char *name, int64_t *value);
bool attribute_float(struct reader *reader, const OrtNode *node, const char *name, float *value);
/* A string attribute; "?" where it is longer, and left as it is where there is none. */
void attribute_text(struct reader *reader, const OrtNode *node, const char *name, char text[ATTRIBUTE_TEXT]);

const char *value_name(struct reader *reader, const OrtValueInfo *value);
struct shape value_shape(struct reader *reader, const OrtValueInfo *value);
struct constant value_constant(struct reader *reader, const OrtValueInfo *value);
/* A list of int64 that is constant; `*count` holds the room and the number found. False where it is none. */
bool value_ints(struct reader *reader, const OrtValueInfo *value, int64_t *values, size_t *count);
/* How many times nodes read the value, at most `room` of them written; 0 where the graph returns it. */
size_t value_consumers(struct reader *reader, const OrtValueInfo *value, const OrtNode **nodes, size_t room);
/* The one node that reads the value, or NULL where there are others or the graph returns it. */
const OrtNode *value_consumer(struct reader *reader, const OrtValueInfo *value);

/* The node that makes the value, or NULL. */
const OrtNode *value_producer(struct reader *reader, const OrtValueInfo *value);

/* Whether two shapes are equal for every input. */
bool shapes_equal(const struct shape *a, const struct shape *b);

#endif
