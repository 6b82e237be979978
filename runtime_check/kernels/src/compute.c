#include "compute.h"

#include <stdlib.h>
#include <string.h>

#include "chain.h"
#include "rebuild.h"
#include "report.h"

struct compute {
  OrtNodeComputeInfo info; /* first: onnxruntime's pointer is ours */
  struct provider *provider;
  struct chain *chain;
  size_t *inputs, *outputs; /* of the fused node, for each of the chain's */
};

static OrtStatus *failure(const OrtApi *api, int code, const char *reason) {
  char text[160] = "sparse kernels: ";
  strncat(text, reason, sizeof text - strlen(text) - 1);
  return api->CreateStatus(code, text);
}

/* Sizes and memory of one input. */
static OrtStatus *input(const OrtApi *api, const OrtKernelContext *context, size_t index, struct extent *extent,
                        float **data) {
  const OrtValue *value = NULL;
  OrtTensorInfo *info = NULL;
  size_t rank = 0;
  int type = 0;
  OrtStatus *error = api->KernelContext_GetInput(context, index, &value);
  if (error) return error;
  if (!value) return failure(api, ORT_INVALID_ARGUMENT, "an input is missing");
  if ((error = api->GetTensorTypeAndShape(value, &info))) return error;
  if (!(error = api->GetTensorElementType(info, &type)) && !(error = api->GetDimensionsCount(info, &rank))) {
    if (type != ORT_FLOAT || rank > EXTENT_RANK)
      error = failure(api, ORT_INVALID_ARGUMENT, "an input is not a float32 tensor of at most eight axes");
    else
      error = api->GetDimensions(info, extent->sizes, rank);
  }
  api->ReleaseTensorInfo(info);
  extent->rank = (int)rank;
  return error ? error : api->GetTensorMutableData((OrtValue *)value, (void **)data);
}

static void *parallel(void *context, void (*task)(void *, size_t), size_t count, void *data) {
  void **both = context;
  const OrtApi *api = both[0];
  if (count == 1) {
    task(data, 0);
    return NULL;
  }
  return api->KernelContext_ParallelFor(both[1], task, count, 0, data);
}

/* Make the outputs and run. */
static OrtStatus *run(const struct compute *compute, OrtKernelContext *context, const struct schedule *schedule,
                      float **values) {
  struct provider *provider = compute->provider;
  const struct chain *chain = compute->chain;
  const OrtApi *api = provider->api;
  OrtStatus *error = NULL;
  for (int i = 0; i < chain->output_count && !error; i++) {
    const struct extent *extent = &schedule->values[chain->outputs[i]].extent;
    OrtValue *output = NULL;
    error = api->KernelContext_GetOutput(context, compute->outputs[i], extent->sizes, (size_t)extent->rank, &output);
    if (!error) error = api->GetTensorMutableData(output, (void **)&values[chain->outputs[i]]);
  }
  if (error) return error;
  struct workspace *workspace =
      workspace_take(&provider->pool, schedule->value_bytes + schedule->packed_bytes, schedule->sum_bytes);
  if (!workspace) return failure(api, ORT_FAIL, "out of memory");
  void *both[2] = {(void *)api, context};
  const struct threads threads = {parallel, both, &provider->helpers};
  error = chain_run(chain, schedule, values, workspace, &threads);
  workspace_give(&provider->pool, workspace);
  return error;
}

enum { FEW_VALUES = 4096, FEW_INPUTS = 64 }; /* of a chain whose run allocates nothing: 36 KB of stack */

static OrtStatus *compute_run(OrtNodeComputeInfo *info, void *state, OrtKernelContext *context) {
  struct compute *compute = (struct compute *)info;
  struct chain *chain = compute->chain;
  const OrtApi *api = compute->provider->api;
  float *few[FEW_VALUES], **values = few;
  struct extent few_extents[FEW_INPUTS], *extents = few_extents;
  OrtStatus *error = NULL;
  (void)state;
  if (chain->value_count > FEW_VALUES) values = calloc((size_t)chain->value_count, sizeof *values);
  else memset(few, 0, (size_t)chain->value_count * sizeof *few);
  if (chain->input_count > FEW_INPUTS) extents = calloc((size_t)chain->input_count, sizeof *extents);
  if (!values || !extents) error = failure(api, ORT_FAIL, "out of memory");
  for (int i = 0; i < chain->input_count && !error; i++)
    error = input(api, context, compute->inputs[i], &extents[i], &values[i]);
  if (!error) {
    const char *reason;
    struct schedule *schedule = schedule_borrow(chain, extents, helpers_threads(&compute->provider->helpers), &reason);
    error = schedule ? run(compute, context, schedule, values) : failure(api, ORT_INVALID_ARGUMENT, reason);
    if (schedule) schedule_return(chain, schedule);
  }
  if (values != few) free(values);
  if (extents != few_extents) free(extents);
  return error;
}

static OrtStatus *create_state(OrtNodeComputeInfo *info, OrtComputeContext *context, void **state) {
  (void)context;
  *state = info; /* nothing of its own: layers are immutable */
  return NULL;
}

static void release_state(OrtNodeComputeInfo *info, void *state) {
  (void)info;
  (void)state;
}

static void compute_release(struct compute *compute) {
  if (!compute) return;
  chain_release(compute->chain);
  free(compute->inputs);
  free(compute->outputs);
  free(compute);
}

OrtStatus *provider_compile(OrtEp *ep, const OrtGraph **graphs, const OrtNode **fused, size_t count,
                            OrtNodeComputeInfo **infos, OrtNode **contexts) {
  struct provider *provider = (struct provider *)ep;
  struct reader reader = {provider->api, NULL};
  const char *reason = NULL;
  (void)contexts;
  report_compiled(provider->report);
  for (size_t i = 0; i < count; i++) {
    struct compute *compute = calloc(1, sizeof *compute);
    if (compute) {
      compute->info = (OrtNodeComputeInfo){ORT_INTERFACE, create_state, compute_run, release_state};
      compute->provider = provider;
      reason = rebuild(&reader, graphs[i], fused[i], provider->isa, &compute->chain, &compute->inputs,
                       &compute->outputs);
    }
    if (!compute || reason || reader.error) {
      compute_release(compute);
      while (i-- > 0) {
        compute_release((struct compute *)infos[i]);
        infos[i] = NULL;
      }
      return reader.error ? reader.error : failure(provider->api, ORT_EP_FAIL, reason ? reason : "out of memory");
    }
    infos[i] = &compute->info;
  }
  return NULL;
}

void provider_release_infos(OrtEp *ep, OrtNodeComputeInfo **infos, size_t count) {
  (void)ep;
  for (size_t i = 0; i < count; i++) compute_release((struct compute *)infos[i]);
}
