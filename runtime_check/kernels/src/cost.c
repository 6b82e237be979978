#include "cost.h"

/* Measured on one core of a Zen 4 (docs/kernels.md): a weight costs onnxruntime about 0.0187 ns for each output
   position, zero or not. Here a non-zero costs 0.032 ns, and a weight's share of copies and sums as much as 0.035 more
   non-zeros. Where neighbours stay with onnxruntime, the tensors in between are put into another layout, for about
   0.077 ns a value: 2.4 non-zeros. A layer is claimed where all this is at most 85 % of onnxruntime's time. */
#define BREAK_EVEN 0.46
#define LAYOUT_CHANGE 2.4

enum { LEAST_WEIGHTS = 1024 }; /* calling a node at all costs more than smaller layers do */

const char *cost_objection(const struct layer_spec *spec, int64_t nonzeros, const struct isa *isa) {
  const double taps = (double)(spec->kernel[0] * spec->kernel[1]);
  const double in = (double)spec->in_channels, out = (double)spec->out_channels, weights = in * out * taps;
  if (weights < LEAST_WEIGHTS) return "too small";
  double most = BREAK_EVEN - LAYOUT_CHANGE * (1 / in + 1 / out) / taps;
  if (isa == &isa_generic) most /= 2; /* half the register tile, and no fused multiply-add */
  return (double)nonzeros > most * weights ? "not sparse enough" : NULL;
}
