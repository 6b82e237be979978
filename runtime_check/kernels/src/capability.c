#include "capability.h"

#include <stdlib.h>

#include "cost.h"
#include "report.h"
#include "units.h"

/* Claim units level by level: all of one level become one node. */
static OrtStatus *fuse(const struct provider *provider, const struct units *units, OrtSupport *support) {
  const OrtFusionOptions options = {ORT_INTERFACE, true};
  const OrtNode **nodes = calloc(units->count * MATCH_NODES + 1, sizeof *nodes);
  OrtStatus *error = nodes ? NULL : provider->api->CreateStatus(ORT_EP_FAIL, "sparse kernels: out of memory");
  int64_t most = -1;
  for (size_t i = 0; i < units->count; i++)
    if (!units->all[i].reason && units->all[i].level > most) most = units->all[i].level;
  for (int64_t level = 0; level <= most && !error; level++) {
    size_t count = 0;
    for (size_t i = 0; i < units->count; i++) {
      const struct unit *unit = &units->all[i];
      if (unit->reason || unit->level != level) continue;
      for (size_t j = 0; j < unit->match.count; j++) nodes[count++] = unit->match.nodes[j];
    }
    if (count > 0) error = provider->ep_api->AddNodesToFuse(support, nodes, count, &options);
  }
  free(nodes);
  return error;
}

static void report(const struct provider *provider, struct reader *reader, const OrtGraph *graph,
                   const struct units *units) {
  for (size_t i = 0; i < units->count; i++) {
    const struct unit *unit = &units->all[i];
    if (!match_has_weights(reader, unit->node)) continue;
    report_layer(provider->report, node_operator(reader, unit->node), unit->nonzeros, unit->weights, unit->reason,
                 node_name(reader, unit->node));
  }
  if (!graph_is_inner(reader, graph)) report_round(provider->report);
}

OrtStatus *provider_capability(OrtEp *ep, const OrtGraph *graph, OrtSupport *support) {
  struct provider *provider = (struct provider *)ep;
  struct reader reader = {provider->api, NULL};
  struct units units;
  const char *reason = units_find(&units, &reader, graph, provider->claim_all ? NULL : cost_objection, provider->isa);
  OrtStatus *error = reader.error;
  if (!error && reason) error = provider->api->CreateStatus(ORT_EP_FAIL, reason);
  if (!error) {
    report(provider, &reader, graph, &units);
    error = reader.error ? reader.error : fuse(provider, &units, support);
  }
  units_release(&units);
  return error;
}
