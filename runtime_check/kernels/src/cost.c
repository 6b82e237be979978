#include "cost.h"

#include <math.h>

/* Nanoseconds on one core of a Zen 4 (docs/kernels.md), per output value and weight of its channel: onnxruntime's dense
   kernels; one non-zero here; and what copies, loading and storing come to, as a share of weights that are not zero. */
#define DENSE 0.0187
#define NONZERO 0.032
#define OVERHEAD 0.035
#define COPIES 8 /* times that overhead: what copies may come to before they count by themselves */
#define MARGIN 0.85 /* of onnxruntime's time, so that nothing becomes slower where these figures are a little off */

/* Onnxruntime leaves out the part of a window that lies in the padding, but for a rest; it counts output channels in
   groups; and reading weights that meet the image at all costs it as much as so many pixels, more from memory. */
#define REST 0.05
#define DENSE_GROUP 16
#define DENSE_READING 3.2
#define DENSE_MEMORY 8

/* Per value of a tensor: putting it into onnxruntime's layout or back; and writing it at all, beyond the caches. */
#define RELAYOUT 0.077
#define RELAYOUT_LARGE 0.35
#define WRITE_LARGE 0.2

/* The same in any size where onnxruntime runs what comes before or after: a layer of few inputs is hardly more than that. */
#define PASS 0.08

#define FILL 0.9 /* of what vectors are filled for: most images leave an eighth empty */

/* Our copies: a value put into lanes, or out of them; values that beginning a row of them comes to; a value copied tap
   by tap, and a channel of them. */
#define LANE 0.5
#define LANE_LARGE 1.0 /* beyond the second-level cache, or sorted for strides */
#define LANE_ROW 40
#define COLUMN 0.2
#define COLUMN_CHANNEL 20

/* Linear layers, per weight and non-zero: onnxruntime with one row, and ours, which goes through non-zeros one by one;
   with a few rows, no fewer than so many count; and what each row costs for each of its values, in and out. */
#define ROW_DENSE 0.055
#define ROW_NONZERO 0.34
#define LEAST_ROWS 12
#define LINEAR_VALUE 0.75
#define NODE 1000
#define OUTPUT 5

/* The first layer of a network: with so few inputs onnxruntime is less quick, and we have long rows of non-zeros. */
#define FEW_INPUTS 4
#define FEW_DENSE 0.025
#define FEW_NONZERO 0.026
#define INTO_LANES 0.3 /* per value of what it makes, for the copy that the next layer then needs not; */
#define WINDOWED 0.25  /* and where windows read it, for them and the thin layer that follows them */

/* Images of one pixel, as in squeeze-and-excitation: the same per weight. */
#define POINT_DENSE 0.2
#define POINT_NONZERO 1.0

/* What a stretch of our layers loses where onnxruntime runs a layer inside it, and one of onnxruntime's to a layer of ours. */
#define INTERRUPTION 12000

enum {
  LEAST_WEIGHTS = 1024, /* calling a node at all costs more than smaller layers do */
  LARGE = 1 << 20,      /* values: 4 MiB */
  CACHED = 3 << 17,     /* values: 1.5 MiB */
  TYPICAL = 32,         /* pixels of a side where the image's size is not known */
  WINDOW_REACH = 4,     /* pixels from one end of a 5x5 window to the other */
  LANES_ROWS = 5,       /* output rows from which on images are copied into lanes */
  LEAST_SIDE = 7,       /* pixels of a side from which on the share of non-zeros decides alone */
  TINY_PIXELS = 14,     /* what up to four cost */
  FEW_PIXELS = 22       /* and fewer cost as much */
};

static double relayout(double values) { return values > LARGE ? RELAYOUT_LARGE : RELAYOUT; }
static double greater(double a, double b) { return a > b ? a : b; }
static double whole(double values, double group) { return ceil(values / group) * group; }

/* One axis of a convolution: its sizes, and the shares of its windows' elements that lie inside the image, and of the
   kernel's that do so in any window. */
struct axis {
  double in, out, inside, used;
};

static struct axis measure(const struct layer_spec *spec, int64_t size, int i) {
  const int64_t reach = (spec->kernel[i] - 1) * spec->dilation[i], stride = spec->stride[i], before = spec->pad[i];
  const int64_t in = size > 0 ? size : stride * (TYPICAL - 1) + 1 + greater(0, reach - before - spec->pad[i + 2]);
  const int64_t spare = in + before + spec->pad[i + 2] - reach - 1;
  const int64_t out = spare < 0 ? 1 : spare / stride + 1;
  double inside = 0, used = 0;
  for (int64_t tap = 0; tap < spec->kernel[i]; tap++) {
    const double first = ceil((double)(before - tap * spec->dilation[i]) / (double)stride);
    const double last = floor((double)(in - 1 + before - tap * spec->dilation[i]) / (double)stride);
    const double windows = greater(0, (last < (double)out - 1 ? last : (double)out - 1) - greater(0, first) + 1);
    inside += windows;
    used += windows > 0;
  }
  const double kernel = (double)spec->kernel[i];
  return (struct axis){(double)in, (double)out, inside / (kernel * (double)out), used / kernel};
}

/* Output values of one channel that vectors are filled for, and the values that one channel of x is copied to, each
   with what it costs. */
static void fill(const struct layer_spec *spec, const struct surroundings *around, const struct axis axes[2],
                 double *filled, double *copied) {
  const double pixels = axes[0].out * axes[1].out;
  const double taps = (double)(spec->kernel[0] * spec->kernel[1]);
  bool strided = false, wide = false;
  for (int i = 0; i < 2; i++) {
    strided |= spec->stride[i] > 1;
    wide |= (double)spec->pad[i] > BORDER_GROUPS * ceil(axes[0].out / LANES_PER_VECTOR);
  }
  if (taps == 1 || axes[0].out < LANES_ROWS) {
    *filled = whole(pixels, LANES_PER_VECTOR);
    *copied = taps > 1 || strided || *filled > pixels ? COLUMN_CHANNEL + COLUMN * taps * *filled : 0;
    return;
  }
  const double rows = ceil(axes[0].out / LANES_PER_VECTOR);
  *filled = rows * LANES_PER_VECTOR * axes[1].out * (axes[1].out < 2 ? 2 : 1);
  const double packed_rows = (rows - 1) * (double)spec->stride[0] + (double)((spec->kernel[0] - 1) * spec->dilation[0]) + 1;
  const double columns = (axes[1].out - 1) * (double)spec->stride[1] + (double)((spec->kernel[1] - 1) * spec->dilation[1]) + 1;
  const double values = packed_rows * LANES_PER_VECTOR * columns;
  const bool large = strided || values * (double)spec->in_channels > CACHED;
  *copied = packed_rows * LANE_ROW + (large ? LANE_LARGE : LANE) * values;
  if (around->joined_before && !strided && !wide) *copied = 0; /* comes in lanes */
}

/* Windows that overlap, without gaps, on images that are not tiny: there the share of non-zeros decides, unless copies
   are out of proportion. */
static bool usual(const struct layer_spec *spec, const struct axis axes[2]) {
  for (int i = 0; i < 2; i++) {
    const int64_t kernel = spec->kernel[i];
    const bool apart = kernel > 1 && spec->stride[i] >= kernel, wide = spec->pad[i] >= kernel || spec->pad[i + 2] >= kernel;
    if (spec->dilation[i] > 1 || apart || wide || axes[i].out < LEAST_SIDE) return false;
  }
  return true;
}

static const char *linear_objection(const struct layer_spec *spec, double rows, double nonzeros, double slower) {
  const double in = (double)spec->in_channels, out = (double)spec->out_channels;
  double dense = ROW_DENSE * in * out, ours = nonzeros * ROW_NONZERO + out * OUTPUT;
  if (rows > 1) {
    dense = greater(dense, DENSE * rows * in * out);
    ours = nonzeros * NONZERO * greater(whole(rows, LANES_PER_VECTOR), LEAST_ROWS) + LINEAR_VALUE * (in + out) * rows;
  }
  if (ours * slower + NODE <= MARGIN * dense) return NULL;
  return rows < LEAST_ROWS && nonzeros < in * out / 2 ? "not sparse enough for so few rows" : "not sparse enough";
}

/* Between sparse layers, small windows save onnxruntime's changes of layout; large ones take longer than those. */
static const char *window_objection(const struct layer_spec *spec) {
  for (int i = 0; i < 2; i++)
    if ((spec->kernel[i] - 1) * spec->dilation[i] > WINDOW_REACH) return "its window reaches too far to pay";
  return NULL;
}

const char *cost_objection(const struct layer_spec *spec, const struct surroundings *around, int64_t nonzeros,
                           const struct isa *isa) {
  const double taps = (double)(spec->kernel[0] * spec->kernel[1]), positions = (double)around->positions;
  const double in = (double)spec->in_channels, out = (double)spec->out_channels;
  const double weights = in * out * taps;
  const double slower = isa == &isa_generic ? 2 : 1; /* half the register tile, and no fused multiply-add */
  if (spec->operation >= DEPTHWISE) return window_objection(spec);
  if (around->positions == 1 && around->joined_before && around->joined_after && around->squeezed)
    return (double)nonzeros * POINT_NONZERO > MARGIN * (POINT_DENSE * weights + INTERRUPTION) ? "not sparse enough" : NULL;
  const bool leads = spec->operation == CONVOLUTION && in <= FEW_INPUTS && around->joined_after;
  const bool joined = around->joined_before && around->joined_after;
  if (weights < LEAST_WEIGHTS && !leads && !joined) return "too small";
  if (spec->operation == LINEAR) return linear_objection(spec, (double)around->rows, (double)nonzeros, slower);
  const struct axis axes[2] = {measure(spec, around->image[0], 0), measure(spec, around->image[1], 1)};
  const bool leading = leads && usual(spec, axes);
  if ((double)nonzeros > (MARGIN * DENSE / NONZERO - OVERHEAD) * weights && !leading) return "not sparse enough"; /* any shape */
  const double pixels = axes[0].out * axes[1].out;
  double filled, copied;
  fill(spec, around, axes, &filled, &copied);
  if (leading) {
    const double saved = (relayout(out * positions) + INTO_LANES + (around->squeezed ? WINDOWED : 0)) * out * pixels;
    const double ours = FEW_NONZERO * slower * (double)nonzeros * greater(pixels, FILL * filled) + in * copied;
    return ours > MARGIN * (FEW_DENSE * weights * pixels + saved) ? "not sparse enough" : NULL;
  }
  double extra = out * positions > LARGE && !around->joined_after ? WRITE_LARGE * out * positions : 0;
  if (around->grouped_after) extra += relayout(out * positions) * out * pixels;
  if (around->grouped_before) extra += relayout(in * positions) * in * pixels;
  if (around->interrupts) extra += INTERRUPTION;
  if (!around->joined_before) extra += PASS * in * pixels;
  if (!around->joined_after) extra += PASS * out * pixels;
  double around_sums = OVERHEAD * NONZERO * weights * pixels;
  if (usual(spec, axes)) {
    /* Inside a stretch of layers copies are saved as well: an onnxruntime in between would need its own. */
    double copies = around->joined_before ? 0 : in * copied;
    if (taps > 1 && !around->joined_after) copies += LANE * out * pixels;
    const double ours = NONZERO * slower * (double)nonzeros * greater(pixels, FILL * filled) + around_sums + extra;
    if (ours > MARGIN * DENSE * weights * pixels) return "not sparse enough";
    const double most = MARGIN * DENSE * weights * pixels - ours + COPIES * around_sums;
    return copies > most ? "copying its tensors takes longer than its zeros save" : NULL;
  }
  const double inside = axes[0].inside * axes[1].inside + REST, share = inside < 1 ? inside : 1;
  const double used = axes[0].used * axes[1].used, memory = weights > LARGE ? DENSE_MEMORY : 0;
  const double read = used * (DENSE_READING + memory); /* in pixels */
  const double dense = DENSE * in * taps * whole(out, DENSE_GROUP) * (share * pixels + read);
  const double counted = greater(greater(pixels, pixels <= 4 ? TINY_PIXELS : FEW_PIXELS), FILL * filled);
  if (taps > 1 && !around->joined_after) around_sums = greater(around_sums, LANE * out * pixels);
  const double ours = NONZERO * slower * counted * (double)nonzeros + around_sums + extra;
  if (ours + in * copied <= MARGIN * dense) return NULL;
  const bool dilated = spec->dilation[0] * spec->dilation[1] > 1;
  if (dilated && ours > MARGIN * dense && ours <= MARGIN * dense / share)
    return "its dilation reaches into the padding, which onnxruntime leaves out";
  if (ours > MARGIN * dense) return "not sparse enough";
  if (dilated) return "its dilation makes the copy of its input too large";
  return "copying its tensors takes longer than its zeros save";
}
