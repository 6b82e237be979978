#include "run.h"

#include "pack.h"
#include "unpack.h"
#include "window.h"

/* One pass: the copy and the tiles of one image, or of the whole batch where positions span it. */
struct pass {
  const struct layer *layer;
  const struct plan *plan;
  const float *x, *residual;
  float *y;
  char *packed;
  struct workspace *workspace;
  const struct threads *threads;
  pthread_t caller;
  int64_t image;
  int64_t chunks; /* ranges of output channels that are tasks of their own */
  struct copies *copies; /* where tasks make their own copies of x, or NULL */
};

/* Copies of x, by bits: in use by a task, and complete. Each thread finds or makes one. */
struct copies {
  atomic_uint used, made;
};

static void watch(const struct pass *pass) {
  if (!pthread_equal(pthread_self(), pass->caller))
    atomic_store_explicit(pass->threads->several, true, memory_order_relaxed);
}

static char *slot_memory(const struct pass *pass, int slot) {
  return slot < 0 ? NULL : pass->workspace->sums + (size_t)slot * pass->workspace->sum_bytes;
}

static void pack_task(const struct pass *pass, int64_t i, char *scratch) {
  if (pass->layer->operation == LINEAR)
    pack_inputs(pass->layer, pass->plan, pass->x, i * LANES_PER_VECTOR, pass->packed);
  else
    pack_channel(pass->layer, pass->plan, pass->x, pass->image, i, scratch, pass->packed + i * pass->plan->pitch);
}

/* A copy of x that no other task uses, a complete one where there is one: there are as many as tasks. */
static unsigned take_copy(const struct pass *pass) {
  unsigned used = atomic_load(&pass->copies->used), free_bits, bit;
  do {
    free_bits = ~used & atomic_load(&pass->copies->made);
    if (!free_bits) free_bits = ~used;
    bit = free_bits & -free_bits;
  } while (!atomic_compare_exchange_weak(&pass->copies->used, &used, used | bit));
  return bit;
}

/* What is added goes where the sums will, in lanes. */
static void residual_task(const struct pass *pass, int64_t i, char *scratch) {
  (void)scratch;
  pack_residual(pass->layer, pass->plan, pass->residual, i, (char *)pass->y);
}

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

/* All blocks of one tile, for the chunks `from` to `to` - 1 of output channels. Sums that are not complete stay close
   together, and at last go where they belong. */
static void run_tile(const struct pass *pass, const struct tile *tile, int64_t image, int64_t from, int64_t to) {
  const struct layer *layer = pass->layer;
  const struct plan *plan = pass->plan;
  struct tile_job last = {.low = layer->low, .high = layer->high, .finish = true};
  const bool direct = target(pass, tile, image, &last), finish = direct || last.residual;
  if (direct) last.activation = layer_activation(layer); /* otherwise `unpack_tile` does it */
  last.tile_rows = tile->rows;
  last.tile_columns = tile->columns;
  last.far = layer->nonzeros > FAR_TAPS;
  const int slot = direct && plan->blocks == 1 ? -1 : workspace_slot(pass->workspace);
  struct tile_job job = {.output_row = tile->columns * VECTOR_BYTES, .far = last.far};
  job.output_pitch = plan->narrow ? VECTOR_BYTES / 2 : tile->rows * job.output_row;
  job.output = slot_memory(pass, slot);
  last.sums = job.sums = job.output;
  last.sum_pitch = job.sum_pitch = job.output_pitch;
  if (!direct) last.output = job.output, last.output_pitch = job.output_pitch, last.output_row = job.output_row;
  const char *input = pass->packed;
  if (plan->method == DIRECT) input = (const char *)(pass->x + image * layer->in_channels * plan->positions);
  if (plan->layout.direct) input = (const char *)pass->x + image * layer->in_channels * plan->pitch;
  const struct isa *isa = layer->isa;
  const tile_function *functions = tile->rows == 2 ? isa->pair : layer->taps == 1 ? isa->pointwise : isa->single;
  const tile_function function = plan->narrow ? isa->narrow : functions[tile->columns];
  for (int64_t block = 0; block < plan->blocks; block++)
    for (int64_t chunk = from; chunk < to; chunk++) {
      const struct part *part = &plan->parts[block * plan->chunks + chunk];
      struct tile_job *const now = finish && block == plan->blocks - 1 ? &last : &job;
      now->input = input + block * plan->block_channels * plan->pitch + tile->input;
      now->input_pitch = plan->row_step * plan->row_bytes;
      now->taps = plan->taps + part->first_tap;
      now->rows = plan->rows + part->first_row;
      now->row_count = part->row_count;
      now->bias = block == 0 ? layer->bias : NULL;
      function(now);
    }
  if (!direct)
    unpack_tile(layer, plan, tile, image, layer->out_channels * from / plan->chunks,
                layer->out_channels * to / plan->chunks, job.output, job.output_pitch,
                last.residual ? NULL : pass->residual, pass->y);
  if (slot >= 0) workspace_slot_free(pass->workspace, slot);
}

static void borders(const struct pass *pass, int64_t from, int64_t to) {
  const struct plan *plan = pass->plan;
  for (int64_t channel = from; channel < to; channel++)
    pass->layer->isa->border(&(struct border_job){
        .channel = (char *)pass->y + channel * plan->layout.y.pitch,
        .form = &plan->layout.y,
        .height = plan->out_height,
        .width = plan->out_width,
    });
}

static void border_task(const struct pass *pass, int64_t i, char *scratch) {
  (void)scratch;
  borders(pass, i, i + 1);
}

/* Where one tile is the whole image its channels are complete with it. */
static bool borders_with_tiles(const struct pass *pass) {
  return pass->plan->tile_count == 1 && has_border(&pass->plan->layout.y, pass->plan->out_height);
}

static void tile_task(void *data, size_t i) {
  const struct pass *pass = data;
  const struct plan *plan = pass->plan;
  watch(pass);
  const int64_t chunk = (int64_t)i % pass->chunks, rest = (int64_t)i / pass->chunks;
  const struct tile *tile = &plan->tiles[rest % plan->tile_count];
  const int64_t image = pass->image + rest / plan->tile_count;
  const int64_t from = pass->chunks == 1 ? 0 : chunk, to = pass->chunks == 1 ? plan->chunks : chunk + 1;
  if (pass->copies) {
    const unsigned bit = take_copy(pass);
    struct pass own = *pass;
    own.packed += __builtin_ctz(bit) * plan->copy_bytes;
    const int slot = plan->image_bytes ? workspace_slot(pass->workspace) : -1;
    if (!(atomic_load(&pass->copies->made) & bit))
      for (int64_t c = 0; c < pass->layer->in_channels; c++) pack_task(&own, c, slot_memory(pass, slot));
    if (slot >= 0) workspace_slot_free(pass->workspace, slot);
    atomic_fetch_or(&pass->copies->made, bit);
    run_tile(&own, tile, image, from, to);
    atomic_fetch_and(&pass->copies->used, ~bit);
  } else {
    run_tile(pass, tile, image, from, to);
  }
  if (!borders_with_tiles(pass)) return;
  const int64_t channels = pass->layer->out_channels, first = image * channels;
  borders(pass, first + channels * from / plan->chunks, first + channels * to / plan->chunks);
}

enum { DOT_CHANNELS = 32 }; /* output channels of one task */

static void dot_task(const struct pass *pass, int64_t i, char *scratch) {
  const struct layer *layer = pass->layer;
  (void)scratch;
  int64_t end = (i + 1) * DOT_CHANNELS;
  if (end > layer->out_channels) end = layer->out_channels;
  for (int64_t k = i * DOT_CHANNELS; k < end; k++) {
    const int64_t first = layer->start[k], count = layer->start[k + 1] - first;
    const float sum = layer->isa->dot(layer->value + first, layer->column + first, count, pass->x);
    pass->y[k] = finish_value(layer, layer->bias[k] + sum, pass->residual ? pass->residual + k : NULL);
  }
  float *const first = pass->y + i * DOT_CHANNELS;
  if (layer_activation(layer)) layer->isa->activate(&layer->activation, first, pass->y + end - first, first);
}

static void window_task(const struct pass *pass, int64_t i, char *scratch) {
  window_channel(pass->layer, pass->plan, pass->x, pass->residual, i, scratch, pass->y);
}

/* Light tasks are handed out in groups of at least so many bytes read and written. */
enum { GROUP_BYTES = 32768 };

typedef void (*light_task)(const struct pass *, int64_t i, char *scratch);

struct group {
  const struct pass *pass;
  light_task task;
  int64_t count, groups;
};

static void group_task(void *data, size_t i) {
  const struct group *group = data;
  const struct plan *plan = group->pass->plan;
  watch(group->pass);
  const bool needed = plan->image_bytes || (plan->method == WINDOW && plan->sum_bytes);
  const int slot = needed ? workspace_slot(group->pass->workspace) : -1;
  const int64_t end = group->count * ((int64_t)i + 1) / group->groups;
  for (int64_t j = group->count * (int64_t)i / group->groups; j < end; j++)
    group->task(group->pass, j, slot_memory(group->pass, slot));
  if (slot >= 0) workspace_slot_free(group->pass->workspace, slot);
}

/* All of them, each of which reads and writes about so many bytes. */
static void *each(const struct pass *pass, light_task task, int64_t count, int64_t bytes) {
  struct group group = {pass, task, count, count};
  const int64_t most = bytes < GROUP_BYTES ? count * bytes / GROUP_BYTES : count;
  if (most < count) group.groups = most > 1 ? most : 1;
  return pass->threads->each(pass->threads->context, group_task, (size_t)group.groups, &group);
}

static void *each_tile(struct pass *pass, int64_t count) {
  return pass->threads->each(pass->threads->context, tile_task, (size_t)count, pass);
}

void *layer_run(const struct layer *layer, const struct plan *plan, const float *x, const float *residual, float *y,
                char *packed, struct workspace *workspace, const struct threads *threads) {
  struct pass pass = {layer, plan, x, residual, y, packed, workspace, threads, pthread_self(), 0, 1, NULL};
  struct copies copies;
  const int64_t channels = plan->batch * layer->out_channels;
  if (plan->method == DOT)
    return each(&pass, dot_task, (layer->out_channels + DOT_CHANNELS - 1) / DOT_CHANNELS,
                layer->nonzeros * DOT_CHANNELS / layer->out_channels * (int64_t)sizeof(struct tap));
  const int64_t pixel = (int64_t)sizeof(float), in_bytes = plan->height * plan->width * pixel;
  const int64_t out_bytes = plan->out_height * plan->out_width * pixel;
  if (plan->method == WINDOW) return each(&pass, window_task, channels, in_bytes + out_bytes * layer->taps);
  if (atomic_load_explicit(threads->several, memory_order_relaxed)) pass.chunks = plan->chunks;
  void *error = NULL;
  if (residual && in_lanes(&plan->layout.y) && !in_lanes(&plan->layout.residual)) {
    if ((error = each(&pass, residual_task, channels, 2 * out_bytes))) return error;
    pass.residual = y;
  }
  if (plan->method == DIRECT || plan->layout.direct) {
    error = each_tile(&pass, plan->images * plan->tile_count * pass.chunks);
  } else {
    for (pass.image = 0; pass.image < plan->images && !error; pass.image++) {
      if (plan->copies > 1) {
        atomic_init(&copies.used, 0);
        atomic_init(&copies.made, 0);
        pass.copies = &copies;
        error = each_tile(&pass, pass.chunks);
        continue;
      }
      const int64_t inputs = layer->operation == LINEAR
                                 ? (layer->in_channels + LANES_PER_VECTOR - 1) / LANES_PER_VECTOR
                                 : layer->in_channels;
      error = each(&pass, pack_task, inputs, in_bytes + plan->pitch);
      if (!error) error = each_tile(&pass, plan->tile_count * pass.chunks);
    }
  }
  if (error || !has_border(&plan->layout.y, plan->out_height) || borders_with_tiles(&pass)) return error;
  return each(&pass, border_task, channels, plan->layout.y.pitch);
}
