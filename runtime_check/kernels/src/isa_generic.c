/* Any processor: the compiler's own lowering of eight-element vectors. */
#define TILE_VECTORS 6
#define HALVES

#include "vector_body.h"
#include "activation_body.h"
#include "tile_body.h"
#include "transpose_body.h"
#include "window_body.h"
#include "dot_body.h"

const struct isa isa_generic = {
    "generic", TILE_VECTORS, singles, singles, pairs, narrow, interleave, separate, window, border,
    activate, scale, add_up, dot,
};
