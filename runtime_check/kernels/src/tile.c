#include "tile.h"

#include "pack.h"
#include "unpack.h"

/* Channel 0 of image `image` in lanes, at row and column of a group. */
static char *place(const float *tensor, const struct form *form, int64_t image, int64_t channels, int64_t row,
                   int64_t column) {
  return (char *)tensor + image * channels * form->pitch + (form->top + row) * form->row_bytes +
         (form->left + column) * VECTOR_BYTES;
}

/* Where a tile's channels go at the end, if they can be written as they are. */
static bool target(const struct pass *pass, const struct tile *tile, int64_t image, struct tile_job *job) {
  const struct layer *layer = pass->layer;
  const struct plan *plan = pass->plan;
  const bool placed = in_lanes(&plan->layout.y); /* what is added lies where the sums go */
  const struct form *residual = placed && !in_lanes(&plan->layout.residual) ? &plan->layout.y : &plan->layout.residual;
  if (pass->residual && in_lanes(residual)) {
    job->residual = place(pass->residual, residual, image, layer->out_channels, tile->position, tile->column);
    job->residual_pitch = residual->pitch;
    job->residual_row = residual->row_bytes;
  }
  if (in_lanes(&plan->layout.y)) {
    job->output = place(pass->y, &plan->layout.y, image, layer->out_channels, tile->position, tile->column);
    job->output_pitch = plan->layout.y.pitch;
    job->output_row = plan->layout.y.row_bytes;
    return true;
  }
  const int64_t end = tile->position + (int64_t)tile->columns * LANES_PER_VECTOR;
  if (plan->method == LANES || layer->operation == LINEAR || plan->narrow || end > plan->positions ||
      plan->positions != plan->out_height * plan->out_width)
    return false;
  const int64_t at = image * layer->out_channels * plan->positions + tile->position;
  job->output = (char *)(pass->y + at);
  job->residual = pass->residual ? (const char *)(pass->residual + at) : NULL;
  job->output_pitch = job->residual_pitch = plan->positions * (int64_t)sizeof(float);
  return true;
}

enum { FAR_TAPS = 65536 }; /* of 8 bytes: half of a second-level cache of 1 MB */

/* One block of x for this task alone, which it reads while it is in the first-level cache; `memory` has room for it, and
   for the image that it is made of. Returns where channel 0 would be. */
static const char *copy_block(const struct call *call, int64_t image, int64_t block, char *memory) {
  const struct plan *const plan = call->plan;
  const int64_t first = block * plan->block_channels, left = call->layer->in_channels - first;
  const int64_t end = first + (left < plan->block_channels ? left : plan->block_channels);
  char *const packed = (char *)((uintptr_t)memory - (uintptr_t)(first * plan->pitch));
  pack_channels(call->layer, plan, call->x, image, first, end, memory + plan->own_bytes, packed);
  return packed;
}

enum { PIECES = 16 }; /* of a block's rows: many lines asked for at once would wait for each other */

/* A block's rows, a piece at a time, and between them the memory up to `end`, a piece of it, is asked for: of what the next
   block reads another thread has just written half. */
static void ask_ahead(struct tile_job job, tile_function function, const char *ahead, const char *end) {
  const int64_t rows = job.row_count, step = ((end - ahead) / PIECES + CACHE_LINE) / CACHE_LINE * CACHE_LINE;
  int64_t done = 0;
  for (int piece = 0; piece < PIECES; piece++) {
    const char *const stop = end - ahead < step ? end : ahead + step;
    for (; ahead < stop; ahead += CACHE_LINE) __builtin_prefetch(ahead, 0, 3);
    job.row_count = rows * (piece + 1) / PIECES - done;
    function(&job);
    done += job.row_count;
    for (; job.row_count > 0; job.row_count--) job.taps += (job.rows++)->taps;
  }
}

/* Add what one layer's non-zeros make of one tile to sums that begin with `bias`, or go on where that is NULL; `sum` says
   where sums lie, and `last` where they are at the end. `packed` is the copy of x, or room for a block of it. */
static void run_blocks(const struct call *call, char *packed, const struct tile *tile, int64_t image, int64_t chunk,
                       const float *bias, struct tile_job sum, struct tile_job last) {
  const struct layer *const layer = call->layer;
  const struct plan *const plan = call->plan;
  const char *input = packed;
  if (plan->method == DIRECT) input = (const char *)(call->x + image * layer->in_channels * plan->positions);
  if (plan->layout.direct) input = (const char *)call->x + image * layer->in_channels * plan->pitch;
  const struct isa *isa = layer->isa;
  const tile_function *functions = tile->rows == 2 ? isa->pair : layer->taps == 1 ? isa->pointwise : isa->single;
  const tile_function function = plan->narrow ? isa->narrow : functions[tile->columns];
  const bool asking = plan->layout.direct && plan->chunks > 1 && plan->tile_count == 1; /* among several threads */
  for (int64_t block = 0; block < plan->blocks; block++) {
    if (plan->own_bytes) input = copy_block(call, image, block, packed);
    const struct part *const part = &plan->parts[block * plan->chunks + chunk];
    struct tile_job *const job = block == plan->blocks - 1 ? &last : &sum;
    job->input = input + block * plan->block_channels * plan->pitch + tile->input;
    job->input_pitch = plan->row_step * plan->row_bytes;
    job->taps = plan->taps + part->first_tap;
    job->rows = plan->rows + part->first_row;
    job->row_count = part->row_count;
    job->bias = block == 0 ? bias : NULL;
    job->far = layer->nonzeros > FAR_TAPS;
    const int64_t next = (block + 1) * plan->block_channels, left = layer->in_channels - next;
    if (asking && left > 0) {
      const int64_t channels = left < plan->block_channels ? left : plan->block_channels;
      ask_ahead(*job, function, input + next * plan->pitch, input + (next + channels) * plan->pitch);
    } else {
      function(job);
    }
  }
}

void tile_run(const struct pass *pass, const struct tile *tile, int64_t image, int64_t chunk) {
  const struct layer *layer = pass->layer;
  const struct plan *plan = pass->plan;
  const struct call *const before = pass->before;
  struct tile_job last = {.low = layer->low, .high = layer->high, .finish = true};
  const bool direct = target(pass, tile, image, &last), finish = direct || last.residual;
  if (direct) last.activation = layer_activation(layer); /* otherwise `unpack_tile` does it */
  last.tile_rows = tile->rows;
  last.tile_columns = tile->columns;
  const bool summed = !direct || plan->blocks > 1 || before || plan->own_bytes;
  const int slot = summed && !pass->sums ? workspace_slot(pass->workspace) : -1;
  struct tile_job sum = {.output_row = tile->columns * VECTOR_BYTES};
  sum.output_pitch = plan->narrow ? VECTOR_BYTES / 2 : tile->rows * sum.output_row;
  char *const memory = pass->sums ? pass->sums : slot_memory(pass, slot);
  sum.output = plan->own_bytes ? memory + plan->own_bytes + plan->image_bytes : memory;
  last.sums = sum.sums = sum.output;
  last.sum_pitch = sum.sum_pitch = sum.output_pitch;
  if (!direct) last.output = sum.output, last.output_pitch = sum.output_pitch, last.output_row = sum.output_row;
  if (before) {
    const struct tile *same = &before->plan->tiles[tile - plan->tiles];
    run_blocks(before, NULL, same, image, chunk, plan->start, sum, sum);
  }
  const struct call call = {.layer = layer, .plan = plan, .x = pass->x};
  run_blocks(&call, plan->own_bytes ? memory : pass->packed, tile, image, chunk, before ? NULL : layer->bias, sum,
             finish ? last : sum);
  if (!direct)
    unpack_tile(layer, plan, tile, image, layer->out_channels * chunk / plan->chunks,
                layer->out_channels * (chunk + 1) / plan->chunks, sum.output, sum.output_pitch,
                last.residual ? NULL : pass->residual, pass->y);
  if (slot >= 0) workspace_slot_free(pass->workspace, slot);
}

void tile_borders(const struct pass *pass, int64_t from, int64_t to) {
  const struct plan *plan = pass->plan;
  for (int64_t channel = from; channel < to; channel++)
    pass->layer->isa->border(&(struct border_job){
        .channel = (char *)pass->y + channel * plan->layout.y.pitch,
        .form = &plan->layout.y,
        .height = plan->out_height,
        .width = plan->out_width,
    });
}
