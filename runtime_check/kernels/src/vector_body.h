/* Vectors, for the files that are compiled once for each instruction set. Who includes them says how many vectors fit
   into registers (TILE_VECTORS, 6 or 14), whether those hold four floats (HALVES), and, where it knows better,
   MAXIMUM(bound, x) and MINIMUM(bound, x) of vectors, which keep a NaN in x, and SPREAD(bits), a part full of the float
   with these bits. */

#include <assert.h>
#include <string.h>

#include "isa.h"

typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t v8u __attribute__((vector_size(32), aligned(4), may_alias)); /* masks, and floats by their bits */
typedef uint32_t v4u __attribute__((vector_size(16), aligned(4), may_alias));

#ifndef MAXIMUM
/* By bits: the comparison's lanes are all ones or all zeros, and false for NaN. */
#define CHOOSE(comparison, a, b) \
  ((__typeof__(b))(((__typeof__(comparison))(a) & (comparison)) | ((__typeof__(comparison))(b) & ~(comparison))))
#define MAXIMUM(bound, x) CHOOSE((x) < (bound), bound, x)
#define MINIMUM(bound, x) CHOOSE((x) > (bound), bound, x)
#endif

#define LOAD(p) (*(const v8 *)(p))
#define SPLAT(x) ((v8){x, x, x, x, x, x, x, x})

/* Tiles are made of whole vectors, or of twice as many halves where registers hold four floats: the same memory. */
#ifdef HALVES
typedef v4 part;
#define PART_SPLAT(x) ((v4){x, x, x, x})
#define PARTS(n) (2 * (n))
#else
typedef v8 part;
#define PART_SPLAT(x) SPLAT(x)
#define PARTS(n) (n)
#endif
#define PART_LOAD(p) (*(const part *)(p))
#define PART_BYTES ((ptrdiff_t)sizeof(part))

/* A tap's weight in every element of `weight`, and where its vectors begin. Two loads for each vector are all that a
   core can do in the time of its multiply-add: where bits come out of a register, one load brings both. */
#ifdef SPREAD
#define TAKE(tap, weight, vectors)                             \
  const uint64_t weight##_bits = tap_bits(tap);                \
  const part weight = SPREAD((int32_t)(uint32_t)weight##_bits); \
  const char *const vectors = input + ((int64_t)weight##_bits >> 32)
static inline __attribute__((always_inline)) uint64_t tap_bits(const struct tap *tap) {
  uint64_t bits;
  static_assert(sizeof *tap == sizeof bits && offsetof(struct tap, weight) == 0, "little-endian: the weight comes first");
  memcpy(&bits, tap, sizeof bits);
  return bits;
}
#else
#define TAKE(tap, name, vectors)                \
  const part name = PART_SPLAT((tap)->weight); \
  const char *const vectors = input + (tap)->offset
#endif
