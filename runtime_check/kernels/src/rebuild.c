#include "rebuild.h"

#include <stdlib.h>
#include <string.h>

#include "match.h"

/* Everything that has a name: what comes in first, then what each layer makes. */
struct names {
  const char **all;
  int count;
};

static int find(const struct names *names, const char *name) {
  for (int i = 0; i < names->count; i++)
    if (strcmp(names->all[i], name) == 0) return i;
  return -1;
}

struct work {
  const OrtNode **nodes;
  size_t node_count;
  struct match *matches;
  size_t match_count;
  struct taken taken;
  struct names names;
  const OrtValueInfo **boundary; /* of the fused node: inputs or outputs */
};

static void release(struct work *work) {
  free(work->nodes);
  free(work->matches);
  free(work->taken.nodes);
  free(work->names.all);
  free(work->boundary);
}

static bool is_taken(const struct taken *taken, const OrtNode *node) {
  for (size_t i = 0; i < taken->count; i++)
    if (taken->nodes[i] == node) return true;
  return false;
}

static const char *match_all(struct reader *reader, const OrtGraph *graph, struct work *work) {
  if ((reader->error = reader->api->Graph_GetNumNodes(graph, &work->node_count))) return NULL;
  work->nodes = calloc(work->node_count + 1, sizeof *work->nodes);
  work->matches = calloc(work->node_count + 1, sizeof *work->matches);
  work->taken.nodes = calloc(work->node_count + 1, sizeof *work->taken.nodes);
  work->names.all = calloc(3 * work->node_count + 1, sizeof *work->names.all);
  if (!work->nodes || !work->matches || !work->taken.nodes || !work->names.all) return "out of memory";
  if ((reader->error = reader->api->Graph_GetNodes(graph, work->nodes, work->node_count))) return NULL;
  for (size_t i = 0; i < work->node_count; i++) {
    if (!match_starts(reader, work->nodes[i]) || is_taken(&work->taken, work->nodes[i])) continue;
    struct match *match = &work->matches[work->match_count++];
    const char *reason = match_layer(reader, work->nodes[i], &work->taken, false, match);
    if (reason) return reason;
    for (size_t j = 0; j < match->count; j++) work->taken.nodes[work->taken.count++] = match->nodes[j];
  }
  return work->taken.count == work->node_count && work->match_count > 0 ? NULL : "unexpected nodes";
}

static bool is_made(struct reader *reader, const struct work *work, const char *name) {
  for (size_t i = 0; i < work->match_count; i++)
    if (strcmp(value_name(reader, work->matches[i].output), name) == 0) return true;
  return false;
}

/* Names of what comes from outside. */
static int name_inputs(struct reader *reader, struct work *work) {
  for (size_t i = 0; i < work->match_count; i++) {
    const OrtValueInfo *const reads[2] = {work->matches[i].x, work->matches[i].residual};
    for (int j = 0; j < 2; j++) {
      const char *name = reads[j] ? value_name(reader, reads[j]) : NULL;
      if (!name || find(&work->names, name) >= 0 || is_made(reader, work, name)) continue;
      work->names.all[work->names.count++] = name;
    }
  }
  return work->names.count;
}

/* The layers in an order in which everything is made before it is read. */
static const char *order_steps(struct reader *reader, struct work *work, const struct isa *isa, struct step *steps,
                               int *count) {
  for (bool progress = true; progress;) {
    progress = false;
    for (size_t i = 0; i < work->match_count; i++) {
      struct match *const match = &work->matches[i];
      if (match->count == 0) continue; /* has its step */
      const int x = find(&work->names, value_name(reader, match->x));
      const int residual = match->residual ? find(&work->names, value_name(reader, match->residual)) : -1;
      if (x < 0 || (match->residual && residual < 0)) continue;
      const char *reason;
      struct layer *layer = layer_create(&match->spec, isa, &reason);
      if (!layer) return reason;
      steps[(*count)++] = (struct step){layer, x, residual, work->names.count};
      work->names.all[work->names.count++] = value_name(reader, match->output);
      match->count = 0;
      progress = true;
    }
  }
  return (size_t)*count == work->match_count ? NULL : "unexpected nodes";
}

/* Which of the fused node's outputs come from which value. */
static const char *find_outputs(struct reader *reader, const OrtNode *fused, struct work *work, int **values,
                                size_t **positions, size_t *count) {
  const OrtApi *api = reader->api;
  free(work->boundary);
  work->boundary = NULL;
  if ((reader->error = api->Node_GetNumOutputs(fused, count))) return NULL;
  work->boundary = calloc(*count + 1, sizeof *work->boundary);
  *values = calloc(*count + 1, sizeof **values);
  *positions = calloc(*count + 1, sizeof **positions);
  if (!work->boundary || !*values || !*positions) return "out of memory";
  if ((reader->error = api->Node_GetOutputs(fused, work->boundary, *count))) return NULL;
  for (size_t i = 0; i < *count; i++) {
    (*positions)[i] = i;
    (*values)[i] = find(&work->names, value_name(reader, work->boundary[i]));
    if ((*values)[i] < 0) return "unexpected nodes";
  }
  return NULL;
}

/* Where the fused node has the inputs that the layers read. */
static const char *find_inputs(struct reader *reader, const OrtNode *fused, struct work *work, int inputs,
                               size_t **positions) {
  const OrtApi *api = reader->api;
  size_t count = 0;
  if ((reader->error = api->Node_GetNumInputs(fused, &count))) return NULL;
  work->boundary = calloc(count + 1, sizeof *work->boundary);
  *positions = calloc((size_t)inputs + 1, sizeof **positions);
  if (!work->boundary || !*positions) return "out of memory";
  if ((reader->error = api->Node_GetInputs(fused, work->boundary, count))) return NULL;
  for (int i = 0; i < inputs; i++) {
    size_t at = 0;
    while (at < count && strcmp(value_name(reader, work->boundary[at]), work->names.all[i]) != 0) at++;
    if (at == count) return "unexpected nodes";
    (*positions)[i] = at;
  }
  return NULL;
}

const char *rebuild(struct reader *reader, const OrtGraph *graph, const OrtNode *fused, const struct isa *isa,
                    struct chain **chain, size_t **inputs, size_t **outputs) {
  struct work work = {0};
  struct step *steps = NULL;
  int *values = NULL, step_count = 0, input_count = 0;
  size_t output_count = 0;
  const char *reason = match_all(reader, graph, &work);
  if (!reason && !reader->error) {
    input_count = name_inputs(reader, &work);
    steps = calloc(work.match_count + 1, sizeof *steps);
    reason = steps ? order_steps(reader, &work, isa, steps, &step_count) : "out of memory";
  }
  if (!reason && !reader->error) reason = find_inputs(reader, fused, &work, input_count, inputs);
  if (!reason && !reader->error) reason = find_outputs(reader, fused, &work, &values, outputs, &output_count);
  /* The chain takes steps and layers over, whatever was found. */
  *chain = chain_create(steps, step_count, work.names.count, input_count, values, (int)output_count);
  release(&work);
  return reason ? reason : *chain ? NULL : "out of memory";
}
