/* From the graph of a fused node, which holds nothing but claimed layers, to a chain. */
#ifndef SPARSE_REBUILD_H
#define SPARSE_REBUILD_H

#include "chain.h"
#include "graph.h"

/* `inputs` and `outputs` become the positions of the chain's own among those of the fused node. Returns NULL, or what
   is wrong; the reader may hold an error too. What was made is the caller's in any case. */
const char *rebuild(struct reader *reader, const OrtGraph *graph, const OrtNode *fused, const struct isa *isa,
                    struct chain **chain, size_t **inputs, size_t **outputs);

#endif
