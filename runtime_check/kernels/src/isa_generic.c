/* Any processor: the compiler's own lowering of eight-element vectors. */
#define TILE_VECTORS 6
#define CHOOSE(mask, a, b) ((v8)(((i8)(a) & (mask)) | ((i8)(b) & ~(mask))))
#define MAXIMUM(bound, x) CHOOSE((i8)((x) < (bound)), bound, x)
#define MINIMUM(bound, x) CHOOSE((i8)((x) > (bound)), bound, x)

#include "tile_body.h"
#include "transpose_body.h"

const struct isa isa_generic = {"generic", TILE_VECTORS, singles, pairs, narrow, interleave, separate};
