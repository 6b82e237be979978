/* Gates and what else is done element by element, once for each instruction set. */

#ifdef HALVES
typedef uint32_t part_bits __attribute__((vector_size(16), aligned(4), may_alias));
#else
typedef uint32_t part_bits __attribute__((vector_size(32), aligned(4), may_alias));
#endif

/* A whole part and what is left, from -1/2 to 1/2, of which 2 to the power of is a polynomial: the one of degree five
   with the least relative error, 9e-8, of those that are exact at 0. */
#ifndef WHOLE
#define MAGIC PART_SPLAT(12582912.0f) /* 1.5 * 2^23: what is added to it loses its fraction */
#define BOUNDED(u) MINIMUM(PART_SPLAT(128.0f), MAXIMUM(PART_SPLAT(-126.0f), u))
#define WHOLE(u) (((u) + MAGIC) - MAGIC)
/* Times 2 to the power of a whole number, in the exponent's bits. */
#define TIMES_POWER(x, whole) ((part)((part_bits)(x) + ((part_bits)((whole) + MAGIC) << 23)))
#endif

/* 2^u: infinity where u is 128 or more; from -126 down something that nothing is left of in a sum with 1. */
static inline __attribute__((always_inline)) part power_of_two(part u) {
  const part bounded = BOUNDED(u), whole = WHOLE(bounded), rest = bounded - whole;
  part power = PART_SPLAT(1.325460243e-3f);
  power = power * rest + PART_SPLAT(9.671999181e-3f);
  power = power * rest + PART_SPLAT(5.550779325e-2f);
  power = power * rest + PART_SPLAT(2.402223191e-1f);
  power = power * rest + PART_SPLAT(6.931469302e-1f);
  power = power * rest + PART_SPLAT(1.0f);
  return TIMES_POWER(power, whole);
}

static inline __attribute__((always_inline)) part activated(const struct activation *activation, part x) {
  if (activation->gate == HARD_SIGMOID) {
    const part line = PART_SPLAT(activation->slope) * x + PART_SPLAT(activation->offset);
    const part gate = MINIMUM(PART_SPLAT(1.0f), MAXIMUM(PART_SPLAT(0.0f), line));
    if (activation->times) return x * gate;
    return gate;
  }
  const part one_and_power = PART_SPLAT(1.0f) + power_of_two(PART_SPLAT(-1.44269504f * activation->slope) * x);
  if (activation->times) return x / one_and_power;
  return PART_SPLAT(1.0f) / one_and_power;
}

static inline __attribute__((always_inline)) void activate_vector(const struct activation *activation,
                                                                  const float *values, float *to) {
  for (int i = 0; i < PARTS(1); i++)
    ((part *)to)[i] = activated(activation, PART_LOAD((const char *)values + i * PART_BYTES));
}

static void activate(const struct activation *activation, const float *values, int64_t count, float *to) {
  const struct activation own = *activation; /* which no store can change */
  int64_t i = 0;
  for (; i + LANES_PER_VECTOR <= count; i += LANES_PER_VECTOR) activate_vector(&own, values + i, to + i);
  if (i == count) return;
  float some[LANES_PER_VECTOR] = {0};
  memcpy(some, values + i, (size_t)(count - i) * sizeof *values);
  activate_vector(&own, some, some);
  memcpy(to + i, some, (size_t)(count - i) * sizeof *values);
}

static void scale(const float *values, float factor, int64_t count, float *scaled) {
  int64_t i = 0;
  for (; i + LANES_PER_VECTOR <= count; i += LANES_PER_VECTOR) *(v8 *)(scaled + i) = LOAD(values + i) * SPLAT(factor);
  for (; i < count; i++) scaled[i] = values[i] * factor;
}

static void add_up(const float *values, int64_t count, float sums[LANES_PER_VECTOR]) {
  v8 even = LOAD(sums), odd = SPLAT(0.0f);
  int64_t i = 0;
  for (; i + 2 * LANES_PER_VECTOR <= count; i += 2 * LANES_PER_VECTOR) {
    even += LOAD(values + i);
    odd += LOAD(values + i + LANES_PER_VECTOR);
  }
  if (i + LANES_PER_VECTOR <= count) {
    even += LOAD(values + i);
    i += LANES_PER_VECTOR;
  }
  *(v8 *)sums = even + odd;
  for (int64_t rest = 0; i + rest < count; rest++) sums[rest] += values[i + rest];
}
