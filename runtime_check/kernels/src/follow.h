/* What is computed along with a layer: an Add, bounds, an activation. */
#ifndef SPARSE_FOLLOW_H
#define SPARSE_FOLLOW_H

#include "match.h"

/* Join what follows the match's layer and is not in `taken`; `proven` as in `match_layer`. */
void follow(struct reader *reader, const struct taken *taken, bool proven, struct match *match);

#endif
