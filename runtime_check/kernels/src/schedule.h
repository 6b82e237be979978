/* From a chain and the sizes of its inputs to a schedule. */
#ifndef SPARSE_SCHEDULE_H
#define SPARSE_SCHEDULE_H

#include "chain.h"

/* Returns NULL and points `reason` to a constant text when the chain cannot run on such inputs. */
struct schedule *schedule_create(const struct chain *chain, const struct extent *inputs, int threads,
                                 const char **reason);
void schedule_release(const struct chain *chain, struct schedule *schedule);

#endif
