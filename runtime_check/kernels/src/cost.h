/* Whether a layer is quicker with these kernels than in onnxruntime. */
#ifndef SPARSE_COST_H
#define SPARSE_COST_H

#include "isa.h"
#include "layer.h"

/* What surrounds a layer: grouped convolutions stay with onnxruntime, which keeps images in a layout of its own. */
struct surroundings {
  bool grouped_before, grouped_after;
  bool joined_before, joined_after; /* what makes the input, or reads the output, is taken too, and knows our layout */
  bool interrupts; /* onnxruntime runs what makes the input and what reads the output, neither of them grouped */
  bool squeezed; /* and one of them works on whole images: the layer lies in a squeeze-and-excitation */
  int64_t positions; /* output pixels of a batch of one, 0 where they are not known */
  int64_t image[2];  /* height and width of the input, 0 where they are not known */
  int64_t rows;      /* of a linear layer's input, at least: sizes that are not known count as 1 */
};

/* NULL, or why onnxruntime keeps a layer with so many non-zeros. */
const char *cost_objection(const struct layer_spec *spec, const struct surroundings *around, int64_t nonzeros,
                           const struct isa *isa);

#endif
