/* NEON: thirty-two registers of four floats. */
#if defined(__aarch64__)
#define TILE_VECTORS 14
#define HALVES

#include "bodies.h"

const struct isa isa_neon = {"neon", TILE_VECTORS, singles, singles, KERNELS};
#endif
