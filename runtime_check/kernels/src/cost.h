/* Whether a layer is quicker with these kernels than in onnxruntime. */
#ifndef SPARSE_COST_H
#define SPARSE_COST_H

#include "isa.h"
#include "layer.h"

/* NULL, or why onnxruntime keeps a layer with so many non-zeros. */
const char *cost_objection(const struct layer_spec *spec, int64_t nonzeros, const struct isa *isa);

#endif
