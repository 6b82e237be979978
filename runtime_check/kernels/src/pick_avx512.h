/* Images of up to 64 pixels lie in four registers. */
#include <stdint.h>

enum { FEW_PIXELS = 64 };
#define FEW_PIXELS FEW_PIXELS

/* The first `count` of sixteen. */
static inline __mmask16 first_of_sixteen(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

static void pick_few(const float *pixels, int64_t pixel_count, const int16_t *picks, int64_t count, float *output) {
  __m512 image[4];
  for (int i = 0; i < 4; i++) {
    const __mmask16 mask = first_of_sixteen(pixel_count - 16 * i);
    image[i] = mask ? _mm512_maskz_loadu_ps(mask, pixels + 16 * i) : _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first_of_sixteen(count - i);
    const __m512i index = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, picks + i));
    __m512 value = _mm512_permutex2var_ps(image[0], index, image[1]);
    if (pixel_count > 31) {
      const __mmask16 beyond = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
      value = _mm512_mask_blend_ps(beyond, value, _mm512_permutex2var_ps(image[2], index, image[3]));
      value = _mm512_maskz_mov_ps(_mm512_cmplt_epi32_mask(index, _mm512_set1_epi32(64)), value);
    }
    _mm512_mask_storeu_ps(output + i, mask, value);
  }
}
