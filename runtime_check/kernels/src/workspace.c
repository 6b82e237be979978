#include "workspace.h"

#include <sched.h>
#include <stdlib.h>

#include "isa.h"

int workspace_pool_open(struct workspace_pool *pool) {
  pool->free = NULL;
  return pthread_mutex_init(&pool->lock, NULL);
}

void workspace_pool_close(struct workspace_pool *pool) {
  while (pool->free) {
    struct workspace *next = pool->free->next;
    free(pool->free->memory);
    free(pool->free);
    pool->free = next;
  }
  pthread_mutex_destroy(&pool->lock);
}

static size_t whole_lines(int64_t bytes) { return ((size_t)bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE; }

struct workspace *workspace_take(struct workspace_pool *pool, int64_t packed_bytes, int64_t sum_bytes) {
  pthread_mutex_lock(&pool->lock);
  struct workspace *workspace = pool->free;
  if (workspace) pool->free = workspace->next;
  pthread_mutex_unlock(&pool->lock);
  if (!workspace && !(workspace = calloc(1, sizeof *workspace))) return NULL;
  const size_t packed = whole_lines(packed_bytes), sums = whole_lines(sum_bytes);
  size_t slots = SLOTS;
  if (sums > SLOT_BYTES / SLOTS) slots = sums < SLOT_BYTES ? SLOT_BYTES / sums : 1;
  const size_t bytes = packed + slots * sums;
  if (workspace->bytes < bytes) {
    free(workspace->memory);
    workspace->memory = aligned_alloc(CACHE_LINE, bytes);
    workspace->bytes = workspace->memory ? bytes : 0;
  }
  if (!workspace->memory && bytes > 0) {
    free(workspace);
    return NULL;
  }
  workspace->sums = workspace->memory + packed;
  workspace->sum_bytes = sums;
  atomic_store(&workspace->used, slots < SLOTS ? ~(((uint_fast64_t)1 << slots) - 1) : 0); /* the rest is never free */
  return workspace;
}

void workspace_give(struct workspace_pool *pool, struct workspace *workspace) {
  pthread_mutex_lock(&pool->lock);
  workspace->next = pool->free;
  pool->free = workspace;
  pthread_mutex_unlock(&pool->lock);
}

int workspace_slot(struct workspace *workspace) {
  for (;;) {
    uint_fast64_t used = atomic_load(&workspace->used);
    while (~used) {
      const int slot = __builtin_ctzll(~used);
      if (atomic_compare_exchange_weak(&workspace->used, &used, used | (uint_fast64_t)1 << slot)) return slot;
    }
    sched_yield();
  }
}

void workspace_slot_free(struct workspace *workspace, int slot) {
  atomic_fetch_and(&workspace->used, ~((uint_fast64_t)1 << slot));
}
