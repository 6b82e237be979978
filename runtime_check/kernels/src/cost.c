#include "cost.h"

/* Nanoseconds on one core of a Zen 4 (docs/kernels.md), per output value and weight of its channel: onnxruntime's dense
   kernels; one non-zero here; and what copies, loading and storing come to, as a share of weights that are not zero. */
#define DENSE 0.0187
#define NONZERO 0.032
#define OVERHEAD 0.035
#define MARGIN 0.85 /* of onnxruntime's time, so that nothing becomes slower where these figures are a little off */

/* Per value of a tensor: putting it into onnxruntime's layout or back; and writing it at all, beyond the caches. */
#define RELAYOUT 0.077
#define RELAYOUT_LARGE 0.35
#define WRITE_LARGE 0.2

/* Images of one pixel, as in squeeze-and-excitation: the same per weight, and what a stretch of layers loses where
   onnxruntime runs a layer inside it. */
#define POINT_DENSE 0.2
#define POINT_NONZERO 1.0
#define INTERRUPTION 12000

enum {
  LEAST_WEIGHTS = 1024, /* calling a node at all costs more than smaller layers do */
  LARGE = 1 << 20       /* values: 4 MiB */
};

static double relayout(double values) { return values > LARGE ? RELAYOUT_LARGE : RELAYOUT; }

const char *cost_objection(const struct layer_spec *spec, const struct surroundings *around, int64_t nonzeros,
                           const struct isa *isa) {
  const double taps = (double)(spec->kernel[0] * spec->kernel[1]), positions = (double)around->positions;
  const double in = (double)spec->in_channels, out = (double)spec->out_channels;
  const double weights = in * out * taps;
  if (around->positions == 1 && around->joined_before && around->joined_after)
    return (double)nonzeros * POINT_NONZERO > MARGIN * (POINT_DENSE * weights + INTERRUPTION) ? "not sparse enough" : NULL;
  if (weights < LEAST_WEIGHTS) return "too small";
  double extra = out * positions > LARGE && !around->joined_after ? WRITE_LARGE : 0;
  if (around->grouped_after) extra += relayout(out * positions);
  if (around->grouped_before) extra += relayout(in * positions) * in / out;
  double most = MARGIN * DENSE / NONZERO - OVERHEAD - extra / (NONZERO * in * taps);
  if (isa == &isa_generic) most /= 2; /* half the register tile, and no fused multiply-add */
  return (double)nonzeros > most * weights ? "not sparse enough" : NULL;
}
