/* Layers that work on each channel alone, once for each instruction set. */

/* `count` neighbouring windows at once, so that the additions of one do not wait for each other. */
static inline __attribute__((always_inline)) void sum(const struct window_job *job, int64_t x, int count,
                                                      int64_t height, int64_t width) {
  const float *weights = job->weights;
  v8 sums[4] = {SPLAT(job->bias), SPLAT(job->bias), SPLAT(job->bias), SPLAT(job->bias)};
  for (int64_t ky = 0; ky < height; ky++)
    for (int64_t kx = 0; kx < width; kx++) {
      const char *const p = job->input + x * job->step + ky * job->row + kx * job->column;
      const v8 weight = SPLAT(*weights);
      weights++;
      for (int i = 0; i < count; i++) sums[i] += weight * LOAD(p + i * job->step);
    }
  const v8 low = SPLAT(job->low), high = SPLAT(job->high);
  for (int i = 0; i < count; i++) ((v8 *)job->output)[x + i] = MINIMUM(high, MAXIMUM(low, sums[i]));
}

static inline __attribute__((always_inline)) void sums(const struct window_job *job, int64_t height, int64_t width) {
  int64_t x = 0;
  for (; x + 4 <= job->columns; x += 4) sum(job, x, 4, height, width);
  if (x < job->columns && x > 0) {
    sum(job, job->columns - 4, 4, height, width); /* some of them again */
    return;
  }
  for (; x < job->columns; x++) sum(job, x, 1, height, width);
}

static inline __attribute__((always_inline)) void largest(const struct window_job *job) {
  const v8 low = SPLAT(job->low), high = SPLAT(job->high);
  for (int64_t x = 0; x < job->columns; x++) {
    const char *const first = job->input + x * job->step;
    v8 most = LOAD(first);
    for (int64_t ky = 0; ky < job->kernel[0]; ky++)
      for (int64_t kx = 0; kx < job->kernel[1]; kx++)
        most = MAXIMUM(most, LOAD(first + ky * job->row + kx * job->column));
    ((v8 *)job->output)[x] = MINIMUM(high, MAXIMUM(low, most));
  }
}

static void window(const struct window_job *job) {
  if (!job->weights)
    largest(job);
  else if (job->kernel[0] == 3 && job->kernel[1] == 3)
    sums(job, 3, 3);
  else if (job->kernel[0] == 5 && job->kernel[1] == 5)
    sums(job, 5, 5);
  else
    sums(job, job->kernel[0], job->kernel[1]);
}
