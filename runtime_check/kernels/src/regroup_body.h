/* Rows in lanes become rows in lanes: borders from the rows inside, and copies for other groups or strides, compiled once
   for each instruction set. */

/* All ones in the first `count` lanes, zeros in the others. */
static inline __attribute__((always_inline)) v8u first_lanes(int64_t count) {
  static const uint32_t ones[2 * LANES_PER_VECTOR] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
  return *(const v8u *)(ones + LANES_PER_VECTOR - (count < 0 ? 0 : count));
}

/* Lane l of each vector from lane l + shift, for the first `lanes` of them, zeros in the others; vectors are read `step`
   apart. */
static inline __attribute__((always_inline)) void neighbours(const v8 *from, int64_t step, v8 *to, int64_t columns,
                                                             int64_t shift, int64_t lanes) {
  const v8 zero = SPLAT(0.0f);
  const v8u mask = first_lanes(lanes);
#define NEIGHBOURS(shift, ...)            \
  case shift:                             \
    for (int64_t x = 0; x < columns; x++) \
      to[x] = (v8)((v8u)__builtin_shufflevector(from[x * step], zero, __VA_ARGS__) & mask); \
    break;
  switch (shift) {
    NEIGHBOURS(-3, 8, 8, 8, 0, 1, 2, 3, 4)
    NEIGHBOURS(-2, 8, 8, 0, 1, 2, 3, 4, 5)
    NEIGHBOURS(-1, 8, 0, 1, 2, 3, 4, 5, 6)
    NEIGHBOURS(0, 0, 1, 2, 3, 4, 5, 6, 7)
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
    for (int64_t x = 0; x < form->left; x++) row[x] = zero;
    for (int64_t x = form->left + job->width; x < columns; x++) row[x] = zero;
    if (partial == 0 || r < partial) continue; /* rows below the image that rows inside it reach without another group */
    for (int64_t x = 0; x < columns; x++) row[x] = (v8)((v8u)row[x] & first_lanes(lanes));
  }
  for (int64_t r = 0; r < form->top; r++) {
    const int64_t above = form->top - r, groups = (above + rows - 1) / rows;
    neighbours((const v8 *)(inside + (groups * rows - above) * form->row_bytes), 1,
               (v8 *)(job->channel + r * form->row_bytes), columns, -groups, LANES_PER_VECTOR);
  }
  for (int64_t r = 0; r < form->bottom; r++) {
    const int64_t from = r % rows, groups = r / rows + 1;
    neighbours((const v8 *)(inside + from * form->row_bytes), 1, (v8 *)(inside + (rows + r) * form->row_bytes), columns,
               groups, (from < partial ? lanes + 1 : lanes) - groups);
  }
}

/* As `neighbours`, for lanes from any rows. */
static inline __attribute__((always_inline)) void gather(const struct regroup_job *job, int64_t column, int64_t step,
                                                         v8 *to, int64_t columns) {
  const char *from[LANES_PER_VECTOR]; /* whose element l is the one for lane l */
  uint32_t inside[LANES_PER_VECTOR];
  for (int l = 0; l < LANES_PER_VECTOR; l++) {
    const int64_t y = job->first + l * job->distance;
    inside[l] = y >= 0 && y < job->height ? ~0u : 0;
    from[l] = job->channel + column * VECTOR_BYTES;
    if (inside[l]) from[l] += y % job->group_rows * job->row_bytes + (y / job->group_rows - l) * (int64_t)sizeof(float);
  }
  const v8u mask = *(const v8u *)inside;
  const ptrdiff_t distance = step * VECTOR_BYTES;
#define LANE(l, ...) v = __builtin_shufflevector(v, LOAD(from[l] + x * distance), __VA_ARGS__);
  for (int64_t x = 1; x < columns - 1; x++) { /* what is loaded beside an element lies in the columns beside its own */
    v8 v = LOAD(from[0] + x * distance);
    LANE(1, 0, 9, 2, 3, 4, 5, 6, 7)
    LANE(2, 0, 1, 10, 3, 4, 5, 6, 7)
    LANE(3, 0, 1, 2, 11, 4, 5, 6, 7)
    LANE(4, 0, 1, 2, 3, 12, 5, 6, 7)
    LANE(5, 0, 1, 2, 3, 4, 13, 6, 7)
    LANE(6, 0, 1, 2, 3, 4, 5, 14, 7)
    LANE(7, 0, 1, 2, 3, 4, 5, 6, 15)
    to[x] = (v8)((v8u)v & mask);
  }
  for (int64_t x = 0; x < columns; x += columns > 1 ? columns - 1 : 1) /* the first and the last */
    for (int l = 0; l < LANES_PER_VECTOR; l++)
      ((float *)(to + x))[l] = inside[l] ? ((const float *)(from[l] + x * distance))[l] : 0.0f;
}

static void regroup(const struct regroup_job *job) {
  const v8 zero = SPLAT(0.0f);
  const int64_t rows = job->group_rows, step = job->stride * job->step;
  int64_t at = job->first, shift = 0, lanes = 0; /* divisions take longer than these few steps */
  for (; at < 0 && shift >= -BORDER_GROUPS; at += rows) shift--;
  for (; at >= rows && shift <= BORDER_GROUPS; at -= rows) shift++;
  while (lanes < LANES_PER_VECTOR && job->first + lanes * rows < job->height) lanes++;
  const bool together = job->distance == rows && shift >= -BORDER_GROUPS && shift <= BORDER_GROUPS;
  const v8 *const row = (const v8 *)(job->channel + (together ? at : 0) * job->row_bytes);
  for (int64_t rest = 0; rest < job->stride && rest < job->columns; rest++) {
    v8 *const to = (v8 *)job->output + rest * job->phase;
    const int64_t first = rest * job->step - job->left;
    const int64_t count = step == 1 ? job->columns : (job->columns - rest + job->stride - 1) / job->stride;
    int64_t from = 0, end = 0; /* of those inside the image */
    if (first < 0) from = step == 1 ? -first : (step - 1 - first) / step;
    if (first < job->width) end = step == 1 ? job->width - first : (job->width - first + step - 1) / step;
    if (end > count) end = count;
    if (from > end) from = end;
    for (int64_t x = 0; x < from; x++) to[x] = zero;
    if (together)
      neighbours(row + first + from * step, step, to + from, end - from, shift, lanes);
    else
      gather(job, first + from * step, step, to + from, end - from);
    for (int64_t x = end; x < count; x++) to[x] = zero;
  }
}
