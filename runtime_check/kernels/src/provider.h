/* The entry points of the library. Everything else in it is hidden. */
#ifndef SPARSE_PROVIDER_H
#define SPARSE_PROVIDER_H

#include "ort_abi.h"
#include "run.h"

#define EXPORTED __attribute__((visibility("default")))

/* What onnxruntime calls when the library is registered and unregistered. */
EXPORTED OrtStatus *CreateEpFactories(const char *registration, const OrtApiBase *base, const OrtLogger *logger,
                                      OrtEpFactory **factories, size_t room, size_t *count);
EXPORTED OrtStatus *ReleaseEpFactory(OrtEpFactory *factory);

/* Copy the report of session `id` (provider option "report") to `buffer` and forget it. Returns its length; where
   that is more than `size`, nothing is copied and nothing forgotten. */
EXPORTED size_t SparseKernelsReport(uint64_t id, char *buffer, size_t size);

/* The name of the instruction set that this processor is given. */
EXPORTED const char *SparseKernelsInstructions(void);

/* One session's provider. */
struct provider {
  OrtEp ep; /* first: onnxruntime's pointer is ours */
  const OrtApi *api;
  const OrtEpApi *ep_api;
  const struct isa *isa;
  bool claim_all; /* option "claim" = "all": whatever can be run, sparse or not */
  uint64_t report;
  struct workspace_pool pool;
  struct helpers helpers;
};

#endif
