/* What the provider takes from a graph. */
#ifndef SPARSE_CAPABILITY_H
#define SPARSE_CAPABILITY_H

#include "provider.h"

OrtStatus *provider_capability(OrtEp *ep, const OrtGraph *graph, OrtSupport *support);

#endif
