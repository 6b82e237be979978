/* AVX-512: as AVX2, but 1x1 layers, whose vectors lie side by side and aligned, take two of them at once, more windows are
   summed at once, and larger images lie in registers. */
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#endif

#define TILE_VECTORS 14
#define WINDOWS 7 /* what images of 7, 14, 28, 56 and 112 columns are made of */
#define MAXIMUM(bound, x) ((v8)_mm256_max_ps((__m256)(bound), (__m256)(x)))
#define MINIMUM(bound, x) ((v8)_mm256_min_ps((__m256)(bound), (__m256)(x)))

#define SPREAD(bits) ((part)_mm256_set1_epi32(bits))
#define BOUNDED(u) (u) /* by the instruction below itself */
#define WHOLE(u) ((part)_mm256_roundscale_ps((__m256)(u), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
#define TIMES_POWER(x, whole) ((part)_mm256_scalef_ps((__m256)(x), (__m256)(whole)))

#include "pick_avx512.h"
#include "bodies.h"

#undef MAXIMUM
#undef MINIMUM
#undef PART_SPLAT
#undef SPREAD
#define MAXIMUM(bound, x) ((v16)_mm512_max_ps((__m512)(bound), (__m512)(x)))
#define MINIMUM(bound, x) ((v16)_mm512_min_ps((__m512)(bound), (__m512)(x)))
#define SPREAD(bits) ((part)_mm512_set1_epi32(bits))
#define PART_SPLAT(x) ((v16)_mm512_set1_ps(x))
#define PLACE(i, row) ((i) * PART_BYTES)
#define part v16
typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));

TILE_FUNCTION(wide_8, EACH_4, SINGLE_BODY)
TILE_FUNCTION(wide_10, EACH_5, SINGLE_BODY)
TILE_FUNCTION(wide_12, EACH_6, SINGLE_BODY)
TILE_FUNCTION(wide_14, EACH_7, SINGLE_BODY)

static const tile_function wides[] = {
    NULL,     single_1, single_2, single_3,  single_4, single_5,  single_6, single_7,
    wide_8,   single_9, wide_10,  single_11, wide_12,  single_13, wide_14,
};

const struct isa isa_avx512 = {"avx512", TILE_VECTORS, singles, wides, KERNELS};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
