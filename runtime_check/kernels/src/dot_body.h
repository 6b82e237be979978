/* One row of x times the non-zeros of one output channel, once for each instruction set. Eight single loads are faster
   than one gather, and leave the additions to whole vectors. */

#define PICK(at) x[columns[at]], x[columns[at + 1]], x[columns[at + 2]], x[columns[at + 3]]

static float dot(const float *values, const int32_t *columns, int64_t count, const float *x) {
  v8 sums = SPLAT(0.0f);
  float sum = 0;
  int64_t i = 0;
  for (; i + LANES_PER_VECTOR <= count; i += LANES_PER_VECTOR)
    sums += LOAD(values + i) * (v8){PICK(i), PICK(i + 4)};
  for (; i < count; i++) sum += values[i] * x[columns[i]];
  for (int l = 0; l < LANES_PER_VECTOR; l++) sum += sums[l];
  return sum;
}
