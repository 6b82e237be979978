#include "geometry.h"

#include <stdlib.h>

#include "cache_sets.h"
#include "window.h"

enum {
  NARROW = 4,           /* positions that half a vector holds */
  BLOCK_BYTES = 26624,  /* input of one tile and one block of channels: what a 32 KiB first-level cache keeps */
  SPANNING = 64,        /* images up to this many output pixels share vectors with the next image of the batch */
  LEAST_ROWS = 5,       /* fewer output rows leave half of eight groups empty */
  SHORT_ROW = 12,       /* non-zeros of an output channel in one block that pay for loading and storing its sums */
  STRETCH = 4,          /* a block grows at most so far beyond the cache to have them */
  FEW_TILES = 4,        /* cannot occupy several threads: their output channels are divided too, */
  LEAST_CHANNELS = 16,  /* into ranges of at least so many */
  COPY_BYTES = 1 << 20  /* of an input that tasks copy each for themselves, block by block, rather than read what others
                           copied; and at most of the list of what tiny windows reach */
};
#define COPY_LIMIT ((int64_t)1 << 28) /* bytes that the copy for COLUMNS may take where LANES could do it too */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static bool pointwise(const struct layer *layer) {
  return layer->taps == 1 && layer->stride[0] == 1 && layer->stride[1] == 1 && layer->pad[0] == 0 &&
         layer->pad[1] == 0 && layer->pad[2] == 0 && layer->pad[3] == 0;
}

/* COLUMNS: what a tap reads of one channel. */
static int64_t read_bytes(const struct plan *plan) { return plan_filled(plan) * (int64_t)sizeof(float); }

int64_t geometry_tap(const struct plan *plan, const struct layer *layer, int64_t tap) {
  if (plan->method == LANES) {
    const int64_t y = tap / layer->kernel[1] * layer->dilation[0], x = tap % layer->kernel[1] * layer->dilation[1];
    return y * plan->row_bytes + (x % plan->column_step * plan->phase + x / plan->column_step) * VECTOR_BYTES;
  }
  if (plan->plane_rows) {
    const int64_t row = tap / layer->kernel[1] * layer->dilation[0], column = tap % layer->kernel[1];
    const int64_t plane = column * layer->stride[0] + row % layer->stride[0];
    return (plane * plan->plane_rows + row / layer->stride[0]) * plan->out_width * (int64_t)sizeof(float);
  }
  return plan->method == COLUMNS ? tap * read_bytes(plan) : 0;
}

/* The pieces of one channel that the widest tile reads, and their bytes together. */
static int64_t touched(const struct plan *plan, const struct layer *layer, struct piece pieces[PIECES], int *count) {
  const struct tile *tile = &plan->tiles[0];
  int64_t bytes = 0;
  *count = 0;
  if (plan->plane_rows) {
    pieces[(*count)++] = (struct piece){0, plan->pitch};
    return 2 * ceil_div(plan->pitch, CACHE_LINE) * CACHE_LINE; /* half of the cache: vectors that cross lines are quicker so */
  }
  if (plan->method != LANES) {
    for (int64_t tap = 0; tap < layer->taps && *count < PIECES; tap++)
      pieces[(*count)++] = (struct piece){geometry_tap(plan, layer, tap), tile->columns * VECTOR_BYTES};
    return layer->taps * tile->columns * VECTOR_BYTES;
  }
  const int64_t reach = (layer->kernel[1] - 1) * layer->dilation[1] / plan->column_step;
  const int64_t width = (tile->columns + reach) * VECTOR_BYTES;
  const int64_t phases = least(plan->column_step, layer->kernel[1]);
  for (int row = 0; row < tile->rows; row++)
    for (int64_t tap = 0; tap < layer->kernel[0]; tap++) {
      const int64_t y = row * plan->row_step + tap * layer->dilation[0];
      if (row > 0 && y % layer->dilation[0] == 0 && y / layer->dilation[0] < layer->kernel[0]) continue; /* row 0's */
      for (int64_t phase = 0; phase < phases; phase++) {
        bytes += width;
        if (*count < PIECES)
          pieces[(*count)++] = (struct piece){y * plan->row_bytes + phase * plan->phase * VECTOR_BYTES, width};
      }
    }
  return bytes;
}

/* How many input channels make a block, and the distance of channels that spreads a block over the cache. */
static void lay_out_channels(struct plan *plan, const struct layer *layer) {
  struct piece pieces[PIECES];
  int count;
  const int64_t bytes = touched(plan, layer, pieces, &count);
  const double per_channel = (double)layer->nonzeros / (double)(layer->in_channels * layer->out_channels);
  int64_t channels = BLOCK_BYTES / bytes;
  /* Very sparse layers: longer rows from the second-level cache beat short ones from the first. */
  const int64_t wanted = per_channel > 0 ? (int64_t)least(1 << 24, (int64_t)(SHORT_ROW / per_channel) + 1) : 1 << 24;
  if (channels < wanted) channels = least(wanted, STRETCH * channels);
  if (channels < 1) channels = 1;
  channels = least(channels, layer->in_channels);
  plan->blocks = ceil_div(layer->in_channels, channels);
  plan->block_channels = ceil_div(layer->in_channels, plan->blocks);
  plan->blocks = ceil_div(layer->in_channels, plan->block_channels);
  if (plan->method == DIRECT || plan->narrow || (plan->layout.direct && plan->layout.x.pitch)) return;
  if (plan->layout.direct && layer->taps == 1 && spreads(plan->pitch, plan->tiles[0].columns)) return;
  plan->pitch = best_pitch(pieces, count, plan->pitch, plan->block_channels);
}

static void add_tiles(struct plan *plan, int64_t position, int rows, int64_t columns, int64_t widest) {
  const int64_t pieces = ceil_div(columns, widest);
  for (int64_t i = 0, x = 0; i < pieces; i++) {
    const int64_t next = (columns * (i + 1) + pieces / 2) / pieces;
    struct tile *tile = &plan->tiles[plan->tile_count++];
    *tile = (struct tile){.position = position, .column = x, .rows = rows, .columns = (int32_t)(next - x)};
    x = next;
  }
}

/* Cut the output positions into register tiles, the widest first. */
static const char *cut(struct plan *plan, const struct layer *layer) {
  const int64_t widest = layer->isa->max_tile;
  const int64_t rows = plan->method == LANES ? plan->group_rows : 1;
  const int64_t columns = plan->method == LANES ? plan->out_width : plan->vectors;
  plan->tiles = calloc((size_t)(rows * (ceil_div(columns, widest / 2) + 1)), sizeof *plan->tiles);
  if (!plan->tiles) return "out of memory";
  int64_t row = 0;
  for (; row + 1 < rows && layer->taps > 1; row += 2) /* rows of a window overlap */
    add_tiles(plan, row, 2, columns, widest / 2);
  for (; row < rows; row++) add_tiles(plan, row, 1, columns, widest);
  for (int64_t i = 0; i < plan->tile_count; i++) {
    struct tile *tile = &plan->tiles[i];
    if (plan->method == LANES) {
      tile->input = plan->origin + tile->position * plan->row_step * plan->row_bytes + tile->column * VECTOR_BYTES;
    } else {
      tile->input = tile->column * VECTOR_BYTES;
      tile->position = tile->column * LANES_PER_VECTOR;
    }
  }
  return NULL;
}

static void choose_method(struct plan *plan, const struct layer *layer) {
  const int64_t pixels = plan->out_height * plan->out_width;
  const struct layout *layout = &plan->layout;
  const bool linear = layer->operation == LINEAR;
  const bool lanes = layout->direct || in_lanes(&layout->residual) || in_lanes(&layout->y);
  const bool spanning = linear || (plan->batch > 1 && pixels <= SPANNING);
  plan->images = spanning ? 1 : plan->batch;
  plan->positions = spanning ? plan->batch * pixels : pixels;
  plan->vectors = ceil_div(plan->positions, LANES_PER_VECTOR);
  plan->method = COLUMNS;
  if (layer->operation >= DEPTHWISE) {
    plan->method = WINDOW;
  } else if (lanes) {
    plan->method = LANES;
  } else if (plan->batch == 1 && (linear || (pointwise(layer) && plan->height * plan->width == 1))) {
    plan->method = DOT;
  } else if (pointwise(layer) && !spanning && pixels % LANES_PER_VECTOR == 0 && !in_lanes(&plan->layout.x)) {
    plan->pitch = pixels * (int64_t)sizeof(float);
    plan->method = spreads(plan->pitch, least(plan->vectors, layer->isa->max_tile)) ? DIRECT : COLUMNS;
  } else if (layer->taps > 1) {
    const int64_t copied = layer->in_channels * layer->taps * plan->vectors * VECTOR_BYTES;
    if ((plan->out_height >= LEAST_ROWS && pixels > NARROW) || copied > COPY_LIMIT) plan->method = LANES;
  }
  if (plan->method >= LANES) { /* every image has rows of its own */
    plan->images = plan->batch;
    plan->positions = pixels;
  }
}

/* Rows and columns of vectors: those of x where it is in lanes, otherwise those that x is copied to. */
static const char *lay_out_lanes(struct plan *plan, const struct layer *layer) {
  const struct form *x = &plan->layout.x;
  plan->group_rows = plan->layout.group_rows;
  if (!plan->group_rows) plan->group_rows = ceil_div(plan->out_height, LANES_PER_VECTOR);
  plan->row_step = layer->stride[0];
  plan->column_step = 1;
  if (plan->layout.direct) {
    plan->row_bytes = x->row_bytes;
    plan->origin = (x->top - layer->pad[0]) * plan->row_bytes + (x->left - layer->pad[1]) * VECTOR_BYTES;
    plan->pitch = x->pitch ? x->pitch : (x->top + x->group_rows + x->bottom) * plan->row_bytes;
    return NULL;
  }
  if (in_lanes(&plan->layout.stage)) {
    plan->row_bytes = plan->layout.stage.row_bytes;
    plan->pitch = plan->layout.stage.pitch;
    return NULL;
  }
  plan->subsampled = plan->method == LANES && layer->taps == 1 && layer->stride[0] * layer->stride[1] > 1 &&
                     layer->pad[0] == 0 && layer->pad[1] == 0 && layer->pad[2] == 0 && layer->pad[3] == 0;
  if (plan->subsampled) plan->row_step = 1;
  plan->column_step = plan->method == LANES && !plan->subsampled ? layer->stride[1] : 1;
  plan->packed_rows = (plan->group_rows - 1) * plan->row_step + (layer->kernel[0] - 1) * layer->dilation[0] + 1;
  plan->packed_columns = plan->subsampled ? plan->out_width
                                          : (plan->out_width - 1) * layer->stride[1] +
                                                (layer->kernel[1] - 1) * layer->dilation[1] + 1;
  plan->phase = ceil_div(plan->packed_columns, plan->column_step);
  plan->row_bytes = plan->phase * plan->column_step * VECTOR_BYTES;
  if (plan->packed_rows > BYTE_LIMIT / plan->row_bytes) return "image too large";
  plan->pitch = plan->packed_rows * plan->row_bytes;
  return NULL;
}

/* Small images, one at a time: the taps of one kernel column read the same rows of one copy. Half vectors are quicker
   tap by tap. */
static void share_rows(struct plan *plan, const struct layer *layer) {
  const bool small = plan->height * plan->width < PICKED && plan->vectors <= layer->isa->max_tile;
  if (layer->operation == LINEAR || plan->narrow || layer->kernel[0] == 1 || plan->images != plan->batch || !small) return;
  const int64_t reach = (layer->kernel[0] - 1) * layer->dilation[0];
  const int64_t rows = plan->out_height + reach / layer->stride[0];
  if (rows > PICKED || layer->stride[0] > PICKED || layer->kernel[1] > PICKED) return;
  const int64_t pixels = layer->kernel[1] * layer->stride[0] * rows * plan->out_width;
  if (pixels > layer->taps * plan->vectors * LANES_PER_VECTOR) return;
  plan->plane_rows = rows;
  plan->copied = pixels;
  const int64_t bytes = (pixels - plan->positions) * (int64_t)sizeof(float) + read_bytes(plan);
  plan->pitch = ceil_div(bytes, VECTOR_BYTES) * VECTOR_BYTES;
}

static const char *lay_out(struct plan *plan, const struct layer *layer) {
  plan->narrow = plan->method == COLUMNS && plan->positions <= NARROW;
  if (plan->method == COLUMNS) {
    plan->pitch = layer->taps * read_bytes(plan);
    share_rows(plan, layer);
  } else if (plan->method >= LANES) {
    const char *reason = lay_out_lanes(plan, layer);
    if (reason) return reason;
  }
  if (plan->pitch > INT32_MAX / 4) return "image too large";
  return NULL;
}

const char *geometry_choose(struct plan *plan, const struct layer *layer, int threads) {
  if (plan->batch < 1 || plan->batch > POSITION_LIMIT) return "batch out of range";
  if (!layer_output(layer, plan->height, plan->width, &plan->out_height, &plan->out_width))
    return "image smaller than the kernel, or too large";
  if (plan->batch > BYTE_LIMIT / 4 / (plan->out_height * plan->out_width) / layer->out_channels ||
      plan->batch > BYTE_LIMIT / 4 / (plan->height * plan->width + 1) / layer->in_channels)
    return "tensor too large";
  choose_method(plan, layer);
  if (plan->method == DOT || layer->operation == MEAN) return NULL;
  const char *reason = lay_out(plan, layer);
  if (reason) return reason;
  const bool staged = in_lanes(&plan->layout.stage), from_lanes = in_lanes(&plan->layout.x);
  const int64_t pixels = plan->height * plan->width;
  const int64_t reached_bytes = layer->taps * plan->positions * (int64_t)sizeof(struct reach);
  plan->tiny = (layer->operation == DEPTHWISE || layer->operation == MAXIMUM) && !in_lanes(&plan->layout.y) && !staged &&
               pixels < PICKED && reached_bytes <= COPY_BYTES;
  if (!plan->tiny && layer_overhangs(layer, plan->height, plan->width))
    return "image smaller than the kernel one way and too large the other";
  if (plan->subsampled ? !from_lanes : from_lanes && (plan->method == COLUMNS || plan->tiny)) {
    plan->image_bytes = ceil_div(pixels, LANES_PER_VECTOR) * VECTOR_BYTES * (plan->tiny ? LANES_PER_VECTOR : 1);
  }
  if (plan->method == WINDOW) {
    /* Eight images, weights and outputs; or the copy of one channel, or the rows around it, and one row of y. */
    plan->sum_bytes = plan->image_bytes;
    plan->sum_bytes += plan->tiny ? (pixels + layer->taps + plan->positions) * VECTOR_BYTES
                                  : window_pointer_bytes(layer) + plan->pitch + plan->out_width * VECTOR_BYTES;
    return NULL;
  }
  if ((reason = cut(plan, layer))) return reason;
  lay_out_channels(plan, layer);
  while (plan->block_channels > 1 && plan->block_channels * plan->pitch > INT32_MAX) {
    plan->block_channels = ceil_div(plan->block_channels, 2);
    plan->blocks = ceil_div(layer->in_channels, plan->block_channels);
  }
  if (plan->pitch > BYTE_LIMIT / layer->in_channels) return "tensor too large";
  plan->chunks = plan->tile_count > FEW_TILES || layer->out_channels < threads * LEAST_CHANNELS ? 1 : threads;
  if (plan->layout.group_channels) plan->chunks = ceil_div(layer->out_channels, plan->layout.group_channels);
  if (plan->method != DIRECT && !plan->layout.direct) plan->packed_bytes = plan->pitch * layer->in_channels;
  plan->sum_bytes = layer->out_channels * layer->isa->max_tile * VECTOR_BYTES;
  if (plan->method == COLUMNS && layer->operation != LINEAR && plan->tile_count == 1 && plan->packed_bytes <= COPY_BYTES) {
    plan->packed_bytes = 0;
    plan->own_bytes = ceil_div(plan->pitch * plan->block_channels, CACHE_LINE) * CACHE_LINE;
    plan->sum_bytes += plan->own_bytes + plan->image_bytes;
  }
  if (plan->sum_bytes < plan->image_bytes) plan->sum_bytes = plan->image_bytes;
  return NULL;
}
