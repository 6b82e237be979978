#include "weights.h"

#include <stdlib.h>
#include <string.h>

#include "geometry.h"

/* Order a part's rows by their number of taps, stably: equal loop counts follow each other and are predicted. */
static void sort_rows(struct row *rows, int64_t *position, int64_t count, int64_t *bins, int64_t most,
                      struct row *spare_rows, int64_t *spare_position) {
  memset(bins, 0, (size_t)(most + 2) * sizeof *bins);
  for (int64_t i = 0; i < count; i++) bins[rows[i].taps + 1]++;
  for (int64_t i = 0; i <= most; i++) bins[i + 1] += bins[i];
  for (int64_t i = 0; i < count; i++) {
    const int64_t to = bins[rows[i].taps]++;
    spare_rows[to] = rows[i];
    spare_position[to] = position[i];
  }
  memcpy(rows, spare_rows, (size_t)count * sizeof *rows);
  memcpy(position, spare_position, (size_t)count * sizeof *position);
}

struct scratch {
  int64_t *next;     /* [out]: the first non-zero not yet placed */
  int64_t *position; /* [out]: where a part's rows have their non-zeros */
  int64_t *spare_position, *bins;
  struct row *spare_rows;
  int64_t *offset; /* [taps] */
};

static void arrange(struct plan *plan, const struct layer *layer, const struct scratch *scratch) {
  int64_t rows = 0, taps = 0;
  const int64_t most = plan->block_channels * layer->taps;
  for (int64_t tap = 0; tap < layer->taps; tap++) scratch->offset[tap] = geometry_tap(plan, layer, tap);
  memcpy(scratch->next, layer->start, (size_t)layer->out_channels * sizeof *scratch->next);
  for (int64_t block = 0; block < plan->blocks; block++) {
    const int64_t first_channel = block * plan->block_channels;
    const int64_t end_column = (first_channel + plan->block_channels) * layer->taps;
    /* Every channel has a row in the first block, which starts its sum, and in the last, which finishes it. */
    const bool always = block == 0 || block == plan->blocks - 1;
    for (int64_t chunk = 0; chunk < plan->chunks; chunk++) {
      struct part *part = &plan->parts[block * plan->chunks + chunk];
      *part = (struct part){.first_row = rows, .first_tap = taps};
      const int64_t end = layer->out_channels * (chunk + 1) / plan->chunks;
      for (int64_t k = layer->out_channels * chunk / plan->chunks; k < end; k++) {
        int64_t last = scratch->next[k];
        while (last < layer->start[k + 1] && layer->column[last] < end_column) last++;
        if (last > scratch->next[k] || always) {
          scratch->position[part->row_count] = scratch->next[k];
          plan->rows[rows + part->row_count++] = (struct row){(int32_t)k, (int32_t)(last - scratch->next[k])};
        }
        scratch->next[k] = last;
      }
      sort_rows(plan->rows + rows, scratch->position, part->row_count, scratch->bins, most, scratch->spare_rows,
                scratch->spare_position);
      for (int64_t r = 0; r < part->row_count; r++)
        for (int64_t i = 0; i < plan->rows[rows + r].taps; i++) {
          const int64_t at = scratch->position[r] + i;
          const int64_t channel = layer->column[at] / layer->taps - first_channel;
          plan->taps[taps++] = (struct tap){
              layer->value[at], (int32_t)(channel * plan->pitch + scratch->offset[layer->column[at] % layer->taps])};
        }
      rows += part->row_count;
    }
  }
}

bool weights_arrange(struct plan *plan, const struct layer *layer) {
  const size_t channels = (size_t)layer->out_channels;
  plan->parts = calloc((size_t)(plan->blocks * plan->chunks), sizeof *plan->parts);
  plan->rows = calloc((size_t)(layer->nonzeros < plan->blocks * layer->out_channels
                                   ? layer->nonzeros + 2 * layer->out_channels
                                   : plan->blocks * layer->out_channels),
                      sizeof *plan->rows);
  plan->taps = calloc((size_t)layer->nonzeros + 1, sizeof *plan->taps);
  struct scratch scratch = {
      .next = calloc(channels, sizeof(int64_t)),
      .position = calloc(channels, sizeof(int64_t)),
      .spare_position = calloc(channels, sizeof(int64_t)),
      .bins = calloc((size_t)(plan->block_channels * layer->taps) + 2, sizeof(int64_t)),
      .spare_rows = calloc(channels, sizeof(struct row)),
      .offset = calloc((size_t)layer->taps, sizeof(int64_t)),
  };
  const bool complete = plan->parts && plan->rows && plan->taps && scratch.next && scratch.position &&
                        scratch.spare_position && scratch.bins && scratch.spare_rows && scratch.offset;
  if (complete) arrange(plan, layer, &scratch);
  free(scratch.next);
  free(scratch.position);
  free(scratch.spare_position);
  free(scratch.bins);
  free(scratch.spare_rows);
  free(scratch.offset);
  return complete;
}
