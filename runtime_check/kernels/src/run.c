#include "run.h"

#include "pack.h"
#include "unpack.h"

/* One pass: the copy and the tiles of one image, or of the whole batch where positions span it. */
struct pass {
  const struct layer *layer;
  const struct plan *plan;
  const float *x, *residual;
  float *y;
  struct workspace *workspace;
  const struct threads *threads;
  pthread_t caller;
  int64_t image;
  int64_t chunks; /* ranges of output channels that are tasks of their own */
};

static void watch(const struct pass *pass) {
  if (!pthread_equal(pthread_self(), pass->caller))
    atomic_store_explicit(pass->threads->several, true, memory_order_relaxed);
}

static void pack_task(void *data, size_t i) {
  const struct pass *pass = data;
  watch(pass);
  if (pass->layer->linear)
    pack_inputs(pass->layer, pass->plan, pass->x, (int64_t)i * LANES_PER_VECTOR, pass->workspace->memory);
  else
    pack_channel(pass->layer, pass->plan, pass->x, pass->image, (int64_t)i, pass->workspace->memory);
}

/* All blocks of one tile, for the chunks `from` to `to` - 1 of output channels. */
static void run_tile(const struct pass *pass, const struct tile *tile, int64_t image, int64_t from, int64_t to) {
  const struct layer *layer = pass->layer;
  const struct plan *plan = pass->plan;
  const int64_t vectors = (int64_t)tile->rows * tile->columns;
  const int64_t end = tile->position + vectors * LANES_PER_VECTOR;
  const bool in_place = plan->method != LANES && !layer->linear && !plan->narrow &&
                        end <= plan->positions && plan->positions == plan->out_height * plan->out_width;
  const int slot = in_place ? -1 : workspace_slot(pass->workspace);
  struct tile_job job = {
      .input_pitch = layer->stride[0] * plan->row_bytes,
      .low = layer->low,
      .high = layer->high,
  };
  const char *input = pass->workspace->memory;
  if (plan->method == DIRECT) input = (const char *)(pass->x + image * layer->in_channels * plan->positions);
  if (in_place) {
    const int64_t at = image * layer->out_channels * plan->positions + tile->position;
    job.output = (char *)(pass->y + at);
    job.output_pitch = plan->positions * (int64_t)sizeof(float);
    job.residual = pass->residual ? (const char *)(pass->residual + at) : NULL;
    job.residual_pitch = job.output_pitch;
  } else {
    job.output = pass->workspace->sums + (size_t)slot * pass->workspace->sum_bytes;
    job.output_pitch = plan->narrow ? VECTOR_BYTES / 2 : vectors * VECTOR_BYTES;
  }
  job.sums = job.output;
  job.sum_pitch = job.output_pitch;
  const tile_function function =
      plan->narrow ? layer->isa->narrow : (tile->rows == 2 ? layer->isa->pair : layer->isa->single)[tile->columns];
  for (int64_t block = 0; block < plan->blocks; block++)
    for (int64_t chunk = from; chunk < to; chunk++) {
      const struct part *part = &plan->parts[block * plan->chunks + chunk];
      job.input = input + block * plan->block_channels * plan->pitch + tile->input;
      job.taps = plan->taps + part->first_tap;
      job.rows = plan->rows + part->first_row;
      job.row_count = part->row_count;
      job.bias = block == 0 ? layer->bias : NULL;
      job.finish = in_place && block == plan->blocks - 1;
      function(&job);
    }
  if (in_place) return;
  for (int64_t k = layer->out_channels * from / plan->chunks; k < layer->out_channels * to / plan->chunks; k++)
    unpack_channel(layer, plan, tile, image, k, job.output + k * job.output_pitch, pass->residual, pass->y);
  workspace_slot_free(pass->workspace, slot);
}

static void tile_task(void *data, size_t i) {
  const struct pass *pass = data;
  const struct plan *plan = pass->plan;
  watch(pass);
  const int64_t chunk = (int64_t)i % pass->chunks, rest = (int64_t)i / pass->chunks;
  const struct tile *tile = &plan->tiles[rest % plan->tile_count];
  const int64_t image = pass->image + rest / plan->tile_count;
  if (pass->chunks == 1)
    run_tile(pass, tile, image, 0, plan->chunks);
  else
    run_tile(pass, tile, image, chunk, chunk + 1);
}

enum { DOT_CHANNELS = 32 }; /* output channels of one task */

static void dot_task(void *data, size_t i) {
  const struct pass *pass = data;
  const struct layer *layer = pass->layer;
  watch(pass);
  int64_t end = ((int64_t)i + 1) * DOT_CHANNELS;
  if (end > layer->out_channels) end = layer->out_channels;
  for (int64_t k = (int64_t)i * DOT_CHANNELS; k < end; k++) {
    const int32_t *const column = layer->column;
    const float *const value = layer->value;
    float sums[4] = {layer->bias[k], 0, 0, 0};
    int64_t j = layer->start[k];
    for (; j + 4 <= layer->start[k + 1]; j += 4)
      for (int s = 0; s < 4; s++) sums[s] += value[j + s] * pass->x[column[j + s]];
    for (; j < layer->start[k + 1]; j++) sums[0] += value[j] * pass->x[column[j]];
    const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    pass->y[k] = finish_value(layer, sum, pass->residual ? pass->residual + k : NULL);
  }
}

static void *each(const struct pass *pass, void (*task)(void *, size_t), int64_t count) {
  return pass->threads->each(pass->threads->context, task, (size_t)count, (void *)pass);
}

void *layer_run(const struct layer *layer, const struct plan *plan, const float *x, const float *residual, float *y,
                struct workspace *workspace, const struct threads *threads) {
  struct pass pass = {layer, plan, x, residual, y, workspace, threads, pthread_self(), 0, 1};
  if (plan->method == DOT) return each(&pass, dot_task, (layer->out_channels + DOT_CHANNELS - 1) / DOT_CHANNELS);
  if (atomic_load_explicit(threads->several, memory_order_relaxed)) pass.chunks = plan->chunks;
  if (plan->method == DIRECT) return each(&pass, tile_task, plan->images * plan->tile_count * pass.chunks);
  for (int64_t image = 0; image < plan->images; image++) {
    pass.image = image;
    const int64_t inputs = layer->linear ? (layer->in_channels + LANES_PER_VECTOR - 1) / LANES_PER_VECTOR
                                         : layer->in_channels;
    void *error = each(&pass, pack_task, inputs);
    if (!error) error = each(&pass, tile_task, plan->tile_count * pass.chunks);
    if (error) return error;
  }
  return NULL;
}
