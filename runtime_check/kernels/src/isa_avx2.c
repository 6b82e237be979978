/* AVX2 with fused multiply-add: sixteen registers of eight floats. */
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define TILE_VECTORS 14
#define MAXIMUM(bound, x) ((v8)_mm256_max_ps((__m256)(bound), (__m256)(x)))
#define MINIMUM(bound, x) ((v8)_mm256_min_ps((__m256)(bound), (__m256)(x)))
#define SPREAD(bits) ((part)_mm256_broadcastss_ps(_mm_castsi128_ps(_mm_cvtsi32_si128(bits))))

#include "pick_avx2.h"
#include "bodies.h"

const struct isa isa_avx2 = {"avx2", TILE_VECTORS, singles, singles, KERNELS};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
