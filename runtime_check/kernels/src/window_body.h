/* Layers of windows, which work on each channel alone, once for each instruction set. Who includes this may say how many
   neighbouring windows are summed at once (WINDOWS), so that the additions of one do not wait for each other. */

#ifndef WINDOWS
#define WINDOWS 4
#endif
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define WINDOW_COLUMN(job, row, column) LOAD((job)->rows[row] + (column) * VECTOR_BYTES)

static inline __attribute__((always_inline)) void finish(const struct window_job *job, int64_t x, int count,
                                                         const v8 *sums) {
  const v8 low = SPLAT(job->low), high = SPLAT(job->high);
  UNROLL for (int i = 0; i < count; i++) ((v8 *)job->output)[x + i] = MINIMUM(high, MAXIMUM(low, sums[i]));
}

/* Square kernels of known size and stride: what windows share is loaded once. */
static inline __attribute__((always_inline)) void sum_square(const struct window_job *job, int64_t x, int size,
                                                             int stride) {
  v8 sums[WINDOWS], inputs[WINDOWS * 2 + 4];
  UNROLL for (int i = 0; i < WINDOWS; i++) sums[i] = SPLAT(job->bias);
  UNROLL for (int ky = 0; ky < size; ky++) {
    UNROLL for (int i = 0; i < (WINDOWS - 1) * stride + size; i++) inputs[i] = WINDOW_COLUMN(job, ky, x * stride + i);
    UNROLL for (int kx = 0; kx < size; kx++) {
      const v8 weight = SPLAT(job->weights[ky * size + kx]);
      UNROLL for (int i = 0; i < WINDOWS; i++) sums[i] += weight * inputs[i * stride + kx];
    }
  }
  finish(job, x, WINDOWS, sums);
}

static inline __attribute__((always_inline)) void sum_any(const struct window_job *job, int64_t x, int count) {
  v8 sums[WINDOWS];
  UNROLL for (int i = 0; i < count; i++) sums[i] = SPLAT(job->bias);
  for (int64_t ky = 0; ky < job->kernel[0]; ky++)
    for (int64_t kx = 0; kx < job->kernel[1]; kx++) {
      const v8 weight = SPLAT(job->weights[ky * job->kernel[1] + kx]);
      const int64_t first = x * job->stride + kx * job->dilation;
      UNROLL for (int i = 0; i < count; i++) sums[i] += weight * WINDOW_COLUMN(job, ky, first + i * job->stride);
    }
  finish(job, x, count, sums);
}

/* The last windows are summed again where they do not fill a group of them. `size` is 0 for any kernel. */
static inline __attribute__((always_inline)) void sums(const struct window_job *job, int size, int stride) {
  for (int64_t x = 0; x < job->columns && job->columns < WINDOWS; x++) sum_any(job, x, 1);
  for (int64_t next = 0; next < job->columns && job->columns >= WINDOWS; next += WINDOWS) {
    const int64_t x = next > job->columns - WINDOWS ? job->columns - WINDOWS : next;
    if (size)
      sum_square(job, x, size, stride);
    else
      sum_any(job, x, WINDOWS);
  }
}

static inline __attribute__((always_inline)) void largest(const struct window_job *job) {
  const v8 low = SPLAT(job->low), high = SPLAT(job->high);
  for (int64_t x = 0; x < job->columns; x++) {
    v8 most = WINDOW_COLUMN(job, 0, x * job->stride);
    for (int64_t ky = 0; ky < job->kernel[0]; ky++)
      for (int64_t kx = 0; kx < job->kernel[1]; kx++)
        most = MAXIMUM(most, WINDOW_COLUMN(job, ky, x * job->stride + kx * job->dilation));
    ((v8 *)job->output)[x] = MINIMUM(high, MAXIMUM(low, most));
  }
}

static void window(const struct window_job *job) {
  const bool square = job->kernel[0] == job->kernel[1] && job->dilation == 1;
  const int64_t size = square ? job->kernel[0] : 0;
  if (!job->weights)
    largest(job);
  else if (size == 3 && job->stride == 1)
    sums(job, 3, 1);
  else if (size == 3 && job->stride == 2)
    sums(job, 3, 2);
  else if (size == 5 && job->stride == 1)
    sums(job, 5, 1);
  else if (size == 5 && job->stride == 2)
    sums(job, 5, 2);
  else
    sums(job, 0, 0);
}

/* `count` windows at once, which share what they load: a few sums, so that additions do not wait for each other. */
static inline __attribute__((always_inline)) void reach_some(const struct reach_job *job, const struct reach *at,
                                                             int64_t reaches, int64_t offset, int count, v8 *output) {
  const char *const input = job->input + offset;
  const int64_t step = job->step;
  v8 sums[4], others[4];
  UNROLL for (int i = 0; i < count; i++) {
    sums[i] = job->weights ? LOAD(job->bias) : reaches ? LOAD(input + at->input + i * step) : SPLAT(0.0f);
    others[i] = SPLAT(0.0f);
  }
  if (!job->weights) {
    for (const struct reach *const end = at + reaches; at < end; at++)
      UNROLL for (int i = 0; i < count; i++) sums[i] = MAXIMUM(sums[i], LOAD(input + at->input + i * step));
  } else {
    const struct reach *const end = at + reaches;
    for (; end - at >= 2; at += 2) {
      const v8 weight = LOAD(job->weights + at[0].weight), other = LOAD(job->weights + at[1].weight);
      UNROLL for (int i = 0; i < count; i++) sums[i] += weight * LOAD(input + at[0].input + i * step);
      UNROLL for (int i = 0; i < count; i++) others[i] += other * LOAD(input + at[1].input + i * step);
    }
    if (at < end) {
      const v8 weight = LOAD(job->weights + at->weight);
      UNROLL for (int i = 0; i < count; i++) sums[i] += weight * LOAD(input + at->input + i * step);
    }
    UNROLL for (int i = 0; i < count; i++) sums[i] += others[i];
  }
  UNROLL for (int i = 0; i < count; i++) output[i] = sums[i];
}

static void reach(const struct reach_job *job) {
  const struct reach *at = job->reaches;
  v8 *output = (v8 *)job->output;
  for (const struct window_run *run = job->runs; run < job->runs + job->run_count; run++) {
    int64_t i = 0;
    for (; run->windows - i >= 4; i += 4) reach_some(job, at, run->reaches, i * job->step, 4, output + i);
    for (; i < run->windows; i++) reach_some(job, at, run->reaches, i * job->step, 1, output + i);
    at += run->reaches;
    output += run->windows;
  }
}
