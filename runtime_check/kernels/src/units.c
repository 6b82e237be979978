#include "units.h"

#include <stdlib.h>

/* The graph's nodes in the order of their addresses, each with its unit and its level. */
struct place {
  const OrtNode *node;
  size_t position; /* in the graph's own order */
  struct unit *unit;
  int64_t level; /* of the taken units that the node depends on, -1 where there are none */
};

struct map {
  struct place *places;
  struct place **order; /* the graph's */
  size_t count;
};

static int by_address(const void *a, const void *b) {
  const uintptr_t x = (uintptr_t)((const struct place *)a)->node, y = (uintptr_t)((const struct place *)b)->node;
  return x < y ? -1 : x > y;
}

static struct place *find(const struct map *map, const OrtNode *node) {
  const struct place key = {.node = node};
  return node ? bsearch(&key, map->places, map->count, sizeof key, by_address) : NULL;
}

static struct place *maker(const struct map *map, struct reader *reader, const OrtValueInfo *value) {
  return find(map, value ? value_producer(reader, value) : NULL);
}

static bool is_auxiliary(const struct unit *unit) { return unit->match.spec.operation >= DEPTHWISE; }

static bool is_grouped(struct reader *reader, const OrtNode *node) {
  int64_t group = 1;
  return node && node_is(reader, node, "Conv") && attribute_int(reader, node, "group", &group) && group > 1;
}

static int64_t positions(const struct match *match) {
  const int64_t *const sizes = match->result.sizes;
  int64_t count = 0;
  if (match->result.rank != 4 || sizes[2] <= 0 || sizes[3] <= 0) return 0;
  return __builtin_mul_overflow(sizes[2], sizes[3], &count) ? 0 : count;
}

/* What is known of a layer wherever it stands. */
static struct surroundings sizes(const struct match *match) {
  const struct shape *x = &match->input;
  struct surroundings found = {.positions = positions(match), .rows = 1};
  for (int i = 0; i < 2; i++) found.image[i] = x->rank == 4 && x->sizes[2 + i] > 0 ? x->sizes[2 + i] : 0;
  for (int i = 0; i < x->rank - 1; i++)
    if (x->sizes[i] > 0 && found.rows < POSITION_LIMIT / x->sizes[i]) found.rows *= x->sizes[i];
  return found;
}

static struct surroundings look_around(struct reader *reader, const struct map *map, const struct match *match) {
  const struct place *before = maker(map, reader, match->x);
  const struct place *after = find(map, value_consumer(reader, match->output));
  struct surroundings around = sizes(match);
  around.grouped_before = before && !before->unit && is_grouped(reader, before->node);
  around.grouped_after = after && !after->unit && is_grouped(reader, after->node);
  around.joined_before = before && before->unit;
  around.joined_after = after && after->unit;
  around.interrupts = before && !before->unit && !around.grouped_before && after && !after->unit && !around.grouped_after;
  around.squeezed = (before && before->unit && is_auxiliary(before->unit)) || (after && after->unit && is_auxiliary(after->unit));
  return around;
}

/* All units that can be run and are not too costly wherever they stand. */
static const char *collect(struct units *units, struct map *map, struct reader *reader, objection object,
                           const struct isa *isa) {
  struct taken taken = {calloc(map->count + 1, sizeof *taken.nodes), 0};
  if (!taken.nodes) return "out of memory";
  for (size_t i = 0; i < map->count && !reader->error; i++) {
    const OrtNode *node = map->order[i]->node;
    if (map->order[i]->unit || !match_starts(reader, node)) continue;
    struct unit *unit = &units->all[units->count++];
    *unit = (struct unit){.node = node, .nonzeros = -1, .weights = -1};
    unit->reason = match_layer(reader, node, &taken, true, &unit->match);
    const struct surroundings own = sizes(&unit->match);
    if (!unit->reason) unit->reason = layer_objection(&unit->match.spec);
    if (!unit->reason) unit->reason = layer_image_objection(&unit->match.spec, own.image[0], own.image[1]);
    if (unit->reason) continue;
    const struct layer_spec *spec = &unit->match.spec;
    unit->weights = spec->out_channels * spec->kernel[0] * spec->kernel[1];
    if (!is_auxiliary(unit)) unit->weights *= spec->in_channels;
    if (spec->weight) unit->nonzeros = count_nonzeros(spec->weight, unit->weights);
    struct surroundings best = own;
    best.joined_before = best.joined_after = best.squeezed = true;
    if (object && (unit->reason = object(spec, &best, unit->nonzeros, isa))) continue;
    for (size_t j = 0; j < unit->match.count; j++) {
      taken.nodes[taken.count++] = unit->match.nodes[j];
      find(map, unit->match.nodes[j])->unit = unit;
    }
  }
  free(taken.nodes);
  return NULL;
}

static void drop(const struct map *map, struct unit *unit, const char *reason) {
  unit->reason = reason;
  for (size_t j = 0; j < unit->match.count; j++) find(map, unit->match.nodes[j])->unit = NULL;
}

static bool makes(const struct map *map, struct reader *reader, const OrtValueInfo *value) {
  const struct place *place = maker(map, reader, value);
  return place && place->unit;
}

/* Whether taken units make all that the auxiliary unit reads, and nothing else reads its output. */
static bool lies_between(const struct map *map, struct reader *reader, const struct unit *unit) {
  const OrtNode *nodes[CONSUMERS];
  const size_t count = value_consumers(reader, unit->match.output, nodes, CONSUMERS);
  bool between = count > 0 && count <= CONSUMERS && makes(map, reader, unit->match.x);
  if (between && unit->match.residual) between = makes(map, reader, unit->match.residual);
  for (size_t i = 0; between && i < count; i++) {
    const struct place *after = find(map, nodes[i]);
    between = after && after->unit;
  }
  return between;
}

static void decide(struct units *units, const struct map *map, struct reader *reader, objection object,
                   const struct isa *isa) {
  /* There and back: one dropped unit may take a long row of others with it, before or after it. */
  bool back = false;
  for (bool changed = true; changed && !reader->error; back = !back) {
    changed = false;
    for (size_t i = 0; i < units->count; i++) {
      struct unit *unit = &units->all[back ? units->count - 1 - i : i];
      const char *reason = NULL;
      if (unit->reason) continue;
      if (is_auxiliary(unit) && !lies_between(map, reader, unit)) {
        reason = "not between sparse layers";
      } else if (object) {
        const struct surroundings around = look_around(reader, map, &unit->match);
        reason = object(&unit->match.spec, &around, unit->nonzeros, isa);
      }
      if (!reason) continue;
      drop(map, unit, reason);
      changed = true;
    }
  }
}

/* The level that one node adds to what depends on it: itself where it is taken, the next where it lies between. */
static int64_t level_after(const struct place *from, const struct place *to) {
  if (!from) return -1;
  if (from->unit) return from->unit->level;
  return to->unit ? from->level + 1 : from->level;
}

static bool raise(struct place *place, struct place *from) {
  const int64_t level = level_after(from, place);
  int64_t *const own = place->unit ? &place->unit->level : &place->level;
  if (level <= *own) return false;
  *own = level;
  return true;
}

/* Levels rise until every node has at least those of what it reads. A node between two units lifts the second. */
static const char *find_levels(const struct map *map, struct reader *reader) {
  size_t room = 64;
  const OrtValueInfo **values = calloc(room, sizeof *values);
  for (size_t i = 0; i < map->count; i++) map->places[i].level = -1;
  for (bool changed = true; changed && values && !reader->error;) {
    changed = false;
    for (size_t i = 0; i < map->count && values; i++) {
      struct place *place = map->order[i];
      size_t count = node_reads(reader, place->node, values, room);
      if (count > room) {
        free(values);
        room = count;
        if (!(values = calloc(room, sizeof *values))) break;
        count = node_reads(reader, place->node, values, room);
      }
      for (size_t j = 0; j < count; j++) {
        struct place *from = maker(map, reader, values[j]);
        if (from && (!from->unit || from->unit != place->unit)) changed |= raise(place, from);
      }
    }
  }
  const bool complete = values != NULL;
  free(values);
  return complete ? NULL : "out of memory";
}

static const char *map_nodes(struct map *map, struct reader *reader, const OrtGraph *graph) {
  const OrtNode **nodes = NULL;
  if ((reader->error = reader->api->Graph_GetNumNodes(graph, &map->count))) return NULL;
  nodes = calloc(map->count + 1, sizeof *nodes);
  map->places = calloc(map->count + 1, sizeof *map->places);
  map->order = calloc(map->count + 1, sizeof(struct place *));
  const bool complete = nodes && map->places && map->order;
  if (complete && map->count > 0 && !(reader->error = reader->api->Graph_GetNodes(graph, nodes, map->count))) {
    for (size_t i = 0; i < map->count; i++) map->places[i] = (struct place){.node = nodes[i], .position = i};
    qsort(map->places, map->count, sizeof *map->places, by_address);
    for (size_t i = 0; i < map->count; i++) map->order[map->places[i].position] = &map->places[i];
  }
  free(nodes);
  return complete ? NULL : "out of memory";
}

const char *units_find(struct units *units, struct reader *reader, const OrtGraph *graph, objection object,
                       const struct isa *isa) {
  struct map map = {0};
  *units = (struct units){0};
  const char *reason = map_nodes(&map, reader, graph);
  if (!reason && !reader->error && !(units->all = calloc(map.count + 1, sizeof *units->all))) reason = "out of memory";
  if (!reason && !reader->error) reason = collect(units, &map, reader, object, isa);
  if (!reason && !reader->error) {
    decide(units, &map, reader, object, isa);
    reason = find_levels(&map, reader);
  }
  free(map.places);
  free(map.order);
  return reason;
}

void units_release(struct units *units) { free(units->all); }
