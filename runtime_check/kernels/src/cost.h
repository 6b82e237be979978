/* Whether a layer is quicker with these kernels than in onnxruntime. */
#ifndef SPARSE_COST_H
#define SPARSE_COST_H

#include "match.h"

/* NULL, or why onnxruntime keeps the layer. */
const char *cost_objection(const struct match *match, int64_t nonzeros);

#endif
