/* NEON: thirty-two registers of four floats. */
#if defined(__aarch64__)
#define TILE_VECTORS 14
#define HALVES

#include "vector_body.h"
#include "activation_body.h"
#include "tile_body.h"
#include "transpose_body.h"
#include "window_body.h"
#include "dot_body.h"

const struct isa isa_neon = {
    "neon", TILE_VECTORS, singles, singles, pairs, narrow, interleave, separate, window, border,
    activate, scale, add_up, dot,
};
#endif
