/* The layers of a graph, which of them are taken, and which of those can run one after the other as one node. */
#ifndef SPARSE_UNITS_H
#define SPARSE_UNITS_H

#include "cost.h"
#include "match.h"

struct unit {
  const OrtNode *node; /* where the layer starts */
  struct match match;
  int64_t nonzeros, weights; /* -1 where they were not counted */
  const char *reason;        /* why the unit is not taken, or NULL */
  int64_t level;             /* taken units of one level depend on each other directly or not at all */
};

struct units {
  struct unit *all;
  size_t count;
};

/* What is known against taking a layer; NULL takes all that can be run. */
typedef const char *(*objection)(const struct layer_spec *, const struct surroundings *, int64_t, const struct isa *);

/* Returns NULL, or what went wrong; the reader may hold an error too. Release in any case. */
const char *units_find(struct units *units, struct reader *reader, const OrtGraph *graph, objection object,
                       const struct isa *isa);
void units_release(struct units *units);

#endif
