/* Layers that work on each channel alone, once for each instruction set. Who includes this may say how many neighbouring
   windows are summed at once (WINDOWS), so that the additions of one do not wait for each other. */

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
