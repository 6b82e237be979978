#include "run.h"

#include "pack.h"
#include "tile.h"
#include "unpack.h"
#include "window.h"

static void pack_task(const struct pass *pass, int64_t i, char *scratch) {
  if (pass->layer->operation == LINEAR)
    pack_inputs(pass->layer, pass->plan, pass->x, i * LANES_PER_VECTOR, pass->packed);
  else
    pack_channels(pass->layer, pass->plan, pass->x, pass->image, i, i + 1, scratch, pass->packed);
}

/* What is added goes where the sums will, in lanes. */
static void residual_task(const struct pass *pass, int64_t i, char *scratch) {
  (void)scratch;
  pack_residual(pass->layer, pass->plan, pass->residual, i, (char *)pass->y);
}

static void border_task(const struct pass *pass, int64_t i, char *scratch) {
  (void)scratch;
  tile_borders(pass, i, i + 1);
}

/* Where one tile is the whole image its channels are complete with it. */
static bool borders_with_tiles(const struct pass *pass) {
  return pass->plan->tile_count == 1 && has_border(&pass->plan->layout.y, pass->plan->out_height);
}

static void tile_task(void *data, size_t i) {
  const struct pass *pass = data;
  const struct plan *plan = pass->plan;
  watch(pass);
  const int64_t chunk = (int64_t)i % plan->chunks, rest = (int64_t)i / plan->chunks;
  const struct tile *tile = &plan->tiles[rest % plan->tile_count];
  const int64_t image = pass->image + rest / plan->tile_count;
  tile_run(pass, tile, image, chunk);
  if (!borders_with_tiles(pass)) return;
  const int64_t channels = pass->layer->out_channels, first = image * channels;
  tile_borders(pass, first + channels * chunk / plan->chunks, first + channels * (chunk + 1) / plan->chunks);
}

/* A group of channels of one image in a slot, where the next layer's windows find it. */
static void group_of_channels_task(void *data, size_t i) {
  const struct pass *pass = data;
  const struct plan *plan = pass->plan;
  const struct call *next = pass->next;
  watch(pass);
  const int slot = workspace_slot(pass->workspace);
  char *const sums = slot_memory(pass, slot), *const memory = sums + plan->sum_bytes;
  char *const scratch = memory + plan->layout.group_channels * plan->layout.y.pitch;
  const int64_t channels = pass->layer->out_channels, before = pass->image * channels;
  const int64_t from = before + channels * (int64_t)i / plan->chunks;
  const int64_t to = before + channels * ((int64_t)i + 1) / plan->chunks;
  struct pass own = *pass;
  own.sums = sums;
  own.y = (float *)((uintptr_t)memory - (uintptr_t)(from * plan->layout.y.pitch)); /* where channel 0 would be */
  for (int64_t t = 0; t < plan->tile_count; t++)
    tile_run(&own, &plan->tiles[t], pass->image, (int64_t)i);
  if (has_border(&plan->layout.y, plan->out_height)) tile_borders(&own, from, to);
  window_channels(next->layer, next->plan, own.y, NULL, from, to, scratch, next->y);
  workspace_slot_free(pass->workspace, slot);
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

/* Channels of one task. */
static int64_t window_step(const struct plan *plan) { return plan->tiny ? LANES_PER_VECTOR : 1; }

static void window_task(const struct pass *pass, int64_t i, char *scratch) {
  const int64_t channels = pass->plan->batch * pass->layer->out_channels, step = window_step(pass->plan);
  const int64_t from = i * step, to = channels - from < step ? channels : from + step;
  window_channels(pass->layer, pass->plan, pass->x, pass->residual, from, to, scratch, pass->y);
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
  if (most < count) group.groups = most > 1 ? (most + 1) / 2 * 2 : 1; /* even: two threads share them */
  return pass->threads->each(pass->threads->context, group_task, (size_t)group.groups, &group);
}

/* The tiles of some images from the pass's on. */
static void *each_tile(struct pass *pass, int64_t images) {
  const struct plan *plan = pass->plan;
  if (pass->next) return pass->threads->each(pass->threads->context, group_of_channels_task, (size_t)plan->chunks, pass);
  return pass->threads->each(pass->threads->context, tile_task, (size_t)(images * plan->tile_count * plan->chunks), pass);
}

int helpers_threads(struct helpers *helpers) {
  int threads = 1;
  for (int i = 0; i < HELPERS; i++) threads += atomic_load_explicit(&helpers->seen[i], memory_order_relaxed) != 0;
  return threads < 3 ? threads : 4;
}

void *layer_run(const struct call *call, const struct call *before, const struct call *next, char *packed,
                struct workspace *workspace, const struct threads *threads) {
  const struct layer *const layer = call->layer;
  const struct plan *const plan = call->plan;
  struct pass pass = {
      .layer = layer,
      .plan = plan,
      .x = call->x,
      .residual = call->residual,
      .y = call->y,
      .packed = packed,
      .workspace = workspace,
      .threads = threads,
      .caller = pthread_self(),
      .before = before,
      .next = next,
  };
  const int64_t channels = plan->batch * layer->out_channels;
  if (plan->method == DOT)
    return each(&pass, dot_task, (layer->out_channels + DOT_CHANNELS - 1) / DOT_CHANNELS,
                layer->nonzeros * DOT_CHANNELS / layer->out_channels * (int64_t)sizeof(struct tap));
  const int64_t pixel = (int64_t)sizeof(float), in_bytes = plan->height * plan->width * pixel;
  const int64_t out_bytes = plan->out_height * plan->out_width * pixel;
  if (plan->method == WINDOW) {
    const int64_t step = window_step(plan);
    return each(&pass, window_task, (channels + step - 1) / step, (in_bytes + out_bytes * layer->taps) * step);
  }
  void *error = NULL;
  if (pass.residual && in_lanes(&plan->layout.y) && !in_lanes(&plan->layout.residual)) {
    if ((error = each(&pass, residual_task, channels, 2 * out_bytes))) return error;
    pass.residual = pass.y;
  }
  const bool copied = plan->method != DIRECT && !plan->layout.direct && !plan->own_bytes;
  if (!copied && !next) {
    error = each_tile(&pass, plan->images);
  } else {
    for (pass.image = 0; pass.image < plan->images && !error; pass.image++) {
      const int64_t inputs = layer->operation == LINEAR
                                 ? (layer->in_channels + LANES_PER_VECTOR - 1) / LANES_PER_VECTOR
                                 : layer->in_channels;
      if (copied) error = each(&pass, pack_task, inputs, in_bytes + plan->pitch);
      if (!error) error = each_tile(&pass, 1);
    }
  }
  if (error || next || !has_border(&plan->layout.y, plan->out_height) || borders_with_tiles(&pass)) return error;
  return each(&pass, border_task, channels, plan->layout.y.pitch);
}
