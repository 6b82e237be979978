#include "pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One channel of x in every image. */
struct source {
  const struct layer *layer;
  const struct plan *plan;
  const float *x;
  int64_t channel;
  float *scratch; /* for one image, where x is in lanes */
};

/* Rows one after the other, and where reading may go on to. */
struct image {
  const float *pixels, *end;
  int64_t height, width;
};

static void separate_image(const struct source *source, int64_t n) {
  const struct plan *plan = source->plan;
  const struct form *form = &plan->layout.x;
  const char *const channel =
      (const char *)source->x + (n * source->layer->in_channels + source->channel) * form->pitch;
  struct separate_job job = {.step = VECTOR_BYTES, .columns = plan->width, .low = -INFINITY, .high = INFINITY};
  for (int64_t r = 0; r < form->group_rows; r++) {
    for (int l = 0; l < LANES_PER_VECTOR; l++) {
      const int64_t y = l * form->group_rows + r;
      job.rows[l] = y < plan->height ? source->scratch + y * plan->width : NULL;
    }
    job.input = channel + (form->top + r) * form->row_bytes + form->left * VECTOR_BYTES;
    source->layer->isa->separate(&job);
  }
}

/* The pixels that a strided 1x1 kernel reads; output and input may be the same. */
static void subsample(const struct layer *layer, const struct plan *plan, const float *pixels, float *output) {
  const int64_t stride = layer->stride[1];
  for (int64_t y = 0; y < plan->out_height; y++) {
    const float *const row = pixels + y * layer->stride[0] * plan->width;
    for (int64_t x = 0; x < plan->out_width; x++) output[y * plan->out_width + x] = row[x * stride];
  }
}

static struct image find_image(const struct source *source, int64_t n) {
  const struct plan *plan = source->plan;
  const int64_t pixels = plan->height * plan->width, channels = source->layer->in_channels;
  struct image image = {source->x + (n * channels + source->channel) * pixels,
                        source->x + plan->batch * channels * pixels, plan->height, plan->width};
  if (in_lanes(&plan->layout.x)) {
    separate_image(source, n);
    image.pixels = source->scratch;
    image.end = source->scratch + pixels;
  }
  if (plan->subsampled) {
    subsample(source->layer, plan, image.pixels, source->scratch);
    image = (struct image){source->scratch, source->scratch + pixels, plan->out_height, plan->out_width};
  }
  return image;
}

/* From lanes of other groups, or of as many rows as a stride makes of ours. */
static void regroup_lanes(const struct source *source, int64_t n, char *output) {
  const struct layer *layer = source->layer;
  const struct plan *plan = source->plan;
  const struct form *form = &plan->layout.x;
  const int64_t row_step = plan->subsampled ? layer->stride[0] : 1;
  struct regroup_job job = {
      .channel = (const char *)source->x + (n * layer->in_channels + source->channel) * form->pitch +
                 form->top * form->row_bytes + form->left * VECTOR_BYTES,
      .group_rows = form->group_rows,
      .row_bytes = form->row_bytes,
      .height = plan->height,
      .width = plan->width,
      .distance = plan->group_rows * layer->stride[0],
      .left = layer->pad[1],
      .step = plan->subsampled ? layer->stride[1] : 1,
      .columns = plan->packed_columns,
      .stride = plan->column_step,
      .phase = plan->phase,
  };
  for (int64_t r = 0; r < plan->packed_rows; r++) {
    job.first = r * row_step - layer->pad[0];
    job.output = output + r * plan->row_bytes;
    layer->isa->regroup(&job);
  }
}

/* Interleave the eight groups of image rows, packed row by packed row. */
static void pack_lanes(const struct source *source, int64_t n, char *output) {
  const struct layer *layer = source->layer;
  const struct plan *plan = source->plan;
  const struct image image = find_image(source, n);
  struct interleave_job job = {
      .end = image.end,
      .width = image.width,
      .left = layer->pad[1],
      .columns = plan->packed_columns,
      .stride = plan->column_step,
      .phase = plan->phase,
  };
  for (int64_t r = 0; r < plan->packed_rows; r++) {
    for (int l = 0; l < LANES_PER_VECTOR; l++) {
      const int64_t y = l * plan->group_rows * plan->row_step + r - layer->pad[0];
      job.rows[l] = y >= 0 && y < image.height ? image.pixels + y * image.width : NULL;
    }
    job.output = output + r * plan->row_bytes;
    layer->isa->interleave(&job);
  }
}

/* One output row's worth of one tap: image row `y` from column `x` on, zeros outside. */
static void pack_row(const struct layer *layer, const struct plan *plan, const float *image, int64_t y, int64_t x,
                     float *output) {
  if (y < 0 || y >= plan->height) {
    memset(output, 0, (size_t)plan->out_width * sizeof *output);
    return;
  }
  const float *const row = image + y * plan->width;
  const int64_t stride = layer->stride[1];
  int64_t i = 0;
  for (; i < plan->out_width && x + i * stride < 0; i++) output[i] = 0.0f;
  int64_t end = x < plan->width ? (plan->width - x + stride - 1) / stride : 0;
  if (end > plan->out_width) end = plan->out_width;
  if (stride == 1 && end > i) {
    memcpy(output + i, row + x + i, (size_t)(end - i) * sizeof *output);
    i = end;
  }
  for (; i < end; i++) output[i] = row[x + i * stride];
  for (; i < plan->out_width; i++) output[i] = 0.0f;
}

static void pack_picked(const struct layer *layer, const struct plan *plan, const float *image, int64_t filled,
                        float *output) {
  const int64_t pixels = plan->height * plan->width, out_pixels = plan->out_height * plan->out_width;
  if (plan->plane_rows || filled == out_pixels) {
    layer->isa->pick(image, pixels, plan->picks, plan->copied, output);
    return;
  }
  for (int64_t tap = 0; tap < layer->taps; tap++)
    layer->isa->pick(image, pixels, plan->picks + tap * out_pixels, out_pixels, output + tap * filled);
}

static void pack_columns(const struct source *source, int64_t first, int64_t count, float *output) {
  const struct layer *layer = source->layer;
  const struct plan *plan = source->plan;
  const int64_t pixels = plan->height * plan->width, out_pixels = plan->out_height * plan->out_width;
  const int64_t filled = plan_filled(plan);
  const bool whole = layer->taps == 1 && out_pixels == pixels && layer->stride[0] == 1 && layer->stride[1] == 1 &&
                     layer->pad[0] == 0 && layer->pad[1] == 0;
  if (plan->plane_rows) {
    pack_picked(layer, plan, find_image(source, first).pixels, filled, output);
    /* What the last rows' vectors read behind them. */
    memset(output + plan->copied, 0, (size_t)(filled - plan->positions) * sizeof *output);
    return;
  }
  if (plan->picks) {
    for (int64_t n = 0; n < count; n++) {
      pack_picked(layer, plan, find_image(source, first + n).pixels, filled, output + n * out_pixels);
    }
    for (int64_t tap = 0; filled > plan->positions && tap < layer->taps; tap++)
      memset(output + tap * filled + plan->positions, 0, (size_t)(filled - plan->positions) * sizeof *output);
    return;
  }
  for (int64_t n = 0; n < count; n++) {
    const float *const image = find_image(source, first + n).pixels;
    for (int64_t tap = 0; tap < layer->taps; tap++) {
      const int64_t dy = tap / layer->kernel[1] * layer->dilation[0] - layer->pad[0];
      const int64_t dx = tap % layer->kernel[1] * layer->dilation[1] - layer->pad[1];
      float *const place = output + tap * filled + n * out_pixels;
      if (whole) {
        memcpy(place, image, (size_t)pixels * sizeof *place);
        continue;
      }
      for (int64_t y = 0; y < plan->out_height; y++)
        pack_row(layer, plan, image, y * layer->stride[0] + dy, dx, place + y * plan->out_width);
    }
  }
  for (int64_t tap = 0; tap < layer->taps; tap++)
    memset(output + tap * filled + plan->positions, 0, (size_t)(filled - plan->positions) * sizeof *output);
}

enum {
  BESIDE = LANES_PER_VECTOR, /* slices reach so far beside an image */
  TOGETHER = 16,             /* channels sliced at once: few enough to stay close */
  ROOM = TOGETHER * (64 + 2 * BESIDE)
};

/* Some channels in slices, from a copy where nothing may be read beside them. */
static void pack_sliced(struct source source, int64_t n, int64_t from, int64_t to, char *output) {
  const struct plan *plan = source.plan;
  const struct isa *isa = source.layer->isa;
  const int64_t pixels = plan->height * plan->width, space = pixels + 2 * BESIDE;
  const int64_t most = space < ROOM / TOGETHER ? TOGETHER : space < ROOM ? ROOM / space : 1;
  float room[ROOM > PICKED + 2 * BESIDE ? ROOM : PICKED + 2 * BESIDE];
  struct slice_job job = {
      .slices = plan->slices, .count = plan->slice_count, .half = plan->half_slices, .pitch = plan->pitch};
  for (int64_t c = from; c < to; c += job.channels) {
    job.channels = to - c < most ? to - c : most;
    job.output = output + c * plan->pitch;
    source.channel = c;
    const struct image image = find_image(&source, n);
    job.pixels = image.pixels;
    job.distance = pixels;
    const float *const end = image.pixels + job.channels * pixels;
    const bool copied = in_lanes(&plan->layout.x) || image.pixels - source.x < BESIDE || image.end - end < BESIDE;
    if (copied || plan->halved) {
      for (int64_t i = 0; i < job.channels; i++) {
        float *const place = room + i * space + BESIDE;
        source.channel = c + i;
        const float *const found = find_image(&source, n).pixels;
        memset(place - BESIDE, 0, BESIDE * sizeof *place);
        memset(place + pixels, 0, BESIDE * sizeof *place);
        if (plan->halved)
          isa->halve(found, pixels, place);
        else
          memcpy(place, found, (size_t)pixels * sizeof *place);
      }
      job.pixels = room + BESIDE;
      job.distance = space;
    }
    isa->slice(&job);
  }
}

void pack_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t image, int64_t channel,
                  char *scratch, char *output) {
  const struct source source = {layer, plan, x, channel, (float *)scratch};
  if (plan->method >= LANES && in_lanes(&plan->layout.x))
    regroup_lanes(&source, image, output);
  else if (plan->method >= LANES)
    pack_lanes(&source, image, output);
  else
    pack_columns(&source, image, plan->batch / plan->images, (float *)output);
}

void pack_channels(const struct layer *layer, const struct plan *plan, const float *x, int64_t image, int64_t from,
                   int64_t to, char *scratch, char *packed) {
  if (plan->slices)
    pack_sliced((struct source){layer, plan, x, from, (float *)scratch}, image, from, to, packed);
  else
    for (int64_t c = from; c < to; c++) pack_channel(layer, plan, x, image, c, scratch, packed + c * plan->pitch);
}

const float *pack_plain(const struct layer *layer, const struct plan *plan, const float *x, int64_t image,
                        int64_t channel, float *copy) {
  const struct source source = {layer, plan, x, channel, copy};
  return find_image(&source, image).pixels;
}

void pack_residual(const struct layer *layer, const struct plan *plan, const float *residual, int64_t channel,
                   char *output) {
  const struct form *form = &plan->layout.y;
  const int64_t pixels = plan->out_height * plan->out_width;
  const float *const image = residual + channel * pixels;
  struct interleave_job job = {
      .end = residual + plan->batch * layer->out_channels * pixels,
      .width = plan->out_width,
      .columns = plan->out_width,
      .stride = 1,
      .phase = plan->out_width,
  };
  for (int64_t r = 0; r < form->group_rows; r++) {
    for (int l = 0; l < LANES_PER_VECTOR; l++) {
      const int64_t y = l * form->group_rows + r;
      job.rows[l] = y < plan->out_height ? image + y * plan->out_width : NULL;
    }
    job.output = output + channel * form->pitch + (form->top + r) * form->row_bytes + form->left * VECTOR_BYTES;
    layer->isa->interleave(&job);
  }
}

void pack_inputs(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, char *packed) {
  const int64_t filled = plan_filled(plan);
  int64_t end = channel + LANES_PER_VECTOR;
  if (end > layer->in_channels) end = layer->in_channels;
  for (int64_t m = 0; m < plan->positions; m++)
    for (int64_t c = channel; c < end; c++)
      ((float *)(packed + c * plan->pitch))[m] = x[m * layer->in_channels + c];
  for (int64_t c = channel; c < end; c++)
    memset((float *)(packed + c * plan->pitch) + plan->positions, 0,
           (size_t)(filled - plan->positions) * sizeof(float));
}
