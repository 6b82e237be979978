/* Random layers through the kernels and through plain loops in double precision, without onnxruntime:
   `driver SEED COUNT ISA THREADS`. Prints the layers compared; exits with 1 at the first that differs. The tests
   compile it, with sanitizers too. With more than one thread, each runs the same layers on shapes of its own. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"
#include "plan.h"
#include "run.h"
#include "workspace.h"

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

static double expected(const struct layer_spec *spec, int64_t height, int64_t width, const float *x, int64_t n,
                       int64_t k, int64_t y, int64_t column) {
  double sum = spec->bias ? spec->bias[k * spec->bias_stride] : 0.0;
  for (int64_t c = 0; c < spec->in_channels; c++)
    for (int64_t ky = 0; ky < spec->kernel[0]; ky++)
      for (int64_t kx = 0; kx < spec->kernel[1]; kx++) {
        const int64_t row = y * spec->stride[0] + ky * spec->dilation[0] - spec->pad[0];
        const int64_t place = column * spec->stride[1] + kx * spec->dilation[1] - spec->pad[1];
        if (row < 0 || row >= height || place < 0 || place >= width) continue;
        const int64_t tap = (c * spec->kernel[0] + ky) * spec->kernel[1] + kx;
        const int64_t taps = spec->in_channels * spec->kernel[0] * spec->kernel[1];
        const float weight =
            spec->transposed ? spec->weight[tap * spec->out_channels + k] : spec->weight[k * taps + tap];
        sum += (double)weight * x[((n * spec->in_channels + c) * height + row) * width + place];
      }
  return sum;
}

struct case_ {
  struct layer *layer;
  const struct layer_spec *spec;
  struct workspace_pool *pool;
  atomic_bool *several;
  uint64_t state;
  int parallel, failed;
};

static void *run_case(void *argument) {
  struct case_ *one = argument;
  const struct layer_spec *spec = one->spec;
  uint64_t *state = &one->state;
  const int64_t batch = between(state, 1, spec->linear ? 40 : 5);
  int64_t height = spec->linear ? 1 : between(state, 0, 40), width = spec->linear ? 1 : between(state, 1, 40);
  if (!spec->linear && next(state) % 3 == 0) height = width = between(state, 1, 4);
  int64_t out_height, out_width;
  const char *reason;
  struct plan *plan = plan_borrow(one->layer, batch, height, width, &reason);
  const bool fits = layer_output(one->layer, height, width, &out_height, &out_width);
  if (!plan) {
    if (fits) one->failed = 1, printf("no plan: %s\n", reason);
    return NULL;
  }
  const int64_t inputs = batch * spec->in_channels * height * width;
  const int64_t outputs = batch * spec->out_channels * out_height * out_width;
  float *x = floats(inputs, 1, state), *residual = next(state) % 2 ? floats(outputs, 1, state) : NULL;
  float *y = malloc((size_t)outputs * sizeof *y);
  memset(y, 0xff, (size_t)outputs * sizeof *y);
  struct workspace *workspace = workspace_take(one->pool, plan->packed_bytes, plan->sum_bytes);
  const struct threads threads = {one->parallel ? two_threads : in_turn, NULL, one->several};
  layer_run(one->layer, plan, x, residual, y, workspace, &threads);
  workspace_give(one->pool, workspace);
  for (int64_t i = 0, n = 0; n < batch; n++)
    for (int64_t k = 0; k < spec->out_channels; k++)
      for (int64_t p = 0; p < out_height * out_width; p++, i++) {
        double want = expected(spec, height, width, x, n, k, p / out_width, p % out_width);
        if (residual) want += residual[i];
        want = want < spec->low ? spec->low : want > spec->high ? spec->high : want;
        if (!(fabs(want - y[i]) <= 1e-5 * (1 + spec->in_channels) && !one->failed)) {
          if (!one->failed)
            printf("differs at %ld: %g, not %g (method %d, batch %ld, %ldx%ld)\n", (long)i, y[i], want, plan->method,
                   (long)batch, (long)height, (long)width);
          one->failed = 1;
        }
      }
  plan_return(one->layer, plan);
  free(x);
  free(residual);
  free(y);
  return NULL;
}

static int compare(uint64_t seed, const struct isa *isa, int threads, struct workspace_pool *pool, atomic_bool *several) {
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < 8; i++) next(&state);
  struct layer_spec spec = {.out_channels = between(&state, 1, 80), .in_channels = between(&state, 1, 40),
                            .low = -INFINITY, .high = INFINITY, .bias_stride = 1};
  spec.linear = next(&state) % 4 == 0;
  spec.transposed = spec.linear && next(&state) % 2;
  for (int i = 0; i < 2; i++) {
    spec.kernel[i] = spec.linear ? 1 : between(&state, 1, next(&state) % 2 ? 3 : 7);
    spec.stride[i] = spec.linear ? 1 : between(&state, 1, 3);
    spec.dilation[i] = spec.linear || next(&state) % 2 ? 1 : between(&state, 1, 3);
  }
  for (int i = 0; i < 4; i++) spec.pad[i] = spec.linear ? 0 : between(&state, 0, 4);
  if (next(&state) % 3 == 0) { /* what networks have */
    spec.kernel[1] = spec.kernel[0];
    for (int i = 0; i < 2; i++) spec.stride[i] = spec.dilation[i] = 1;
    for (int i = 0; i < 4; i++) spec.pad[i] = spec.linear ? 0 : spec.kernel[0] / 2;
  }
  if (next(&state) % 2) spec.low = 0;
  if (next(&state) % 3 == 0) spec.low = 0, spec.high = 1;
  const double densities[] = {0, 0.02, 0.1, 0.3, 1};
  const int64_t taps = spec.in_channels * spec.kernel[0] * spec.kernel[1];
  float *weight = floats(spec.out_channels * taps, densities[next(&state) % 5], &state);
  float *bias = next(&state) % 2 ? floats(spec.out_channels, 1, &state) : NULL;
  spec.weight = weight;
  spec.bias = bias;
  spec.bias_stride = (int64_t)(next(&state) % 2);
  const char *reason;
  struct layer *layer = layer_create(&spec, isa, &reason);
  if (!layer) {
    printf("not taken: %s\n", reason);
    return 1;
  }
  struct case_ cases[16];
  pthread_t workers[16];
  int failed = 0;
  for (int i = 0; i < threads; i++)
    cases[i] = (struct case_){layer, &spec, pool, several, state + 77u * (unsigned)i, threads > 1, 0};
  if (threads == 1) run_case(&cases[0]);
  for (int i = 0; threads > 1 && i < threads; i++) pthread_create(&workers[i], NULL, run_case, &cases[i]);
  for (int i = 0; threads > 1 && i < threads; i++) pthread_join(workers[i], NULL);
  for (int i = 0; i < threads; i++) failed |= cases[i].failed;
  if (failed)
    printf("seed %lu: linear %d, %ld -> %ld channels, kernel %ldx%ld, stride %ldx%ld, dilation %ldx%ld\n",
           (unsigned long)seed, spec.linear, (long)spec.in_channels, (long)spec.out_channels, (long)spec.kernel[0],
           (long)spec.kernel[1], (long)spec.stride[0], (long)spec.stride[1], (long)spec.dilation[0],
           (long)spec.dilation[1]);
  layer_release(layer);
  free(weight);
  free(bias);
  return failed;
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  const uint64_t seed = strtoull(arguments[1], NULL, 10), layers = strtoull(arguments[2], NULL, 10);
  const int threads = atoi(arguments[4]);
  if (threads < 1 || threads > 16) return 2;
  struct workspace_pool pool;
  atomic_bool several = false;
  workspace_pool_open(&pool);
  for (uint64_t i = 0; i < layers; i++)
    if (compare(seed + i, isa_select(arguments[3]), threads, &pool, &several)) return 1;
  workspace_pool_close(&pool);
  printf("%lu layers\n", (unsigned long)layers);
  return 0;
}
