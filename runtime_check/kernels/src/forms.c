#include "forms.h"

#include "isa.h"

enum {
  LEAST_ROWS = 5,
  WASTE = 4 /* a quarter more rows than the image has, at most */
};

/* Nanoseconds on one core of a Zen 4: one non-zero at one position, and in one tile; one element copied into lanes or out
   of them; and one copied for a 1x1 layer whose pixels do not fill whole vectors. */
#define NONZERO 0.032
#define TILE 0.67
#define COPY 0.4
#define COPY_COLUMNS 0.15

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t height(const struct value *value) { return value->extent.sizes[2]; }
static int64_t width(const struct value *value) { return value->extent.sizes[3]; }

int64_t forms_group_rows(const struct step *step, const struct value *values) {
  const struct form *x = &values[step->x].form, *y = &values[step->y].form;
  if (in_lanes(y)) return y->group_rows;
  if (step->residual >= 0 && in_lanes(&values[step->residual].form)) return values[step->residual].form.group_rows;
  return in_lanes(x) ? ceil_div(height(&values[step->y]), LANES_PER_VECTOR) : 0;
}

/* Rows and columns around a group of x that the step's windows reach. */
static struct form reach(const struct step *step, const struct value *values) {
  const struct layer *layer = step->layer;
  const struct value *x = &values[step->x];
  const int64_t rows = forms_group_rows(step, values), columns = width(&values[step->y]);
  const int64_t down = (rows - 1) * layer->stride[0] + (layer->kernel[0] - 1) * layer->dilation[0] - layer->pad[0];
  const int64_t aside = (columns - 1) * layer->stride[1] + (layer->kernel[1] - 1) * layer->dilation[1] - layer->pad[1];
  return (struct form){
      .top = layer->pad[0],
      .bottom = greater(0, down - (x->form.group_rows - 1)),
      .left = layer->pad[1],
      .right = greater(0, aside - (width(x) - 1)),
  };
}

/* Whether the step's windows find whole vectors in x's lanes, with rows of other groups around them. */
static bool fits(const struct step *step, const struct value *values, const struct form *around) {
  const struct layer *layer = step->layer;
  const struct form *x = &values[step->x].form;
  if (!in_lanes(x) || layer->operation == MEAN) return false;
  if (forms_group_rows(step, values) * layer->stride[0] != x->group_rows) return false;
  /* The last lane that outputs come from has rows of the image: lanes without any are never written to. */
  const int64_t last = (height(&values[step->y]) - 1) / forms_group_rows(step, values);
  if (last * x->group_rows >= height(&values[step->x])) return false;
  return around->top <= BORDER_GROUPS * x->group_rows && around->bottom <= BORDER_GROUPS * x->group_rows;
}

struct form forms_stage(const struct step *step, const struct value *values) {
  const enum operation operation = step->layer->operation;
  const struct form *x = &values[step->x].form;
  struct form stage = reach(step, values);
  const bool windows = operation == DEPTHWISE || operation == MAXIMUM || operation == SCALE;
  if (layer_overhangs(step->layer, height(&values[step->x]), width(&values[step->x]))) return (struct form){0};
  if (!windows || !fits(step, values, &stage)) return (struct form){0};
  stage.group_rows = x->group_rows;
  stage.row_bytes = (stage.left + width(&values[step->x]) + stage.right) * VECTOR_BYTES;
  stage.pitch = (stage.top + stage.bottom) * stage.row_bytes;
  return stage;
}

bool forms_direct(const struct step *step, const struct value *values) {
  const struct layer *layer = step->layer;
  const struct form around = reach(step, values);
  if (layer->operation != CONVOLUTION || layer->stride[1] != 1) return false; /* strided columns are sorted by remainders */
  return fits(step, values, &around);
}

/* What convolutions and windows read around x lies there; rows above and below are made for each window layer. */
static void add_border(const struct step *step, struct value *values) {
  struct form *const x = &values[step->x].form;
  const bool direct = forms_direct(step, values);
  const struct form stage = forms_stage(step, values), around = direct ? reach(step, values) : stage;
  if (!direct && !in_lanes(&stage)) return;
  x->left = greater(x->left, around.left);
  x->right = greater(x->right, around.right);
  if (!direct) return;
  x->top = greater(x->top, around.top);
  x->bottom = greater(x->bottom, around.bottom);
}

static bool same_size(const struct value *value, const struct value *other) {
  return value->extent.rank == 4 && height(value) == height(other) && width(value) == width(other);
}

/* Whether the copies that lanes save, for images of one size, are worth the empty rows that 1x1 layers then compute. */
static bool pays(const struct chain *chain, const struct value *values, const struct value *image) {
  const int64_t pixels = height(image) * width(image), plain = ceil_div(pixels, LANES_PER_VECTOR);
  const int64_t rows = ceil_div(height(image), LANES_PER_VECTOR), lanes = rows * width(image);
  double saved = 0, lost = 0;
  for (int i = 0; i < chain->step_count; i++) {
    const struct step *step = &chain->steps[i];
    const struct layer *layer = step->layer;
    const bool reads = same_size(&values[step->x], image), writes = same_size(&values[step->y], image);
    const int64_t channels = (reads ? layer->in_channels : 0) + (writes ? layer->out_channels : 0);
    const double elements = (double)channels * (double)pixels;
    if (layer->operation >= MEAN) continue; /* reads and writes either way */
    if (layer->taps > 1 || layer->operation >= DEPTHWISE) {
      saved += COPY * elements;
    } else if (reads && writes) {
      if (pixels % LANES_PER_VECTOR) saved += COPY_COLUMNS * elements;
      const int64_t widest = layer->isa->max_tile, tiles = rows * ceil_div(width(image), widest) - ceil_div(plain, widest);
      lost += (double)layer->nonzeros * (NONZERO * (double)((lanes - plain) * LANES_PER_VECTOR) + TILE * (double)tiles);
    }
  }
  return saved > lost;
}

void forms_choose(const struct chain *chain, struct value *values) {
  for (int i = 0; i < chain->step_count; i++) {
    const struct step *const step = &chain->steps[i];
    struct value *const y = &values[step->y];
    const struct value *const x = &values[step->x];
    if (step->layer->operation == LINEAR || height(y) < LEAST_ROWS) continue;
    if (layer_overhangs(step->layer, height(x), width(x))) continue; /* element by element */
    const int64_t rows = ceil_div(height(y), LANES_PER_VECTOR), spare = rows * LANES_PER_VECTOR - height(y);
    if (spare * WASTE <= height(y) && pays(chain, values, y)) y->form.group_rows = rows;
  }
  for (int i = 0; i < chain->output_count; i++) values[chain->outputs[i]].form.group_rows = 0;
  for (int i = 0; i < chain->step_count; i++) {
    const struct step *step = &chain->steps[i];
    if (step->layer->operation != LINEAR) continue;
    values[step->x].form.group_rows = 0;
    if (step->residual >= 0) values[step->residual].form.group_rows = 0;
  }
  for (int i = 0; i < chain->step_count; i++) add_border(&chain->steps[i], values);
  for (int v = 0; v < chain->value_count; v++) {
    struct form *const form = &values[v].form;
    if (in_lanes(form)) form->row_bytes = (form->left + width(&values[v]) + form->right) * VECTOR_BYTES;
  }
}
