/* Any processor: the compiler's own lowering of eight-element vectors. */
#define TILE_VECTORS 6
#define HALVES

#include "bodies.h"

const struct isa isa_generic = {"generic", TILE_VECTORS, singles, singles, KERNELS};
