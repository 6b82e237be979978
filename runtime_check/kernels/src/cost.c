#include "cost.h"

enum { LEAST_WEIGHTS = 256 };
#define MOST_DENSE 0.4 /* share of non-zeros at which kernels and onnxruntime are level, with a margin */

const char *cost_objection(const struct match *match, int64_t nonzeros) {
  const struct layer_spec *spec = &match->spec;
  const int64_t weights = spec->out_channels * spec->in_channels * spec->kernel[0] * spec->kernel[1];
  if (weights < LEAST_WEIGHTS) return "too small";
  if ((double)nonzeros > MOST_DENSE * (double)weights) return "not sparse enough";
  return NULL;
}
