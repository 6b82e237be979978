/* Any processor: the compiler's own lowering of eight-element vectors. */
#define TILE_VECTORS 6
#define HALVES
/* By bits: the comparison's lanes are all ones or all zeros, and false for NaN. */
#define CHOOSE(comparison, a, b) \
  ((__typeof__(b))(((__typeof__(comparison))(a) & (comparison)) | ((__typeof__(comparison))(b) & ~(comparison))))
#define MAXIMUM(bound, x) CHOOSE((x) < (bound), bound, x)
#define MINIMUM(bound, x) CHOOSE((x) > (bound), bound, x)

#include "tile_body.h"
#include "transpose_body.h"
#include "window_body.h"

const struct isa isa_generic = {"generic", TILE_VECTORS, singles, pairs, narrow, interleave, separate, window, border};
