/* Images of up to 16 pixels lie in two registers. */
#include <stdint.h>
#include <string.h>

enum { FEW_PIXELS = 16 };
#define FEW_PIXELS FEW_PIXELS

static void pick_few(const float *pixels, int64_t pixel_count, const int16_t *picks, int64_t count, float *output) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), pixel_counts = _mm256_set1_epi32((int)pixel_count);
  const __m256i high = _mm256_add_epi32(lane, _mm256_set1_epi32(8));
  const __m256 a = _mm256_maskload_ps(pixels, _mm256_cmpgt_epi32(pixel_counts, lane));
  const __m256 b = pixel_count > 8 ? _mm256_maskload_ps(pixels + 8, _mm256_cmpgt_epi32(pixel_counts, high)) : a;
  for (int64_t i = 0; i < count; i += 8) {
    int16_t some[8] = {0};
    const int64_t rest = count - i;
    if (rest < 8) memcpy(some, picks + i, (size_t)rest * sizeof *some);
    const __m256i index = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(rest < 8 ? some : picks + i)));
    const __m256 from_b = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)); /* the sign: 8 and more */
    const __m256 found = _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, index), _mm256_permutevar8x32_ps(b, index), from_b);
    const __m256 value = _mm256_and_ps(found, _mm256_castsi256_ps(_mm256_cmpgt_epi32(pixel_counts, index)));
    if (rest < 8)
      _mm256_maskstore_ps(output + i, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)rest), lane), value);
    else
      _mm256_storeu_ps(output + i, value);
  }
}
