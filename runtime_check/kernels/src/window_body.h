/* Layers that work on each channel alone, and the border of a channel in lanes: once for each instruction set. */

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

static void border(const struct border_job *job) {
  const struct form *const form = job->form;
  const int64_t lanes = job->height / form->group_rows, partial = job->height % form->group_rows;
  const int64_t columns = form->row_bytes / VECTOR_BYTES;
  const v8 zero = SPLAT(0.0f);
  char *const inside = job->channel + form->top * form->row_bytes;
  for (int64_t r = 0; r < form->group_rows; r++) {
    v8 *const row = (v8 *)(inside + r * form->row_bytes);
    for (int64_t x = 0; x < form->left; x++) row[x] = zero;
    for (int64_t x = form->left + job->width; x < columns; x++) row[x] = zero;
    if (partial == 0 || r < partial) continue;
    for (int64_t x = 0; x < columns; x++) /* rows below the image that rows inside it reach without another group */
      for (int64_t l = lanes; l < LANES_PER_VECTOR; l++) ((float *)&row[x])[l] = 0.0f;
  }
  for (int64_t r = 0; r < form->top; r++) {
    const v8 *const from = (const v8 *)(inside + (form->group_rows - form->top + r) * form->row_bytes);
    v8 *const to = (v8 *)(job->channel + r * form->row_bytes);
    for (int64_t x = 0; x < columns; x++) to[x] = __builtin_shufflevector(from[x], zero, 8, 0, 1, 2, 3, 4, 5, 6);
  }
  for (int64_t r = 0; r < form->bottom; r++) {
    const v8 *const from = (const v8 *)(inside + r * form->row_bytes);
    v8 *const to = (v8 *)(inside + (form->group_rows + r) * form->row_bytes);
    for (int64_t x = 0; x < columns; x++) {
      to[x] = __builtin_shufflevector(from[x], zero, 1, 2, 3, 4, 5, 6, 7, 8);
      const int64_t last = r < partial ? lanes : lanes - 1; /* below its row there is no image */
      if (last < LANES_PER_VECTOR - 1) ((float *)&to[x])[last] = 0.0f;
    }
  }
}
