/* Finds one layer and what can be computed along with it in a graph. */
#ifndef SPARSE_MATCH_H
#define SPARSE_MATCH_H

#include "graph.h"
#include "layer.h"

enum { MATCH_NODES = 4 };

/* Conv, Gemm or MatMul with constant weights [+ Add of an equal shape], or MaxPool, [+ Relu, Clip or an activation];
   or the mean of images; or Mul of images with one number each. */
struct match {
  const OrtNode *nodes[MATCH_NODES];
  size_t count;
  const OrtValueInfo *x, *residual, *output; /* `residual`: what is added, or multiplied with */
  struct shape input, result; /* of x and of the layer itself */
  struct layer_spec spec;     /* points into the graph's constants */
};

/* Nodes that belong to earlier matches. */
struct taken {
  const OrtNode **nodes;
  size_t count;
};

bool match_has_weights(struct reader *reader, const OrtNode *node);
bool match_starts(struct reader *reader, const OrtNode *node);
/* Returns NULL, or why the layer that starts at `node` cannot be taken. Only nodes outside `taken` are joined;
   `proven` false trusts that the two sides of an Add or Mul fit. */
const char *match_layer(struct reader *reader, const OrtNode *node, const struct taken *taken, bool proven,
                        struct match *match);

#endif
