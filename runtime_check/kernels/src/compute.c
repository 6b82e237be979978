#include "compute.h"

#include <stdlib.h>
#include <string.h>

#include "match.h"
#include "run.h"

struct compute {
  OrtNodeComputeInfo info; /* first: onnxruntime's pointer is ours */
  struct provider *provider;
  struct layer *layer;
  size_t x, residual; /* inputs of the fused node */
  bool has_residual;
};

struct tensor {
  float *data;
  int rank;
  int64_t sizes[MAX_RANK];
};

static OrtStatus *failure(const OrtApi *api, int code, const char *reason) {
  char text[160] = "sparse kernels: ";
  strncat(text, reason, sizeof text - strlen(text) - 1);
  return api->CreateStatus(code, text);
}

static OrtStatus *input(const OrtApi *api, const OrtKernelContext *context, size_t index, struct tensor *tensor) {
  const OrtValue *value = NULL;
  OrtTensorInfo *info = NULL;
  size_t rank = 0;
  int type = 0;
  OrtStatus *error = api->KernelContext_GetInput(context, index, &value);
  if (error) return error;
  if (!value) return failure(api, ORT_INVALID_ARGUMENT, "an input is missing");
  if ((error = api->GetTensorTypeAndShape(value, &info))) return error;
  if (!(error = api->GetTensorElementType(info, &type)) && !(error = api->GetDimensionsCount(info, &rank))) {
    if (type != ORT_FLOAT || rank > MAX_RANK)
      error = failure(api, ORT_INVALID_ARGUMENT, "an input is not a float32 tensor of at most eight axes");
    else
      error = api->GetDimensions(info, tensor->sizes, rank);
  }
  api->ReleaseTensorInfo(info);
  tensor->rank = (int)rank;
  return error ? error : api->GetTensorMutableData((OrtValue *)value, (void **)&tensor->data);
}

/* Batch, height and width as the layer counts them, and the output's sizes; returns what is wrong, or NULL. */
static const char *resolve(const struct layer *layer, const struct tensor *x, int64_t image[3], struct tensor *y) {
  y->rank = x->rank;
  memcpy(y->sizes, x->sizes, sizeof y->sizes);
  if (layer->linear) {
    if (x->rank < 1 || x->sizes[x->rank - 1] != layer->in_channels) return "the input has the wrong number of channels";
    image[0] = image[1] = image[2] = 1;
    for (int i = 0; i < x->rank - 1; i++)
      if (__builtin_mul_overflow(image[0], x->sizes[i], &image[0])) return "tensor too large";
    y->sizes[x->rank - 1] = layer->out_channels;
    return NULL;
  }
  if (x->rank != 4) return "the input does not have four axes";
  if (x->sizes[1] != layer->in_channels) return "the input has the wrong number of channels";
  image[0] = x->sizes[0];
  image[1] = x->sizes[2];
  image[2] = x->sizes[3];
  y->sizes[1] = layer->out_channels;
  if (!layer_output(layer, image[1], image[2], &y->sizes[2], &y->sizes[3]))
    return "image smaller than the kernel, or too large";
  return NULL;
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

static OrtStatus *run(struct compute *compute, OrtKernelContext *context, const struct tensor *x,
                      const struct tensor *residual, const struct tensor *y, const int64_t image[3]) {
  struct provider *provider = compute->provider;
  const OrtApi *api = provider->api;
  const char *reason;
  struct plan *plan = plan_borrow(compute->layer, image[0], image[1], image[2], &reason);
  if (!plan) return failure(api, ORT_INVALID_ARGUMENT, reason);
  struct workspace *workspace = workspace_take(&provider->pool, plan->packed_bytes, plan->sum_bytes);
  OrtStatus *error;
  if (!workspace) {
    error = failure(api, ORT_FAIL, "out of memory");
  } else {
    void *both[2] = {(void *)api, context};
    const struct threads threads = {parallel, both, &provider->several_threads};
    error = layer_run(compute->layer, plan, x->data, residual ? residual->data : NULL, y->data, workspace, &threads);
    workspace_give(&provider->pool, workspace);
  }
  plan_return(compute->layer, plan);
  return error;
}

static OrtStatus *compute_run(OrtNodeComputeInfo *info, void *state, OrtKernelContext *context) {
  struct compute *compute = (struct compute *)info;
  (void)state;
  const OrtApi *api = compute->provider->api;
  struct tensor x, y = {0}, residual;
  int64_t image[3];
  OrtStatus *error = input(api, context, compute->x, &x);
  if (error) return error;
  const char *reason = resolve(compute->layer, &x, image, &y);
  if (reason) return failure(api, ORT_INVALID_ARGUMENT, reason);
  if (compute->has_residual) {
    if ((error = input(api, context, compute->residual, &residual))) return error;
    if (residual.rank != y.rank || memcmp(residual.sizes, y.sizes, (size_t)y.rank * sizeof *y.sizes) != 0)
      return failure(api, ORT_INVALID_ARGUMENT, "the two sides of an Add differ in shape");
  }
  OrtValue *output = NULL;
  if ((error = api->KernelContext_GetOutput(context, 0, y.sizes, (size_t)y.rank, &output))) return error;
  if ((error = api->GetTensorMutableData(output, (void **)&y.data))) return error;
  if (image[0] == 0) return NULL; /* an empty batch has an empty result */
  return run(compute, context, &x, compute->has_residual ? &residual : NULL, &y, image);
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
  layer_release(compute->layer);
  free(compute);
}

/* The position of the fused node's input that is called like `value`. */
static bool locate(struct reader *reader, const OrtNode *fused, const OrtValueInfo *value, size_t *position) {
  const OrtValueInfo *inputs[MAX_INPUTS];
  const size_t count = node_inputs(reader, fused, inputs);
  const char *name = value_name(reader, value);
  for (*position = 0; *position < count; ++*position)
    if (inputs[*position] && strcmp(value_name(reader, inputs[*position]), name) == 0) return true;
  return false;
}

/* Find the claimed layer again in the graph that holds nothing else; NULL, or what is wrong with it. */
static const char *rebuild(struct reader *reader, const OrtGraph *graph, const OrtNode *fused,
                           struct compute *compute) {
  const OrtNode *nodes[MATCH_NODES];
  const struct taken none = {NULL, 0};
  struct match match;
  const char *reason;
  size_t count = 0, start = 0;
  if ((reader->error = reader->api->Graph_GetNumNodes(graph, &count)) || count > MATCH_NODES || count == 0)
    return "unexpected nodes";
  if ((reader->error = reader->api->Graph_GetNodes(graph, nodes, count))) return "unreadable graph";
  while (start < count && !match_starts(reader, nodes[start])) start++;
  if (start == count) return "unexpected nodes";
  if ((reason = match_layer(reader, nodes[start], &none, false, &match))) return reason;
  if (match.count != count || !locate(reader, fused, match.x, &compute->x)) return "unexpected nodes";
  compute->has_residual = match.residual != NULL;
  if (match.residual && !locate(reader, fused, match.residual, &compute->residual)) return "unexpected nodes";
  compute->layer = layer_create(&match.spec, compute->provider->isa, &reason);
  return reason;
}

OrtStatus *provider_compile(OrtEp *ep, const OrtGraph **graphs, const OrtNode **fused, size_t count,
                            OrtNodeComputeInfo **infos, OrtNode **contexts) {
  struct provider *provider = (struct provider *)ep;
  struct reader reader = {provider->api, NULL};
  const char *reason = NULL;
  (void)contexts;
  for (size_t i = 0; i < count; i++) {
    struct compute *compute = calloc(1, sizeof *compute);
    if (compute) {
      compute->info = (OrtNodeComputeInfo){ORT_INTERFACE, create_state, compute_run, release_state};
      compute->provider = provider;
      reason = rebuild(&reader, graphs[i], fused[i], compute);
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
