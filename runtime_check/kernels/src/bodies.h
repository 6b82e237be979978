/* Every kernel, for the instruction set of the file that includes this; no guard: each of those compiles its own. */
#include "vector_body.h"
#include "activation_body.h"
#include "tile_body.h"
#include "transpose_body.h"
#include "window_body.h"
#include "regroup_body.h"
#include "dot_body.h"
#include "pick_body.h"
#include "slice_body.h"

/* What all instruction sets have in common in their `struct isa`, behind the tiles. */
#define KERNELS pairs, narrow, interleave, separate, window, reach, border, regroup, activate, scale, add_up, pick, slice, halve, dot
