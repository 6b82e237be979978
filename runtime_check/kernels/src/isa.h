/* What differs between instruction sets: the inner kernels and the copies that transpose. */
#ifndef SPARSE_ISA_H
#define SPARSE_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "form.h"

enum {
  LANES_PER_VECTOR = 8,
  VECTOR_BYTES = 32,
  CACHE_LINE = 64, /* bytes */
  PICKED = 1024 /* images of fewer pixels are copied pixel by pixel, from a list */
};

/* One non-zero weight: its value, and the bytes from the block's first vector to the vector it multiplies. */
struct tap {
  float weight;
  int32_t offset;
};

/* One output channel inside one block of input channels. */
struct row {
  int32_t channel;
  int32_t taps;
};

/* What an output becomes after residual and bounds: a gate between 0 and 1, or itself times that gate. */
enum gate { NO_GATE, HARD_SIGMOID, SIGMOID };
struct activation {
  enum gate gate;
  bool times;          /* x times the gate: HardSwish, SiLU */
  float slope, offset; /* HARD_SIGMOID: slope * x + offset between 0 and 1; SIGMOID: 1 / (1 + exp(-slope * x)) */
};

/* One register tile of output positions for a range of output channels and one block of input channels. */
struct tile_job {
  const char *input;      /* first vector of the tile in the block */
  ptrdiff_t input_pitch;  /* bytes from the first tile row to the second */
  const struct tap *taps; /* the taps of all rows, one after the other */
  const struct row *rows;
  int64_t row_count;
  const float *bias;   /* starts the sums where not NULL, otherwise they continue from `sums` */
  const char *sums;    /* partial sums of channel 0 */
  ptrdiff_t sum_pitch; /* bytes from one channel to the next */
  char *output;
  ptrdiff_t output_pitch, output_row; /* output_row: from the first tile row to the second */
  const char *residual;               /* added at the end where not NULL */
  ptrdiff_t residual_pitch, residual_row;
  float low, high;
  const struct activation *activation; /* where not NULL */
  int32_t tile_rows, tile_columns;
  bool far;    /* the taps come from beyond the second-level cache */
  bool finish; /* last block: residual, bounds and activation are applied */
};

typedef void (*tile_function)(const struct tile_job *);

/* Eight rows of one image interleaved: element l of output vector q is rows[l][q - left], 0 outside or where NULL.
   Column q lies at vector (q % stride) * phase + q / stride. */
struct interleave_job {
  const float *rows[LANES_PER_VECTOR];
  const float *end; /* of the tensor that the rows lie in: up to there reading too much does no harm */
  int64_t width, left, columns, stride, phase;
  char *output;
};

/* The reverse: `columns` vectors become pieces of eight rows (NULL: left out), with residual, bounds and activation. */
struct separate_job {
  const char *input;
  ptrdiff_t step; /* bytes from one vector to the next */
  float *rows[LANES_PER_VECTOR];
  const float *residual[LANES_PER_VECTOR];
  const float *residual_end; /* of the whole tensor */
  int64_t columns;
  float low, high;
  const struct activation *activation; /* where not NULL */
};

/* One output row of one channel, from windows of vectors: weighted sums, or the largest where `weights` is NULL. */
struct window_job {
  const char *const *rows; /* [kernel height]: where the first window begins in each row that it reaches */
  int64_t kernel[2], stride, dilation; /* stride and dilation of columns */
  int64_t columns;                     /* of the output */
  const float *weights;
  float bias, low, high;
  char *output;
};

/* A window's element that lies inside the image: the bytes to its weight's vector, and to that of the pixel it meets. */
struct reach {
  int32_t weight, input;
};

/* Neighbouring windows that reach alike, each `step` bytes behind the one before: how many, and the reaches of the first. */
struct window_run {
  int32_t windows, reaches;
};

/* Images of eight channels, element l of every vector of channel l: weighted sums of what each window reaches, or the
   largest where `weights` is NULL. */
struct reach_job {
  const char *input, *weights; /* vectors [pixels], [taps] */
  const float *bias;           /* [8] */
  const struct reach *reaches; /* of all runs, one after the other */
  const struct window_run *runs;
  int64_t run_count, step;
  char *output; /* vectors [windows] */
};

enum { BORDER_GROUPS = 3 }; /* whose rows may lie around a group, above and below */

/* What lies around one channel in lanes, made from the rows inside: neighbouring groups' rows, zeros. */
struct border_job {
  char *channel;
  const struct form *form;
  int64_t height, width;
};

/* Rows of one channel in lanes, eight at once: lane l becomes image row first + l * distance. Column q, which lies as
   interleave_job has it, is image column q * step - left; zeros outside the image. */
struct regroup_job {
  const char *channel; /* its first row inside, at column 0 */
  int64_t group_rows, row_bytes, height, width;
  int64_t first, distance;
  int64_t left, step, columns, stride, phase;
  char *output;
};

/* Neighbouring elements of a copy that are neighbours in the image too, or zeros: the pixel for the first of them, which
   may lie up to seven before the image, and all ones for those inside. */
struct slice {
  int32_t from;
  uint32_t inside[LANES_PER_VECTOR];
};

/* All slices of some channels, each of eight elements or half as many. Up to seven pixels beside the images are read. */
struct slice_job {
  const float *pixels;
  int64_t channels, distance; /* pixels from one channel to the next */
  const struct slice *slices;
  int64_t count;
  bool half;
  char *output;
  ptrdiff_t pitch; /* bytes from one channel to the next */
};

struct isa {
  const char *name;
  int max_tile;                               /* vectors that fit into registers */
  const tile_function *single;                /* by columns: 1..max_tile */
  const tile_function *pointwise;             /* as single, for 1x1 kernels: aligned vectors side by side */
  const tile_function *pair;                  /* two rows, by columns: 1..max_tile/2 */
  tile_function narrow;                       /* at most 4 positions: half a vector */
  void (*interleave)(const struct interleave_job *);
  void (*separate)(const struct separate_job *);
  void (*window)(const struct window_job *);
  void (*reach)(const struct reach_job *);
  void (*border)(const struct border_job *);
  void (*regroup)(const struct regroup_job *);
  void (*activate)(const struct activation *, const float *values, int64_t count, float *activated); /* may be the same */
  void (*scale)(const float *values, float factor, int64_t count, float *scaled); /* may be the same */
  void (*add_up)(const float *values, int64_t count, float sums[LANES_PER_VECTOR]); /* element i to sum i modulo 8 */
  /* output[i] = pixels[picks[i]], 0 where that is pixel_count: fewer than PICKED. */
  void (*pick)(const float *pixels, int64_t pixel_count, const int16_t *picks, int64_t count, float *output);
  void (*slice)(const struct slice_job *);
  void (*halve)(const float *pixels, int64_t count, float *sorted); /* pixels with even numbers, then the others */
  float (*dot)(const float *values, const int32_t *columns, int64_t count, const float *x); /* values[i] * x[columns[i]] */
};

/* The best instruction set that this processor and this build have; `limit` names a lesser one, or is NULL. */
const struct isa *isa_select(const char *limit);

extern const struct isa isa_generic;
#if defined(__x86_64__)
extern const struct isa isa_avx2, isa_avx512;
#elif defined(__aarch64__)
extern const struct isa isa_neon;
#endif

#endif
