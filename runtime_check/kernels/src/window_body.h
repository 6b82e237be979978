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

typedef uint32_t v8u __attribute__((vector_size(32), aligned(4), may_alias));

/* All ones in the first `count` lanes, zeros in the others. */
static inline __attribute__((always_inline)) v8u first_lanes(int64_t count) {
  static const uint32_t ones[2 * LANES_PER_VECTOR] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
  return *(const v8u *)(ones + LANES_PER_VECTOR - (count < 0 ? 0 : count));
}

/* One row of a border from a row inside: lane l from lane l + shift, of which `valid` are rows of the image. */
static inline __attribute__((always_inline)) void neighbours(const v8 *from, v8 *to, int64_t columns, int shift,
                                                             int64_t valid) {
  const v8 zero = SPLAT(0.0f);
  const v8u mask = first_lanes(shift < 0 ? LANES_PER_VECTOR : valid - shift);
#define NEIGHBOURS(shift, ...)          \
  case shift:                           \
    for (int64_t x = 0; x < columns; x++) \
      to[x] = (v8)((v8u)__builtin_shufflevector(from[x], zero, __VA_ARGS__) & mask); \
    break;
  switch (shift) {
    NEIGHBOURS(-3, 8, 8, 8, 0, 1, 2, 3, 4)
    NEIGHBOURS(-2, 8, 8, 0, 1, 2, 3, 4, 5)
    NEIGHBOURS(-1, 8, 0, 1, 2, 3, 4, 5, 6)
    NEIGHBOURS(1, 1, 2, 3, 4, 5, 6, 7, 8)
    NEIGHBOURS(2, 2, 3, 4, 5, 6, 7, 8, 8)
    NEIGHBOURS(3, 3, 4, 5, 6, 7, 8, 8, 8)
    default:; /* BORDER_GROUPS are no more */
  }
}

static void border(const struct border_job *job) {
  const struct form *const form = job->form;
  const int64_t rows = form->group_rows, lanes = job->height / rows, partial = job->height % rows;
  const int64_t columns = form->row_bytes / VECTOR_BYTES;
  const v8 zero = SPLAT(0.0f);
  char *const inside = job->channel + form->top * form->row_bytes;
  for (int64_t r = 0; r < rows; r++) {
    v8 *const row = (v8 *)(inside + r * form->row_bytes);
    if (job->from) {
      const v8 *const from = (const v8 *)(job->from + r * job->from_row);
      for (int64_t x = 0; x < job->width; x++) row[form->left + x] = from[x];
    }
    for (int64_t x = 0; x < form->left; x++) row[x] = zero;
    for (int64_t x = form->left + job->width; x < columns; x++) row[x] = zero;
    if (partial == 0 || r < partial) continue; /* rows below the image that rows inside it reach without another group */
    for (int64_t x = 0; x < columns; x++) row[x] = (v8)((v8u)row[x] & first_lanes(lanes));
  }
  for (int64_t r = 0; r < form->top; r++) {
    const int64_t above = form->top - r, groups = (above + rows - 1) / rows;
    neighbours((const v8 *)(inside + (groups * rows - above) * form->row_bytes),
               (v8 *)(job->channel + r * form->row_bytes), columns, -(int)groups, LANES_PER_VECTOR);
  }
  for (int64_t r = 0; r < form->bottom; r++) {
    const int64_t from = r % rows;
    neighbours((const v8 *)(inside + from * form->row_bytes), (v8 *)(inside + (rows + r) * form->row_bytes), columns,
               (int)(r / rows) + 1, from < partial ? lanes + 1 : lanes);
  }
}
