/* Copies between an image's rows and vectors of eight rows, compiled once for each instruction set. */

/* In place: element j of vector i and element i of vector j change places. */
static inline __attribute__((always_inline)) void transpose(v8 m[LANES_PER_VECTOR]) {
  v8 t[LANES_PER_VECTOR];
  for (int i = 0; i < 4; i++) {
    t[2 * i] = __builtin_shufflevector(m[2 * i], m[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[2 * i + 1] = __builtin_shufflevector(m[2 * i], m[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  v8 u[LANES_PER_VECTOR];
  for (int i = 0; i < 2; i++) {
    const v8 *const p = t + 4 * i;
    u[4 * i] = __builtin_shufflevector(p[0], p[2], 0, 1, 8, 9, 4, 5, 12, 13);
    u[4 * i + 1] = __builtin_shufflevector(p[0], p[2], 2, 3, 10, 11, 6, 7, 14, 15);
    u[4 * i + 2] = __builtin_shufflevector(p[1], p[3], 0, 1, 8, 9, 4, 5, 12, 13);
    u[4 * i + 3] = __builtin_shufflevector(p[1], p[3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < 4; i++) {
    m[i] = __builtin_shufflevector(u[i], u[4 + i], 0, 1, 2, 3, 8, 9, 10, 11);
    m[4 + i] = __builtin_shufflevector(u[i], u[4 + i], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

/* The first `count` of eight elements, without reading what lies behind `end`. */
static inline __attribute__((always_inline)) v8 load_some(const float *p, int64_t count, const float *end) {
  if (end - p >= LANES_PER_VECTOR) return LOAD(p); /* what is too much is not used */
  float some[LANES_PER_VECTOR] = {0};
  for (int64_t i = 0; i < count; i++) some[i] = p[i];
  return LOAD(some);
}

/* The first `count` of eight elements, without writing what lies behind them: two halves that overlap. */
#define STORE_TAIL(n, a, b, c, d)                                   \
  case n:                                                           \
    *(v4 *)p = __builtin_shufflevector(value, value, 0, 1, 2, 3);   \
    *(v4 *)(p + n - 4) = __builtin_shufflevector(value, value, a, b, c, d); \
    break;
static inline __attribute__((always_inline)) void store_some(float *p, v8 value, int64_t count) {
  switch (count) {
    default:
      *(v8 *)p = value;
      break;
    STORE_TAIL(7, 3, 4, 5, 6)
    STORE_TAIL(6, 2, 3, 4, 5)
    STORE_TAIL(5, 1, 2, 3, 4)
    STORE_TAIL(4, 0, 1, 2, 3)
    case 3:
      p[2] = value[2];
      /* fall through */
    case 2:
      p[1] = value[1];
      /* fall through */
    case 1:
      p[0] = value[0];
  }
}

/* Store `count` vectors at columns q and after, sorted by their remainders. */
static inline __attribute__((always_inline)) void store_columns(const struct interleave_job *job, int64_t q,
                                                                int64_t count, const v8 m[LANES_PER_VECTOR]) {
  v8 *const output = (v8 *)job->output;
  if (job->stride == 1 && count == LANES_PER_VECTOR) {
    for (int i = 0; i < LANES_PER_VECTOR; i++) output[q + i] = m[i];
  } else if (job->stride == 2 && count == LANES_PER_VECTOR) {
    v8 *const same = output + q % 2 * job->phase + q / 2;
    v8 *const other = output + (q + 1) % 2 * job->phase + (q + 1) / 2;
    for (int i = 0; i < LANES_PER_VECTOR / 2; i++) {
      same[i] = m[2 * i];
      other[i] = m[2 * i + 1];
    }
  } else {
    for (int64_t i = 0; i < count; i++) output[(q + i) % job->stride * job->phase + (q + i) / job->stride] = m[i];
  }
}

static void interleave(const struct interleave_job *job) {
  const v8 zero = SPLAT(0.0f);
  for (int64_t q = 0; q < job->columns;) {
    const int64_t x = q - job->left;
    if (x < 0 || x >= job->width) {
      ((v8 *)job->output)[q % job->stride * job->phase + q / job->stride] = zero;
      q++;
      continue;
    }
    int64_t count = job->width - x < job->columns - q ? job->width - x : job->columns - q;
    v8 m[LANES_PER_VECTOR];
    if (count >= LANES_PER_VECTOR) {
      count = LANES_PER_VECTOR;
      for (int l = 0; l < LANES_PER_VECTOR; l++) m[l] = job->rows[l] ? LOAD(job->rows[l] + x) : zero;
    } else {
      for (int l = 0; l < LANES_PER_VECTOR; l++)
        m[l] = job->rows[l] ? load_some(job->rows[l] + x, count, job->end) : zero;
    }
    transpose(m);
    store_columns(job, q, count, m);
    q += count;
  }
}

static inline __attribute__((always_inline)) void separate_some(const struct separate_job *job, int64_t x,
                                                                int64_t count, v8 low, v8 high) {
  v8 m[LANES_PER_VECTOR];
  for (int i = 0; i < LANES_PER_VECTOR; i++)
    m[i] = i < count ? LOAD(job->input + (x + i) * job->step) : SPLAT(0.0f);
  transpose(m);
  for (int l = 0; l < LANES_PER_VECTOR; l++) {
    if (!job->rows[l]) continue;
    v8 value = m[l];
    if (job->residual[l]) value += load_some(job->residual[l] + x, count, job->residual_end);
    value = MINIMUM(high, MAXIMUM(low, value));
    if (job->activation) { /* through memory of its own, so that others stay in registers */
      v8 other = value;
      activate_vector(job->activation, (const float *)&other, (float *)&other);
      value = other;
    }
    store_some(job->rows[l] + x, value, count);
  }
}

static void separate(const struct separate_job *job) {
  const v8 low = SPLAT(job->low), high = SPLAT(job->high);
  int64_t x = 0;
  for (; x + LANES_PER_VECTOR <= job->columns; x += LANES_PER_VECTOR)
    separate_some(job, x, LANES_PER_VECTOR, low, high);
  if (x < job->columns) separate_some(job, x, job->columns - x, low, high);
}
