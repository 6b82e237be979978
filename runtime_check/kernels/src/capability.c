#include "capability.h"

#include <stdlib.h>

#include "cost.h"
#include "match.h"
#include "report.h"

static bool is_grouped(struct reader *reader, const OrtNode *node) {
  int64_t group = 1;
  return node && node_is(reader, node, "Conv") && attribute_int(reader, node, "group", &group) && group > 1;
}

/* The node whose activation makes x, where it is one, or the one that makes x itself. */
static const OrtNode *maker(struct reader *reader, const OrtValueInfo *x) {
  const OrtValueInfo *inputs[MAX_INPUTS];
  const OrtNode *node = value_producer(reader, x);
  if (!node || !(node_is(reader, node, "Relu") || node_is(reader, node, "Clip"))) return node;
  return node_inputs(reader, node, inputs) > 0 ? value_producer(reader, inputs[0]) : NULL;
}

static struct surroundings look_around(struct reader *reader, const struct match *match) {
  struct surroundings around = {
      .grouped_before = is_grouped(reader, maker(reader, match->x)),
      .grouped_after = is_grouped(reader, value_consumer(reader, match->output)),
  };
  const int64_t *const sizes = match->result.sizes;
  if (match->result.rank == 4 && sizes[2] > 0 && sizes[3] > 0) {
    if (__builtin_mul_overflow(sizes[2], sizes[3], &around.positions)) around.positions = 0;
  }
  return around;
}

/* Claim the layer that starts at `node`, or report why not. */
static void consider(struct provider *provider, struct reader *reader, const OrtNode *node, OrtSupport *support,
                     struct taken *taken) {
  struct match match;
  int64_t nonzeros = -1, weights = -1;
  const char *reason = match_layer(reader, node, taken, true, &match);
  if (reader->error) return;
  if (!reason) reason = layer_objection(&match.spec);
  if (!reason) {
    weights = match.spec.out_channels * match.spec.in_channels * match.spec.kernel[0] * match.spec.kernel[1];
    nonzeros = count_nonzeros(match.spec.weight, weights);
    const struct surroundings around = look_around(reader, &match);
    if (!provider->claim_all) reason = cost_objection(&match.spec, &around, nonzeros, provider->isa);
  }
  if (!reason) {
    const OrtFusionOptions options = {ORT_INTERFACE, true};
    reader->error = provider->ep_api->AddNodesToFuse(support, match.nodes, match.count, &options);
    for (size_t i = 0; i < match.count; i++) taken->nodes[taken->count++] = match.nodes[i];
  }
  report_layer(provider->report, node_operator(reader, node), nonzeros, weights, reason, node_name(reader, node));
}

OrtStatus *provider_capability(OrtEp *ep, const OrtGraph *graph, OrtSupport *support) {
  struct provider *provider = (struct provider *)ep;
  struct reader reader = {provider->api, NULL};
  size_t count = 0;
  OrtStatus *error = provider->api->Graph_GetNumNodes(graph, &count);
  if (error || count == 0) return error;
  const OrtNode **nodes = calloc(count, sizeof *nodes);
  struct taken taken = {calloc(count, sizeof *taken.nodes), 0};
  if (!nodes || !taken.nodes) {
    error = provider->api->CreateStatus(ORT_EP_FAIL, "sparse kernels: out of memory");
  } else if (!(error = provider->api->Graph_GetNodes(graph, nodes, count))) {
    for (size_t i = 0; i < count && !reader.error; i++)
      if (match_starts(&reader, nodes[i])) consider(provider, &reader, nodes[i], support, &taken);
    error = reader.error;
  }
  free(nodes);
  free(taken.nodes);
  return error;
}
