/* One layer with constant weights: checked once, then immutable. */
#ifndef SPARSE_LAYER_H
#define SPARSE_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isa.h"

/* Limits that keep every size below 2^62; whatever lies beyond is refused. */
enum {
  CHANNEL_LIMIT = 1 << 24,
  TAP_LIMIT = 1 << 20, /* kernel elements */
  SPAN_LIMIT = 1 << 15 /* one stride, dilation, padding or kernel size */
};
#define POSITION_LIMIT ((int64_t)1 << 27) /* pixels of one image, rows of one matrix, images of one batch */
#define BYTE_LIMIT ((int64_t)1 << 40)     /* one tensor or buffer */

enum operation {
  CONVOLUTION, /* sparse weights */
  LINEAR,      /* sparse weights: y[m][k] = sum over c of x[m][c] w[k][c]; input channels last, kernel 1x1 */
  DEPTHWISE,   /* a convolution of each channel with weights of its own; it and those below never mix channels */
  MAXIMUM,     /* the largest element of a window; no weights */
  MEAN,        /* of each image of each channel */
  SCALE        /* times one number for each image of each channel, in place of a residual */
};

/* A layer as a file describes it. Nothing in here is trusted before `layer_create` has looked at it. */
struct layer_spec {
  enum operation operation;
  bool transposed; /* weights are stored [in][out] (LINEAR only) */
  int64_t out_channels, in_channels;
  int64_t kernel[2], stride[2], dilation[2]; /* height, width */
  int64_t pad[4];                            /* top, left, bottom, right */
  const float *weight;                       /* [out][in or, DEPTHWISE, 1][kernel height][kernel width] */
  const float *bias;                         /* [out], or one value where `bias_stride` is 0, or NULL */
  int64_t bias_stride;
  float low, high; /* bounds of the output: 0 and infinity for ReLU, -infinity and infinity for none */
  struct activation activation;
};

struct layer {
  enum operation operation;
  int64_t out_channels, in_channels, taps; /* taps: elements of one kernel */
  int64_t kernel[2], stride[2], dilation[2], pad[4];
  float low, high;
  struct activation activation;
  int64_t nonzeros;
  int64_t *start;  /* [out + 1]: where each output channel's non-zeros begin */
  int32_t *column; /* input channel * taps + kernel row * kernel width + kernel column */
  float *value;    /* DEPTHWISE: all weights, [out][taps] */
  float *bias; /* [out], never NULL */
  const struct isa *isa;
};

/* NULL, or why a layer is refused: sizes out of range, bounds that are none. */
const char *layer_objection(const struct layer_spec *spec);

/* NULL, or why a layer cannot run on images of this size; a size below 1 is not known and is not looked at. */
const char *layer_image_objection(const struct layer_spec *spec, int64_t height, int64_t width);

/* Returns NULL and points `reason` to a constant text when the layer cannot be taken. */
struct layer *layer_create(const struct layer_spec *spec, const struct isa *isa, const char **reason);
void layer_release(struct layer *layer);

/* Elements that are not zero (NaN is not), for `count` floats. */
int64_t count_nonzeros(const float *values, int64_t count);

/* The layer's activation, or NULL where it has none. */
static inline const struct activation *layer_activation(const struct layer *layer) {
  return layer->activation.gate == NO_GATE ? NULL : &layer->activation;
}

/* Whether a MAXIMUM layer's only window is larger than the image. */
bool layer_overhangs(const struct layer *layer, int64_t height, int64_t width);

/* Output height and width; false where the image with its padding is smaller than the kernel, or too large. An image
   without pixels may have padding enough. A MAXIMUM layer's window may overhang by less than a stride, as in onnxruntime. */
bool layer_output(const struct layer *layer, int64_t height, int64_t width, int64_t *out_height, int64_t *out_width);

#endif
