#include "squeeze.h"

static const float *inside(const float *tensor, const struct form *form, int64_t channel, int64_t row) {
  return (const float *)((const char *)tensor + channel * form->pitch + (form->top + row) * form->row_bytes +
                         form->left * VECTOR_BYTES);
}

void mean_channel(const struct layer *layer, const struct plan *plan, const float *x, int64_t channel, float *y) {
  const struct form *form = &plan->layout.x;
  const int64_t pixels = plan->height * plan->width;
  float total = 0;
  if (!in_lanes(form)) {
    float sums[LANES_PER_VECTOR] = {0};
    layer->isa->add_up(x + channel * pixels, pixels, sums);
    for (int l = 0; l < LANES_PER_VECTOR; l++) total += sums[l];
  }
  for (int64_t r = 0; r < form->group_rows; r++) {
    float sums[LANES_PER_VECTOR] = {0};
    layer->isa->add_up(inside(x, form, channel, r), plan->width * LANES_PER_VECTOR, sums);
    for (int64_t l = 0; l * form->group_rows + r < plan->height; l++) total += sums[l]; /* other lanes hold anything */
  }
  y[channel] = total / (float)pixels;
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
