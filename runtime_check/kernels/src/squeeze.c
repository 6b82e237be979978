#include "squeeze.h"

enum { TOGETHER = 512 }; /* elements that are added up in float32 */

static const float *inside(const float *tensor, const struct form *form, int64_t channel, int64_t row) {
  return (const float *)((const char *)tensor + channel * form->pitch + (form->top + row) * form->row_bytes +
                         form->left * VECTOR_BYTES);
}

/* Few at a time: long sums of float32 lose what is small beside them. Element i is left out where lanes[i % 8] is not. */
static double add_up(const struct layer *layer, const float *values, int64_t count, const bool lanes[LANES_PER_VECTOR]) {
  double total = 0;
  for (int64_t i = 0; i < count; i += TOGETHER) {
    float sums[LANES_PER_VECTOR] = {0};
    layer->isa->add_up(values + i, count - i < TOGETHER ? count - i : TOGETHER, sums);
    for (int l = 0; l < LANES_PER_VECTOR; l++)
      if (lanes[l]) total += (double)sums[l];
  }
  return total;
}

void mean_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, float *y) {
  const struct form *form = &plan->layout.x;
  const int64_t pixels = plan->height * plan->width;
  bool lanes[LANES_PER_VECTOR] = {true, true, true, true, true, true, true, true};
  double total = 0;
  if (!in_lanes(form)) total = add_up(layer, x + channel * pixels, pixels, lanes);
  for (int64_t r = 0; r < form->group_rows; r++) {
    for (int l = 0; l < LANES_PER_VECTOR; l++) lanes[l] = l * form->group_rows + r < plan->height; /* others hold anything */
    total += add_up(layer, inside(x, form, channel, r), plan->width * LANES_PER_VECTOR, lanes);
  }
  y[channel] = (float)(total / (double)pixels);
}

void scale_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, float factor,
                   float *y) {
  const struct form *from = &plan->layout.x, *to = &plan->layout.y;
  const int64_t pixels = plan->height * plan->width;
  if (!in_lanes(to)) layer->isa->scale(x + channel * pixels, factor, pixels, y + channel * pixels);
  for (int64_t r = 0; r < to->group_rows; r++)
    layer->isa->scale(inside(x, from, channel, r), factor, plan->width * LANES_PER_VECTOR,
                      (float *)inside(y, to, channel, r));
  if (has_border(to, plan->height))
    layer->isa->border(
        &(struct border_job){
            .channel = (char *)y + channel * to->pitch, .form = to, .height = plan->height, .width = plan->width});
}
