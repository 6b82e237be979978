/* The plan's non-zeros, sorted into blocks of input channels and ranges of output channels. */
#ifndef SPARSE_WEIGHTS_H
#define SPARSE_WEIGHTS_H

#include "plan.h"

/* Fill chunks, parts, rows and taps of a plan whose geometry is chosen; false without memory. */
bool weights_arrange(struct plan *plan, const struct layer *layer);

#endif
