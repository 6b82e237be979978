/* A claimed chain inside a session: onnxruntime's node and our layers. */
#ifndef SPARSE_COMPUTE_H
#define SPARSE_COMPUTE_H

#include "provider.h"

OrtStatus *provider_compile(OrtEp *ep, const OrtGraph **graphs, const OrtNode **fused, size_t count,
                            OrtNodeComputeInfo **infos, OrtNode **contexts);
void provider_release_infos(OrtEp *ep, OrtNodeComputeInfo **infos, size_t count);

#endif
