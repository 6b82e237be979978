#include "schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "forms.h"
#include "plan.h"

enum { MANY_IMAGES = 64 }; /* of a batch */
#ifndef TOGETHER_BYTES /* tests make small groups of small images */
#define TOGETHER_BYTES ((int64_t)3 << 17)   /* of a layer's output that the next layer's windows find in the second-level cache */
#define LEAST_TOGETHER ((int64_t)1 << 19) /* bytes of an output that is made in such groups */
#endif
#define CACHED ((int64_t)16 << 20) /* bytes: a batch whose values together are larger is run image by image */

void schedule_release(const struct chain *chain, struct schedule *schedule) {
  if (!schedule) return;
  for (int i = 0; schedule->plans && i < chain->step_count; i++) plan_release(schedule->plans[i]);
  free(schedule->plans);
  free(schedule->values);
  free(schedule);
}

/* Batch, height and width as a layer counts them, and its output's extent; returns what is wrong, or NULL. */
static const char *resolve(const struct layer *layer, const struct extent *x, int64_t image[3], struct extent *y) {
  *y = *x;
  if (layer->operation == LINEAR) {
    if (x->rank < 1 || x->sizes[x->rank - 1] != layer->in_channels) return "the input has the wrong number of channels";
    image[0] = image[1] = image[2] = 1;
    for (int i = 0; i < x->rank - 1; i++)
      if (__builtin_mul_overflow(image[0], x->sizes[i], &image[0])) return "tensor too large";
    y->sizes[x->rank - 1] = layer->out_channels;
    return NULL;
  }
  if (x->rank != 4) return "the input does not have four axes";
  if (x->sizes[1] != layer->in_channels) return "the input has the wrong number of channels";
  image[0] = x->sizes[0];
  image[1] = x->sizes[2];
  image[2] = x->sizes[3];
  y->sizes[1] = layer->out_channels;
  if (!layer_output(layer, image[1], image[2], &y->sizes[2], &y->sizes[3]))
    return "image smaller than the kernel, or too large";
  return NULL;
}

static const char *find_extents(const struct chain *chain, struct schedule *schedule, int64_t (*images)[3]) {
  for (int i = 0; i < chain->step_count; i++) {
    const struct step *step = &chain->steps[i];
    struct extent *const y = &schedule->values[step->y].extent;
    const char *reason = resolve(step->layer, &schedule->values[step->x].extent, images[i], y);
    if (reason) return reason;
    struct extent added = *y;
    if (step->layer->operation == SCALE) added.sizes[2] = added.sizes[3] = 1;
    if (step->residual >= 0 && !extents_equal(&schedule->values[step->residual].extent, &added))
      return "the two sides of an Add or Mul differ in shape";
  }
  return NULL;
}

/* Images one by one where their values together would not stay in the caches. */
static int64_t count_passes(const struct chain *chain, const struct schedule *schedule, int64_t (*images)[3]) {
  int64_t bytes = 0;
  for (int i = 0; i < chain->step_count; i++) {
    const int64_t *const sizes = schedule->values[chain->steps[i].y].extent.sizes;
    if (chain->steps[i].layer->operation == LINEAR || images[i][0] != images[0][0]) return 1;
    const int64_t batch = images[0][0] < MANY_IMAGES ? images[0][0] : MANY_IMAGES; /* so many are large enough */
    if (bytes < CACHED) bytes += batch * sizes[1] * sizes[2] * sizes[3] * (int64_t)sizeof(float);
  }
  return bytes < CACHED ? 1 : images[0][0];
}

/* Whether only the step after a step uses what it makes. */
static bool used_once(const struct chain *chain, int i) {
  const int y = chain->steps[i].y;
  for (int j = i + 2; j < chain->step_count; j++)
    if (chain->steps[j].x == y || chain->steps[j].residual == y) return false;
  for (int j = 0; j < chain->output_count; j++)
    if (chain->outputs[j] == y) return false;
  return true;
}

/* Whether a step's output is added by the next step, which then goes on with its sums, tile by tile. */
static bool begins_sums(const struct chain *chain, const struct value *values, int i) {
  if (i + 1 == chain->step_count) return false;
  const struct step *const step = &chain->steps[i], *const next = step + 1;
  const struct layer *const layer = step->layer;
  const struct form *const y = &values[next->y].form;
  if (layer->operation != CONVOLUTION || next->layer->operation != CONVOLUTION || step->residual >= 0) return false;
  if (next->residual != step->y || next->x == step->y || !forms_direct(step, values)) return false;
  if (layer->low > -INFINITY || layer->high < INFINITY || layer_activation(layer)) return false;
  if (!in_lanes(y) || values[step->y].form.group_rows != y->group_rows) return false;
  return (layer->taps > 1) == (next->layer->taps > 1) && used_once(chain, i);
}

/* How many channels of a step's output make a group that the next step's windows read while it is close; 0 where the
   output is small, or others read it too. */
static int64_t group_channels(const struct chain *chain, const struct value *values, int i) {
  if (i + 1 == chain->step_count) return 0;
  const struct step *const step = &chain->steps[i], *const next = step + 1;
  const struct value *const y = &values[step->y];
  if (step->layer->operation != CONVOLUTION || step->residual >= 0) return 0;
  if (next->x != step->y || next->residual >= 0) return 0;
  const bool windows = next->layer->operation == DEPTHWISE || next->layer->operation == MAXIMUM;
  if (!windows || !in_lanes(&y->form)) return 0;
  const int64_t channels = step->layer->out_channels;
  if (y->form.pitch > TOGETHER_BYTES / 4 || channels * y->form.pitch < LEAST_TOGETHER || !used_once(chain, i)) return 0;
  const int64_t groups = channels * y->form.pitch / (2 * TOGETHER_BYTES) * 2 + 2; /* even: two threads share them */
  return (channels + groups - 1) / groups;
}

/* What the sums of `next`, which a step begins, begin with. */
static const char *join_biases(const struct step *step, struct plan *next) {
  const int64_t channels = step->layer->out_channels;
  next->start = malloc((size_t)channels * sizeof *next->start);
  if (!next->start) return "out of memory";
  for (int64_t k = 0; k < channels; k++) next->start[k] = step->layer->bias[k] + step[1].layer->bias[k];
  return NULL;
}

/* From the last step to the first: who reads a value in lanes decides about its pitch. */
static const char *make_plans(const struct chain *chain, struct schedule *schedule, int64_t (*images)[3]) {
  struct value *const values = schedule->values;
  for (int i = chain->step_count; i-- > 0;) {
    const struct step *step = &chain->steps[i];
    if (images[i][0] == 0) continue;
    struct form *const x = &values[step->x].form, *const y = &values[step->y].form;
    const struct form plain = {0};
    if (in_lanes(y) && !y->pitch) /* spread over the caches' sets */
      y->pitch = ((y->top + y->group_rows + y->bottom) * y->row_bytes) | CACHE_LINE;
    const struct layout layout = {
        .x = *x,
        .residual = step->residual < 0 ? plain : values[step->residual].form,
        .y = *y,
        .group_rows = forms_group_rows(step, values),
        .direct = forms_direct(step, values),
        .stage = forms_stage(step, values),
        .begins = begins_sums(chain, values, i),
        .group_channels = group_channels(chain, values, i),
    };
    const char *reason;
    const int64_t image[3] = {images[i][0] / schedule->passes, images[i][1], images[i][2]};
    struct plan *plan = plan_create(step->layer, image, schedule->threads, &layout, &reason);
    if (!plan) return reason;
    schedule->plans[i] = plan;
    if (layout.direct) x->pitch = plan->pitch;
    if (plan->packed_bytes > schedule->packed_bytes) schedule->packed_bytes = plan->packed_bytes;
    if (plan->sum_bytes > schedule->sum_bytes) schedule->sum_bytes = plan->sum_bytes;
    if (layout.begins && !(reason = join_biases(step, schedule->plans[i + 1]))) continue;
    if (layout.begins) return reason;
    if (!layout.group_channels) continue;
    const int64_t bytes = plan->sum_bytes + layout.group_channels * y->pitch + schedule->plans[i + 1]->sum_bytes;
    if (bytes > schedule->sum_bytes) schedule->sum_bytes = bytes;
  }
  for (int i = 0; i < chain->step_count; i++) { /* pitches are known only now */
    if (!schedule->plans[i]) continue;
    struct layout *const layout = &schedule->plans[i]->layout;
    layout->x.pitch = values[chain->steps[i].x].form.pitch;
    if (chain->steps[i].residual >= 0) layout->residual.pitch = values[chain->steps[i].residual].form.pitch;
  }
  return NULL;
}

static const char *measure(struct value *value, int64_t passes) {
  const struct extent *extent = &value->extent;
  int64_t bytes = in_lanes(&value->form) ? value->form.pitch : (int64_t)sizeof(float);
  for (int i = 0; i < (in_lanes(&value->form) ? 2 : extent->rank); i++) {
    const int64_t size = i == 0 ? extent->sizes[0] / passes : extent->sizes[i];
    if (__builtin_mul_overflow(bytes, size, &bytes) || bytes > BYTE_LIMIT) return "tensor too large";
  }
  value->bytes = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
  return NULL;
}

/* Whether a step is run together with the next, and its output lies in slots. */
static bool in_slots(const struct schedule *schedule, int i) {
  const struct plan *plan = schedule->plans[i];
  return plan && (plan->layout.group_channels || plan->layout.begins);
}

/* The steps between which a value is needed. */
struct life {
  int first, last;
};

/* The value whose place a step's output can take, or -1: what is added, or scaled, element by element. */
static int takes_over(const struct chain *chain, const struct schedule *schedule, const struct life *lives, int i) {
  const struct step *step = &chain->steps[i];
  const int v = step->layer->operation == SCALE ? step->x : step->residual;
  if (v < 0 || step->residual == step->x || lives[v].last != i || schedule->values[v].bytes == 0) return -1;
  const struct value *from = &schedule->values[v], *to = &schedule->values[step->y];
  const bool alike = memcmp(&from->form, &to->form, sizeof from->form) == 0;
  return from->offset >= 0 && to->offset >= 0 && alike ? v : -1;
}

/* The lowest place that is free as long as value `v` lives. */
static int64_t find_place(const struct value *values, const struct life *lives, int v) {
  int64_t place = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (int other = 0; other < v; other++) {
      const bool together = lives[other].first <= lives[v].last && lives[v].first <= lives[other].last;
      if (values[other].offset < 0 || !together) continue;
      if (place < values[other].offset + values[other].bytes && values[other].offset < place + values[v].bytes) {
        place = values[other].offset + values[other].bytes;
        moved = true;
      }
    }
  }
  return place;
}

/* Values that are not needed at the same time share memory. */
static const char *place_values(const struct chain *chain, struct schedule *schedule) {
  struct life *lives = calloc((size_t)chain->value_count, sizeof *lives);
  if (!lives) return "out of memory";
  const char *reason = NULL;
  for (int i = 0; i < chain->step_count; i++) {
    const struct step *step = &chain->steps[i];
    lives[step->y].first = lives[step->y].last = i;
    lives[step->x].last = in_slots(schedule, i) ? i + 1 : i;
    if (step->residual >= 0) lives[step->residual].last = i;
  }
  for (int v = 0; v < chain->value_count; v++) schedule->values[v].offset = v < chain->input_count ? -1 : 0;
  for (int i = 0; i < chain->output_count; i++) schedule->values[chain->outputs[i]].offset = -1;
  for (int i = 0; i < chain->step_count && !reason; i++) {
    const int v = chain->steps[i].y;
    struct value *const value = &schedule->values[v];
    if (value->offset < 0 || in_slots(schedule, i) || (reason = measure(value, schedule->passes))) continue;
    const int from = takes_over(chain, schedule, lives, i);
    if (from >= 0) {
      value->offset = schedule->values[from].offset;
      continue;
    }
    value->offset = find_place(schedule->values, lives, v);
    const int64_t end = value->offset + value->bytes;
    if (end > BYTE_LIMIT) reason = "tensor too large";
    if (end > schedule->value_bytes) schedule->value_bytes = end;
  }
  free(lives);
  return reason;
}

struct schedule *schedule_create(const struct chain *chain, const struct extent *inputs, int threads,
                                 const char **reason) {
  *reason = "out of memory";
  struct schedule *schedule = calloc(1, sizeof *schedule);
  int64_t (*images)[3] = calloc((size_t)chain->step_count, sizeof *images);
  if (schedule && images) {
    schedule->values = calloc((size_t)chain->value_count, sizeof *schedule->values);
    schedule->plans = calloc((size_t)chain->step_count, sizeof(struct plan *));
  }
  if (schedule && schedule->values && schedule->plans) {
    schedule->threads = threads;
    for (int v = 0; v < chain->input_count; v++) schedule->values[v].extent = inputs[v];
    *reason = find_extents(chain, schedule, images);
    if (!*reason) {
      forms_choose(chain, schedule->values);
      schedule->passes = count_passes(chain, schedule, images);
      *reason = make_plans(chain, schedule, images);
      if (!*reason) *reason = place_values(chain, schedule);
    }
  }
  free(images);
  if (!*reason) return schedule;
  schedule_release(chain, schedule);
  return NULL;
}
