#include "unpack.h"

static void unpack_lanes(const struct layer *layer, const struct plan *plan, const struct tile *tile, int64_t image,
                         int64_t channel, const char *sums, const float *residual, float *y) {
  const int64_t base = (image * layer->out_channels + channel) * plan->out_height;
  const int64_t outputs = plan->batch * layer->out_channels * plan->out_height * plan->out_width;
  struct separate_job job = {
      .step = VECTOR_BYTES,
      /* Where y takes the residual's place, other threads write what lies behind a row. */
      .residual_end = residual == y ? residual : residual ? residual + outputs : NULL,
      .columns = tile->columns,
      .low = layer->low,
      .high = layer->high,
      .activation = layer_activation(layer),
  };
  for (int row = 0; row < tile->rows; row++) {
    for (int l = 0; l < LANES_PER_VECTOR; l++) {
      const int64_t line = l * plan->group_rows + tile->position + row;
      const int64_t at = (base + line) * plan->out_width + tile->column;
      job.rows[l] = line < plan->out_height ? y + at : NULL;
      job.residual[l] = residual && job.rows[l] ? residual + at : NULL;
    }
    job.input = sums + row * tile->columns * VECTOR_BYTES;
    layer->isa->separate(&job);
  }
}

static void finish_run(const struct layer *layer, const float *values, const float *residual, int64_t count, float *y) {
  const float low = layer->low, high = layer->high;
  for (int64_t i = 0; i < count; i++) {
    float value = residual ? values[i] + residual[i] : values[i];
    value = value < low ? low : value;
    y[i] = value > high ? high : value;
  }
  if (layer_activation(layer)) layer->isa->activate(&layer->activation, y, count, y);
}

/* Eight rows of y at once: their channels lie side by side. */
static void unpack_rows(const struct layer *layer, const struct plan *plan, const struct tile *tile, int64_t from,
                        int64_t to, const char *sums, int64_t pitch, const float *residual, float *y) {
  struct separate_job job = {
      .step = pitch,
      .residual_end = residual ? residual + plan->positions * layer->out_channels : NULL,
      .columns = to - from,
      .low = layer->low,
      .high = layer->high,
      .activation = layer_activation(layer),
  };
  for (int column = 0; column < tile->columns; column++) {
    const int64_t first = tile->position + (int64_t)column * LANES_PER_VECTOR;
    for (int l = 0; l < LANES_PER_VECTOR; l++) {
      const int64_t at = (first + l) * layer->out_channels + from;
      job.rows[l] = first + l < plan->positions ? y + at : NULL;
      job.residual[l] = residual && job.rows[l] ? residual + at : NULL;
    }
    job.input = sums + from * pitch + column * VECTOR_BYTES;
    layer->isa->separate(&job);
  }
}

void unpack_channel(const struct layer *layer, const struct plan *plan, const struct tile *tile, int64_t image,
                    int64_t channel, const char *sums, const float *residual, float *y) {
  if (plan->method >= LANES) {
    unpack_lanes(layer, plan, tile, image, channel, sums, residual, y);
    return;
  }
  const float *const values = (const float *)sums;
  const int64_t pixels = plan->out_height * plan->out_width;
  int64_t end = tile->position + (int64_t)tile->columns * LANES_PER_VECTOR;
  if (end > plan->positions) end = plan->positions;
  for (int64_t p = tile->position, i = 0; p < end;) {
    const int64_t n = image + p / pixels, inside = p % pixels;
    const int64_t at = (n * layer->out_channels + channel) * pixels + inside;
    const int64_t run = pixels - inside < end - p ? pixels - inside : end - p;
    finish_run(layer, values + i, residual ? residual + at : NULL, run, y + at);
    i += run;
    p += run;
  }
}

void unpack_tile(const struct layer *layer, const struct plan *plan, const struct tile *tile, int64_t image,
                 int64_t from, int64_t to, const char *sums, int64_t pitch, const float *residual, float *y) {
  if (layer->operation == LINEAR) {
    unpack_rows(layer, plan, tile, from, to, sums, pitch, residual, y);
    return;
  }
  for (int64_t k = from; k < to; k++)
    unpack_channel(layer, plan, tile, image, k, sums + k * pitch, residual, y);
}
