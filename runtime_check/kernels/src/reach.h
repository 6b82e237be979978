/* Lists of what the windows of tiny images reach inside the image. */
#ifndef SPARSE_REACH_H
#define SPARSE_REACH_H

#include "plan.h"

/* Fill in a tiny plan's runs and reaches; false without memory. */
bool reach_prepare(struct plan *plan, const struct layer *layer);

#endif
