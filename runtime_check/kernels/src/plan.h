/* How one layer runs on inputs of one shape: where vectors lie, in what order weights meet them. Immutable. */
#ifndef SPARSE_PLAN_H
#define SPARSE_PLAN_H

#include "form.h"
#include "layer.h"

enum method {
  DOT,     /* a row of x times the non-zeros of an output channel, one row at a time */
  DIRECT,  /* 1x1: eight neighbouring pixels are one vector of x as it lies in memory */
  COLUMNS, /* x is copied to [channel][tap][position]: eight neighbouring output positions are one vector */
  LANES,   /* one vector holds a pixel of eight groups of image rows (form.h), so that every tap is aligned */
  WINDOW   /* the same for layers that work on each channel alone */
};

struct tile {
  int64_t input;    /* bytes from the channel's first vector */
  int64_t position; /* LANES: output row inside a group; otherwise the first output position */
  int64_t column;   /* LANES: first output column */
  int32_t rows, columns;
};

/* The non-zeros of one block of input channels and one range of output channels. */
struct part {
  int64_t first_row, row_count, first_tap;
};

/* How the tensors around a layer lie. */
struct layout {
  struct form x, residual, y;
  int64_t group_rows; /* output rows of one lane, where x or y is in lanes */
  bool direct;        /* x is read in lanes as it is; otherwise it is copied */
  struct form stage;  /* WINDOW: what is read around x in lanes, of which the rows above and below are made for each
                         channel, `pitch` bytes; plain where x is copied */
  bool begins; /* y is only the beginning of the next layer's sums */
  int64_t group_channels; /* where not 0, so many channels of y are made at once, which the next layer's windows read */
};

struct plan {
  int64_t batch, height, width, out_height, out_width;
  struct layout layout;
  enum method method;
  bool narrow;       /* COLUMNS of at most four positions */
  bool tiny;         /* WINDOW: eight channels of an image at once, element by element of each window (isa.h) */
  int64_t images;    /* how often the copy and the tiles are gone through: the batch, or 1 where positions span it */
  int64_t positions; /* output positions of one pass */
  int64_t vectors;   /* COLUMNS: vectors of one tap */

  int64_t group_rows;                           /* LANES, WINDOW: output rows of one lane */
  int64_t row_step;                             /* rows of the input or its copy from one output row to the next */
  int64_t packed_rows, packed_columns, phase;   /* of the copy, where x is not read as it lies */
  int64_t column_step;                          /* by whose remainder its columns are sorted */
  int64_t origin, row_bytes, pitch;             /* in bytes: first vector read, one row to the next, one channel */

  float *start; /* [out]: where not NULL, the bias of this layer and of the one that begins its sums, together */
  int64_t blocks, block_channels, chunks;
  struct part *parts; /* [blocks][chunks] */
  struct row *rows;
  struct tap *taps;
  int64_t tile_count;
  struct tile *tiles;
  int16_t *picks; /* COLUMNS of small images: for each pixel of the copy the one to copy, or their number for a zero */
  struct slice *slices; /* [slice_count]: in their place, of half a vector or a whole one, where neighbours allow it */
  int64_t slice_count;
  bool half_slices, halved; /* halved: of an image whose even columns come first (isa.h) */
  struct reach *reaches; /* tiny */
  struct window_run *runs;
  int64_t run_count;
  int64_t plane_rows; /* COLUMNS: [kernel column][row modulo stride][plane_rows][out_width] of each channel are copied;
                         0: [tap][output pixel] */
  int64_t copied;     /* pixels of that */
  int64_t packed_bytes; /* of the copy of x */
  int64_t own_bytes;    /* where not 0, each task copies x for itself instead, block by block: of one block */
  int64_t sum_bytes;    /* of the sums of one tile, and before them the task's block and the image that it is made of */
  int64_t image_bytes;             /* of a plain copy of one channel (eight, tiny) that is made first, or 0 */
  bool subsampled;                 /* that copy holds only what a strided 1x1 kernel reads */
};

/* COLUMNS: elements that a tap reads of one channel: positions, filled up to a whole vector, or to half of one. */
static inline int64_t plan_filled(const struct plan *plan) {
  return plan->narrow ? LANES_PER_VECTOR / 2 : plan->vectors * LANES_PER_VECTOR;
}

/* The plan for inputs of one size. Where x is read in lanes and its pitch is 0, the plan has the pitch that suits it.
   Returns NULL and points `reason` to a constant text when the layer cannot run on them. */
struct plan *plan_create(const struct layer *layer, const int64_t image[3], int threads,
                         const struct layout *layout, const char **reason);
void plan_release(struct plan *plan);

#endif
