/* The inner kernels, compiled once for each instruction set. */

/* EACH_n(F) is F(0) F(1) .. F(n-1): named variables stay in registers where arrays need not. */
#define EACH_1(F) F(0)
#define EACH_2(F) EACH_1(F) F(1)
#define EACH_3(F) EACH_2(F) F(2)
#define EACH_4(F) EACH_3(F) F(3)
#define EACH_5(F) EACH_4(F) F(4)
#define EACH_6(F) EACH_5(F) F(5)
#define EACH_7(F) EACH_6(F) F(6)
#define EACH_8(F) EACH_7(F) F(7)
#define EACH_9(F) EACH_8(F) F(8)
#define EACH_10(F) EACH_9(F) F(9)
#define EACH_11(F) EACH_10(F) F(10)
#define EACH_12(F) EACH_11(F) F(11)
#define EACH_13(F) EACH_12(F) F(12)
#define EACH_14(F) EACH_13(F) F(13)
#define EACH_16(F) EACH_14(F) F(14) F(15)
#define EACH_18(F) EACH_16(F) F(16) F(17)
#define EACH_20(F) EACH_18(F) F(18) F(19)
#define EACH_22(F) EACH_20(F) F(20) F(21)
#define EACH_24(F) EACH_22(F) F(22) F(23)
#define EACH_26(F) EACH_24(F) F(24) F(25)
#define EACH_28(F) EACH_26(F) F(26) F(27)

/* EVERY_n goes over the parts of n vectors. */
#ifdef HALVES
#define EVERY_1 EACH_2
#define EVERY_2 EACH_4
#define EVERY_3 EACH_6
#define EVERY_4 EACH_8
#define EVERY_5 EACH_10
#define EVERY_6 EACH_12
#define EVERY_7 EACH_14
#define EVERY_8 EACH_16
#define EVERY_9 EACH_18
#define EVERY_10 EACH_20
#define EVERY_11 EACH_22
#define EVERY_12 EACH_24
#define EVERY_13 EACH_26
#define EVERY_14 EACH_28
#else
#define EVERY_1 EACH_1
#define EVERY_2 EACH_2
#define EVERY_3 EACH_3
#define EVERY_4 EACH_4
#define EVERY_5 EACH_5
#define EVERY_6 EACH_6
#define EVERY_7 EACH_7
#define EVERY_8 EACH_8
#define EVERY_9 EACH_9
#define EVERY_10 EACH_10
#define EVERY_11 EACH_11
#define EVERY_12 EACH_12
#define EVERY_13 EACH_13
#define EVERY_14 EACH_14
#endif

#define DECLARE(i) part a##i;
#define FROM_BIAS(i) a##i = start;
#define FROM_SUMS(i) a##i = PART_LOAD(sums + (i) * PART_BYTES);
#define CLEAR(i) part b##i = PART_SPLAT(0.0f);
#define JOIN(i) a##i += b##i;
#define ADD_RESIDUAL(i) a##i += PART_LOAD(residual + PLACE(i, residual_row));
#define BOUND(i) a##i = MINIMUM(high, MAXIMUM(low, a##i));
#define STORE(i) *(part *)(output + PLACE(i, output_row)) = a##i;
#define STORE_CLOSE(i) ((part *)buffer)[i] = a##i;

enum { AHEAD = 2048 }; /* bytes */

/* Weights that come from beyond the second-level cache: ask for those some rows ahead, as many as this row has. */
static inline __attribute__((always_inline)) void fetch(const struct tap *tap, const struct tap *end) {
  const uintptr_t stop = (uintptr_t)end + AHEAD; /* numbers: pointers may not leave their array */
  for (uintptr_t ahead = (uintptr_t)tap + AHEAD; ahead < stop; ahead += CACHE_LINE)
    __builtin_prefetch((const void *)ahead, 0, 0);
}

/* From memory that is close to where the tile's output goes. */
static __attribute__((noinline)) void activate_tile(const struct tile_job *job, const struct activation *activation,
                                                    const float *buffer, char *output) {
  const int64_t columns = (int64_t)job->tile_columns * LANES_PER_VECTOR;
  for (int row = 0; row < job->tile_rows; row++)
    activate(activation, buffer + row * columns, columns, (float *)(output + row * job->output_row));
}

/* Around the loop over one row's taps, which `BODY` holds: sums in, epilogue, sums out. What the job says is read once:
   the compiler cannot know that sums are stored elsewhere. */
#define TILE_FUNCTION(NAME, EACH, BODY)                                                \
  static void NAME(const struct tile_job *job) {                                       \
    const char *const input = job->input;                                              \
    const ptrdiff_t pitch = job->input_pitch;                                          \
    const struct tap *tap = job->taps;                                                 \
    const struct row *row = job->rows, *const rows_end = row + job->row_count;         \
    const float *const bias = job->bias;                                               \
    const char *const first_sums = job->sums, *const first_residual = job->residual;   \
    char *const first_output = job->output;                                            \
    const ptrdiff_t sum_pitch = job->sum_pitch, output_pitch = job->output_pitch;      \
    const ptrdiff_t residual_pitch = job->residual_pitch;                              \
    const ptrdiff_t output_row = job->output_row, residual_row = job->residual_row;    \
    const bool far = job->far, finish = job->finish;                                   \
    const struct activation *const activation = finish ? job->activation : NULL;       \
    float buffer[TILE_VECTORS * LANES_PER_VECTOR];                                     \
    (void)pitch, (void)output_row, (void)residual_row; /* tiles of one row */          \
    for (; row < rows_end; row++) {                                                    \
      const ptrdiff_t channel = row->channel;                                          \
      const struct tap *const end = tap + row->taps;                                   \
      if (far) fetch(tap, end);                                                        \
      EACH(DECLARE)                                                                    \
      if (bias) {                                                                      \
        const part start = PART_SPLAT(bias[channel]);                                  \
        EACH(FROM_BIAS)                                                                \
      } else {                                                                         \
        const char *sums = first_sums + channel * sum_pitch;                           \
        EACH(FROM_SUMS)                                                                \
      }                                                                                \
      BODY(EACH)                                                                       \
      char *output = first_output + channel * output_pitch;                            \
      if (!finish) {                                                                   \
        EACH(STORE)                                                                    \
        continue;                                                                      \
      }                                                                                \
      if (first_residual) {                                                            \
        const char *residual = first_residual + channel * residual_pitch;              \
        EACH(ADD_RESIDUAL)                                                             \
      }                                                                                \
      const part low = PART_SPLAT(job->low), high = PART_SPLAT(job->high);             \
      EACH(BOUND)                                                                      \
      if (__builtin_expect(activation != NULL, 0)) {                                   \
        EACH(STORE_CLOSE)                                                              \
        activate_tile(job, activation, buffer, output);                                \
        continue;                                                                      \
      }                                                                                \
      EACH(STORE)                                                                      \
    }                                                                                  \
  }

#define MULTIPLY(i) a##i += weight * PART_LOAD(p + PLACE(i, pitch));
#define SINGLE_BODY(EACH)         \
  for (; tap < end; tap++) {      \
    TAKE(tap, weight, p);         \
    EACH(MULTIPLY)                \
  }

/* Few vectors: a second set of sums, so that the additions of one do not wait for each other. */
#define MULTIPLY_OTHER(i) b##i += other * PART_LOAD(q + PLACE(i, pitch));
#define TWIN_BODY(EACH)           \
  EACH(CLEAR)                     \
  for (; end - tap >= 2; tap += 2) { \
    TAKE(tap, weight, p);         \
    TAKE(tap + 1, other, q);      \
    EACH(MULTIPLY)                \
    EACH(MULTIPLY_OTHER)          \
  }                               \
  EACH(JOIN)                      \
  SINGLE_BODY(EACH)

#define SINGLE(n) TILE_FUNCTION(single_##n, EVERY_##n, SINGLE_BODY)
#define TWIN(n) TILE_FUNCTION(single_##n, EVERY_##n, TWIN_BODY)

/* Where part i of a tile lies: of one row, or of two rows of WIDTH vectors. */
#define PLACE(i, row) ((i) * PART_BYTES)
TWIN(1) TWIN(2) TWIN(3) TWIN(4) SINGLE(5) SINGLE(6)
#if TILE_VECTORS >= 14
SINGLE(7) SINGLE(8) SINGLE(9) SINGLE(10) SINGLE(11) SINGLE(12) SINGLE(13) SINGLE(14)
#endif
#undef PLACE

#define PAIR(n, twice) TILE_FUNCTION(pair_##n, EVERY_##twice, SINGLE_BODY)
#define PLACE(i, row) ((i) / PARTS(WIDTH) * (row) + (i) % PARTS(WIDTH) * PART_BYTES)
#define WIDTH 1
PAIR(1, 2)
#undef WIDTH
#define WIDTH 2
PAIR(2, 4)
#undef WIDTH
#define WIDTH 3
PAIR(3, 6)
#undef WIDTH
#if TILE_VECTORS >= 14
#define WIDTH 4
PAIR(4, 8)
#undef WIDTH
#define WIDTH 5
PAIR(5, 10)
#undef WIDTH
#define WIDTH 6
PAIR(6, 12)
#undef WIDTH
#define WIDTH 7
PAIR(7, 14)
#undef WIDTH
#endif
#undef PLACE

static const tile_function singles[] = {
    NULL, single_1, single_2, single_3, single_4, single_5, single_6,
#if TILE_VECTORS >= 14
    single_7, single_8, single_9, single_10, single_11, single_12, single_13, single_14,
#endif
};

static const tile_function pairs[] = {
    NULL, pair_1, pair_2, pair_3,
#if TILE_VECTORS >= 14
    pair_4, pair_5, pair_6, pair_7,
#endif
};

/* Four positions at most: half a vector, in four independent sums. */
static void narrow(const struct tile_job *job) {
  const struct tap *tap = job->taps;
  for (int64_t r = 0; r < job->row_count; r++) {
    const ptrdiff_t channel = job->rows[r].channel;
    const struct tap *const end = tap + job->rows[r].taps;
    if (job->far) fetch(tap, end);
    v4 a = {0}, b = {0}, c = {0}, d = {0};
    if (job->bias) {
      const float bias = job->bias[channel];
      a = (v4){bias, bias, bias, bias};
    } else {
      a = *(const v4 *)(job->sums + channel * job->sum_pitch);
    }
    for (; end - tap >= 4; tap += 4) {
      a += tap[0].weight * *(const v4 *)(job->input + tap[0].offset);
      b += tap[1].weight * *(const v4 *)(job->input + tap[1].offset);
      c += tap[2].weight * *(const v4 *)(job->input + tap[2].offset);
      d += tap[3].weight * *(const v4 *)(job->input + tap[3].offset);
    }
    for (; tap < end; tap++) {
      a += tap[0].weight * *(const v4 *)(job->input + tap[0].offset);
    }
    *(v4 *)(job->output + channel * job->output_pitch) = (a + b) + (c + d);
  }
}
