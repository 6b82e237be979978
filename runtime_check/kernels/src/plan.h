/* How one layer runs on inputs of one shape: where vectors lie, in what order weights meet them. Immutable. */
#ifndef SPARSE_PLAN_H
#define SPARSE_PLAN_H

#include "layer.h"

enum method {
  DOT,     /* a row of x times the non-zeros of an output channel, one row at a time */
  DIRECT,  /* 1x1: eight neighbouring pixels are one vector of x as it lies in memory */
  COLUMNS, /* x is copied to [channel][tap][position]: eight neighbouring output positions are one vector */
  LANES    /* x is copied so that one vector holds a pixel of eight groups of image rows: every tap is aligned */
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

struct plan {
  int64_t batch, height, width, out_height, out_width;
  enum method method;
  bool narrow;       /* COLUMNS of at most four positions */
  int64_t images;    /* how often the copy and the tiles are gone through: the batch, or 1 where positions span it */
  int64_t positions; /* output positions of one pass */
  int64_t vectors;   /* COLUMNS: vectors of one tap */

  int64_t group_rows, packed_rows, packed_columns, phase, row_bytes; /* LANES */
  int64_t pitch;                                                     /* bytes from one channel to the next */

  int64_t blocks, block_channels, chunks;
  struct part *parts; /* [blocks][chunks] */
  struct row *rows;
  struct tap *taps;
  int64_t tile_count;
  struct tile *tiles;
  int16_t *picks; /* COLUMNS of small images: [tap][output pixel], the pixel to copy, or their number for a zero */
  int64_t packed_bytes, sum_bytes; /* of one copy of x, and of the sums of one tile */

  int references; /* guarded by the layer's lock */
  uint64_t used;
};

/* The plan for a shape, from the layer's cache or new; give it back with `plan_return`.
   Returns NULL and points `reason` to a constant text when the shape cannot be run. */
struct plan *plan_borrow(struct layer *layer, int64_t batch, int64_t height, int64_t width, const char **reason);
void plan_return(struct layer *layer, struct plan *plan);
void plan_release(struct plan *plan);

#endif
