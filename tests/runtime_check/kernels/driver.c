/* Random chains of layers through the kernels and through plain loops in double precision, without onnxruntime:
   `driver SEED COUNT ISA THREADS`. Prints the chains compared; exits with 1 at the first that differs. The tests
   compile it, with sanitizers too. With more than one thread, each runs the same chains on shapes of its own. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chain.h"

static uint64_t next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static int64_t between(uint64_t *state, int64_t low, int64_t high) {
  return low + (int64_t)(next(state) % (uint64_t)(high - low + 1));
}

static float uniform(uint64_t *state) { return (float)((double)(next(state) >> 11) / 4503599627370496.0 - 1.0); }

static float *floats(int64_t count, double density, uint64_t *state) {
  float *values = malloc((size_t)(count ? count : 1) * sizeof *values);
  for (int64_t i = 0; i < count; i++) {
    const float value = uniform(state);
    values[i] = (double)(next(state) % 1000) < 1000 * density ? value : 0.0f;
  }
  return values;
}

static void *in_turn(void *context, void (*task)(void *, size_t), size_t count, void *data) {
  (void)context;
  for (size_t i = 0; i < count; i++) task(data, i);
  return NULL;
}

struct shared {
  void (*task)(void *, size_t);
  void *data;
  size_t first, count;
};

static void *half(void *argument) {
  const struct shared *shared = argument;
  for (size_t i = shared->first; i < shared->count; i += 2) shared->task(shared->data, i);
  return NULL;
}

static void *two_threads(void *context, void (*task)(void *, size_t), size_t count, void *data) {
  (void)context;
  pthread_t other;
  struct shared odd = {task, data, 1, count}, even = {task, data, 0, count};
  const bool started = pthread_create(&other, NULL, half, &odd) == 0;
  half(&even);
  if (started)
    pthread_join(other, NULL);
  else
    half(&odd);
  return NULL;
}

enum { STEPS = 5, VALUES = STEPS + 1 };

/* What a chain was made of: the specifications of its layers, with weights that are theirs alone. */
struct recipe {
  struct layer_spec specs[STEPS];
  struct step steps[STEPS];
  int count;
};

/* One layer on values in double precision, from float32 inputs of its own. */
static void expect(const struct layer_spec *spec, const struct extent *in, const struct extent *out, const float *x,
                   const float *residual, float *y) {
  const bool linear = spec->operation == LINEAR;
  const int64_t batch = in->sizes[0], height = linear ? 1 : in->sizes[2], width = linear ? 1 : in->sizes[3];
  const int64_t rows = linear ? 1 : out->sizes[2], columns = linear ? 1 : out->sizes[3];
  const int64_t taps = spec->kernel[0] * spec->kernel[1];
  const bool each = spec->operation >= DEPTHWISE;
  for (int64_t i = 0; i < batch * spec->out_channels * rows * columns; i++) {
    const int64_t column = i % columns, row = i / columns % rows, k = i / columns / rows % spec->out_channels;
    const int64_t n = i / columns / rows / spec->out_channels;
    double sum = spec->bias ? spec->bias[k * spec->bias_stride] : 0.0, most = -INFINITY;
    for (int64_t c = each ? k : 0; c < (each ? k + 1 : spec->in_channels); c++)
      for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t at = row * spec->stride[0] + tap / spec->kernel[1] * spec->dilation[0] - spec->pad[0];
        const int64_t place = column * spec->stride[1] + tap % spec->kernel[1] * spec->dilation[1] - spec->pad[1];
        if (at < 0 || at >= height || place < 0 || place >= width) continue;
        const double pixel = x[((n * spec->in_channels + c) * height + at) * width + place];
        most = pixel > most ? pixel : most;
        if (spec->operation >= MAXIMUM) continue;
        const int64_t inputs = each ? 1 : spec->in_channels, input = each ? 0 : c;
        sum += pixel * (double)(spec->transposed ? spec->weight[input * spec->out_channels + k]
                                                 : spec->weight[(k * inputs + input) * taps + tap]);
      }
    if (spec->operation == MAXIMUM) sum = most;
    if (spec->operation == MEAN) {
      const float *image = x + i * height * width;
      for (int64_t j = 0; j < height * width; j++) sum += image[j] / (double)(height * width);
    }
    if (residual) sum = spec->operation == SCALE ? x[i] * (double)residual[i / columns / rows] : sum + residual[i];
    sum = sum < spec->low ? spec->low : sum > spec->high ? spec->high : sum;
    const struct activation *activation = &spec->activation;
    double gate = fmin(1, fmax(0, activation->slope * sum + activation->offset));
    if (activation->gate == SIGMOID) gate = 1 / (1 + exp(-activation->slope * sum));
    y[i] = (float)(activation->gate == NO_GATE ? sum : activation->times ? sum * gate : gate);
  }
}

struct case_ {
  struct chain *chain;
  const struct recipe *recipe;
  struct workspace_pool *pool;
  struct helpers *helpers;
  uint64_t state;
  int parallel, failed;
};

static int64_t elements(const struct extent *extent) {
  int64_t count = 1;
  for (int i = 0; i < extent->rank; i++) count *= extent->sizes[i];
  return count;
}

/* The chain on one random input; `values` and `wanted` are the caller's to free. */
static void run_case_on(struct case_ *one, struct schedule *schedule, float **values, float **wanted) {
  const struct chain *chain = one->chain;
  const struct recipe *recipe = one->recipe;
  for (int v = 0; v < chain->value_count; v++) {
    const int64_t count = elements(&schedule->values[v].extent);
    wanted[v] = v == 0 ? floats(count, 1, &one->state) : malloc((size_t)(count ? count : 1) * sizeof(float));
  }
  values[0] = wanted[0];
  for (int i = 0; i < chain->output_count; i++) {
    const size_t bytes = (size_t)elements(&schedule->values[chain->outputs[i]].extent) * sizeof(float);
    memset(values[chain->outputs[i]] = malloc(bytes), 0xff, bytes);
  }
  struct workspace *workspace =
      workspace_take(one->pool, schedule->value_bytes + schedule->packed_bytes, schedule->sum_bytes);
  const size_t bytes = (size_t)(schedule->value_bytes + schedule->packed_bytes);
  if (bytes > 0) memset(workspace->memory, 0xff, bytes); /* every byte a NaN's */
  for (int slot = 0; slot < 3 && schedule->sum_bytes > 0; slot++)
    memset(workspace->sums + (size_t)slot * workspace->sum_bytes, 0xff, workspace->sum_bytes);
  const struct threads threads = {one->parallel ? two_threads : in_turn, NULL, one->helpers};
  chain_run(chain, schedule, values, workspace, &threads);
  workspace_give(one->pool, workspace);
  for (int i = 0; i < recipe->count; i++) {
    const struct step *step = &recipe->steps[i];
    const float *residual = step->residual < 0 ? NULL : wanted[step->residual];
    expect(&recipe->specs[i], &schedule->values[step->x].extent, &schedule->values[step->y].extent, wanted[step->x],
           residual, wanted[step->y]);
  }
  for (int i = 0; i < chain->output_count && !one->failed; i++) {
    const int v = chain->outputs[i];
    double largest = 1;
    for (int64_t j = 0; j < elements(&schedule->values[v].extent); j++) largest = fmax(largest, fabs(wanted[v][j]));
    for (int64_t j = 0; j < elements(&schedule->values[v].extent) && !one->failed; j++) {
      const double want = wanted[v][j];
      if (fabs(want - values[v][j]) <= 1e-4 * largest) continue; /* of up to five layers */
      printf("value %d differs at %ld: %g, not %g\n", v, (long)j, values[v][j], want);
      one->failed = 1;
    }
  }
}

static void *run_case(void *argument) {
  struct case_ *one = argument;
  uint64_t *state = &one->state;
  const struct layer_spec *first = &one->recipe->specs[0];
  const bool linear = first->operation == LINEAR;
  struct extent x = {.rank = linear ? 2 : 4, .sizes = {between(state, 1, linear ? 40 : 4), first->in_channels}};
  x.sizes[2] = between(state, 0, 40);
  x.sizes[3] = between(state, 1, 40);
  if (next(state) % 3 == 0) x.sizes[2] = between(state, 1, 9), x.sizes[3] = between(state, 1, 9);
  if (next(state) % 3 == 0) x.sizes[2] = x.sizes[3] = 7 * between(state, 1, 4); /* what networks have */
  const char *reason;
  struct schedule *schedule = schedule_borrow(one->chain, &x, helpers_threads(one->helpers), &reason);
  if (!schedule) {
    if (strncmp(reason, "image smaller", 13) != 0 && strncmp(reason, "the two sides", 13) != 0)
      one->failed = 1, printf("no schedule: %s\n", reason);
    return NULL;
  }
  float *values[VALUES] = {NULL}, *wanted[VALUES] = {NULL};
  run_case_on(one, schedule, values, wanted);
  if (one->failed) printf("batch %ld, %ldx%ld\n", (long)x.sizes[0], (long)x.sizes[2], (long)x.sizes[3]);
  schedule_return(one->chain, schedule);
  for (int v = 0; v < VALUES; v++) {
    if (v > 0) free(values[v]);
    free(wanted[v]);
  }
  return NULL;
}

static int64_t channels_after(const struct recipe *recipe, int v, int64_t first) {
  return v == 0 ? first : recipe->specs[v - 1].out_channels;
}

static void release_spec(struct layer_spec *spec) {
  free((float *)spec->weight);
  free((float *)spec->bias);
}

/* A layer that reads a value of `inputs` channels; a convolution of the same shapes as `like` where that is not NULL. */
static struct layer_spec draw_layer(uint64_t *state, bool linear, int64_t inputs, const struct layer_spec *like) {
  struct layer_spec spec = {.out_channels = between(state, 1, 80), .in_channels = inputs, .low = -INFINITY,
                            .high = INFINITY, .bias_stride = (int64_t)(next(state) % 2)};
  const uint64_t kind = next(state) % 6;
  spec.operation = linear ? LINEAR : kind == 0 ? MAXIMUM : kind < 3 ? DEPTHWISE : CONVOLUTION;
  spec.transposed = linear && next(state) % 2;
  if (spec.operation >= DEPTHWISE || next(state) % 2) spec.out_channels = inputs;
  for (int i = 0; i < 2; i++) {
    spec.kernel[i] = linear ? 1 : between(state, 1, next(state) % 2 ? 3 : 7);
    spec.stride[i] = linear ? 1 : between(state, 1, 3);
    spec.dilation[i] = linear || next(state) % 2 ? 1 : between(state, 1, 3);
  }
  for (int i = 0; i < 4; i++) spec.pad[i] = linear || spec.operation == MAXIMUM ? 0 : between(state, 0, 4);
  if (next(state) % 2) { /* what networks have */
    spec.kernel[1] = spec.kernel[0];
    spec.stride[1] = spec.stride[0] = linear || next(state) % 3 ? 1 : 2;
    for (int i = 0; i < 2; i++) spec.dilation[i] = 1;
    for (int i = 0; i < 4; i++) spec.pad[i] = linear || spec.operation == MAXIMUM ? 0 : spec.kernel[0] / 2;
  }
  if (like) {
    spec.operation = CONVOLUTION;
    spec.out_channels = like->out_channels;
    memcpy(spec.kernel, like->kernel, sizeof spec.kernel);
    memcpy(spec.stride, like->stride, sizeof spec.stride);
    memcpy(spec.dilation, like->dilation, sizeof spec.dilation);
    memcpy(spec.pad, like->pad, sizeof spec.pad);
  }
  if (next(state) % 2) spec.low = 0;
  if (next(state) % 3 == 0) spec.low = 0, spec.high = 1;
  if (next(state) % 3 == 0 && spec.operation <= DEPTHWISE)
    spec.activation = (struct activation){next(state) % 2 ? SIGMOID : HARD_SIGMOID, next(state) % 2, 0.7f, 0.4f};
  const double densities[] = {0, 0.02, 0.1, 0.3, 1};
  const int64_t taps = spec.kernel[0] * spec.kernel[1];
  const int64_t weights = spec.out_channels * taps * (spec.operation == DEPTHWISE ? 1 : inputs);
  if (spec.operation != MAXIMUM) {
    float *values = floats(weights, densities[next(state) % 5], state);
    const double scale = sqrt((double)spec.out_channels / (double)(1 + count_nonzeros(values, weights)));
    for (int64_t i = 0; i < weights; i++) values[i] *= (float)scale; /* outputs of about 1 */
    spec.weight = values;
  }
  if (spec.operation == DEPTHWISE) spec.bias_stride = 1;
  if (next(state) % 2 && spec.operation != MAXIMUM) spec.bias = floats(spec.out_channels, 1, state);
  return spec;
}

/* The mean of images, or images times one number each. */
static struct layer_spec squeeze(enum operation operation, int64_t channels) {
  return (struct layer_spec){.operation = operation, .out_channels = channels, .in_channels = channels,
                             .kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}, .low = -INFINITY,
                             .high = INFINITY};
}

static struct chain *draw_chain(uint64_t *state, const struct isa *isa, struct recipe *recipe) {
  const bool linear = next(state) % 6 == 0;
  const int64_t first = between(state, 1, 40);
  struct step *steps = calloc(STEPS, sizeof *steps);
  int *outputs = calloc(VALUES, sizeof *outputs), output_count = 0;
  /* A layer, another from what it makes, and one that adds that to what it makes of the same input. */
  const bool shortcut = !linear && next(state) % 3 == 0;
  recipe->count = (int)between(state, shortcut ? 3 : 1, STEPS);
  for (int i = 0; i < recipe->count; i++) {
    int x = next(state) % 4 ? i : (int)between(state, 0, i); /* usually what was made last */
    const bool sum = shortcut && i == 2;
    if (shortcut) x = sum ? 1 : i;
    const char *reason;
    recipe->specs[i] = draw_layer(state, linear, channels_after(recipe, x, first), sum ? &recipe->specs[1] : NULL);
    if (shortcut && i == 1) recipe->specs[i].high = -(recipe->specs[i].low = -INFINITY);
    if (shortcut && i == 1) recipe->specs[i].activation.gate = NO_GATE;
    const int64_t channels = channels_after(recipe, x, first);
    int factors = -1; /* a mean of as many channels */
    for (int v = 1; v <= i; v++)
      if (recipe->specs[v - 1].operation == MEAN && channels_after(recipe, v, first) == channels) factors = v;
    if (!linear && !shortcut && next(state) % 5 == 0) {
      release_spec(&recipe->specs[i]);
      recipe->specs[i] = squeeze(factors >= 0 ? SCALE : MEAN, channels);
    }
    struct layer *layer = layer_create(&recipe->specs[i], isa, &reason);
    if (!layer) printf("not taken: %s\n", reason);
    steps[i] = (struct step){layer, x, -1, i + 1};
    if (recipe->specs[i].operation == SCALE) steps[i].residual = factors;
    if (sum) steps[i].residual = i;
    if (!shortcut && next(state) % 3 == 0 && recipe->specs[i].operation < DEPTHWISE) /* often not of equal size: then refused */
      for (int v = i; v >= 0 && steps[i].residual < 0; v--)
        if (channels_after(recipe, v, first) == recipe->specs[i].out_channels) steps[i].residual = v;
    if (i + 1 == recipe->count || (!shortcut && next(state) % 5 == 0)) outputs[output_count++] = i + 1;
  }
  memcpy(recipe->steps, steps, sizeof recipe->steps);
  return chain_create(steps, recipe->count, recipe->count + 1, 1, outputs, output_count);
}

static int compare(uint64_t seed, const struct isa *isa, int threads, struct workspace_pool *pool, struct helpers *helpers) {
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < 8; i++) next(&state);
  struct recipe recipe = {0};
  struct chain *chain = draw_chain(&state, isa, &recipe);
  struct case_ cases[16];
  pthread_t workers[16];
  int failed = 0;
  for (int i = 0; i < threads; i++)
    cases[i] = (struct case_){chain, &recipe, pool, helpers, state + 77u * (unsigned)i, threads > 1, 0};
  if (threads == 1) run_case(&cases[0]);
  for (int i = 0; threads > 1 && i < threads; i++) pthread_create(&workers[i], NULL, run_case, &cases[i]);
  for (int i = 0; threads > 1 && i < threads; i++) pthread_join(workers[i], NULL);
  for (int i = 0; i < threads; i++) failed |= cases[i].failed;
  if (failed) printf("seed %lu, %d steps\n", (unsigned long)seed, recipe.count);
  for (int i = 0; failed && i < recipe.count; i++) {
    const struct layer_spec *spec = &recipe.specs[i];
    printf("%d: operation %d, %ld -> %ld channels, kernel %ldx%ld, stride %ldx%ld, dilation %ldx%ld, x %d, added %d\n",
           i + 1, spec->operation, (long)spec->in_channels, (long)spec->out_channels, (long)spec->kernel[0],
           (long)spec->kernel[1], (long)spec->stride[0], (long)spec->stride[1], (long)spec->dilation[0],
           (long)spec->dilation[1], recipe.steps[i].x, recipe.steps[i].residual);
  }
  chain_release(chain);
  for (int i = 0; i < recipe.count; i++) release_spec(&recipe.specs[i]);
  return failed;
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  const uint64_t seed = strtoull(arguments[1], NULL, 10), chains = strtoull(arguments[2], NULL, 10);
  const int threads = atoi(arguments[4]);
  if (threads < 1 || threads > 16) return 2;
  struct workspace_pool pool;
  struct helpers helpers = {0};
  workspace_pool_open(&pool);
  for (uint64_t i = 0; i < chains; i++) {
    for (uintptr_t k = 0; k < HELPERS; k++) /* layers are divided otherwise where several threads were seen */
      atomic_store(&helpers.seen[k], k < i % (HELPERS + 1) ? k + 1 : 0);
    if (compare(seed + i, isa_select(arguments[3]), threads, &pool, &helpers)) return 1;
  }
  workspace_pool_close(&pool);
  printf("%lu chains with %s\n", (unsigned long)chains, isa_select(arguments[3])->name);
  return 0;
}
