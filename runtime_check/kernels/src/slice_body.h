/* Tiny images, eight or four neighbours at a time, once for each instruction set. */

/* What the job says is read once: the compiler cannot know that copies go elsewhere. */
#define SLICE(mask)                                                              \
  for (int64_t i = 0; i < count; i++) {                                          \
    const mask inside = *(const mask *)job->slices[i].inside;                    \
    const float *from = job->pixels + job->slices[i].from;                       \
    char *to = job->output + i * (int64_t)sizeof(mask);                          \
    for (int64_t c = 0; c < channels; c++, from += distance, to += pitch)        \
      *(mask *)to = *(const mask *)from & inside;                                \
  }

static void slice(const struct slice_job *job) {
  const int64_t count = job->count, channels = job->channels, distance = job->distance;
  const ptrdiff_t pitch = job->pitch;
  if (job->half)
    SLICE(v4u)
  else
    SLICE(v8u)
}

/* Those with even numbers, then the others. */
static void halve(const float *pixels, int64_t count, float *sorted) {
  float *const odd = sorted + (count + 1) / 2;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const v8 a = LOAD(pixels + i), b = LOAD(pixels + i + 8);
    *(v8 *)(sorted + i / 2) = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    *(v8 *)(odd + i / 2) = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  }
  for (; i < count; i++) (i % 2 ? odd : sorted)[i / 2] = pixels[i];
}
