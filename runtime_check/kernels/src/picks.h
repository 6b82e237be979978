/* Which pixels a tiny image's copy for COLUMNS is made of. */
#ifndef SPARSE_PICKS_H
#define SPARSE_PICKS_H

#include "plan.h"

/* Fill in a new plan's picks, and slices where neighbours lie side by side, if it needs them; false without memory. */
bool picks_prepare(struct plan *plan, const struct layer *layer);

#endif
