/* Memory of running calls, kept and used again: after the first calls nothing is allocated. */
#ifndef SPARSE_WORKSPACE_H
#define SPARSE_WORKSPACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { SLOTS = 64 }; /* tasks of one call that hold sums, or other memory of theirs, at the same time, */
#define SLOT_BYTES ((size_t)1 << 30) /* where they take no more memory than this together; fewer otherwise */

struct workspace {
  struct workspace *next;
  char *memory; /* aligned to a cache line */
  size_t bytes;
  char *sums; /* slots of sum_bytes, behind the copy of the input; untouched ones cost no memory */
  size_t sum_bytes;
  atomic_uint_fast64_t used; /* a bit for each slot, always set where there is no piece for it */
};

struct workspace_pool {
  pthread_mutex_t lock;
  struct workspace *free;
};

/* Returns 0, or not 0 where the lock cannot be made. */
int workspace_pool_open(struct workspace_pool *pool);
void workspace_pool_close(struct workspace_pool *pool);

/* NULL without memory. */
struct workspace *workspace_take(struct workspace_pool *pool, int64_t packed_bytes, int64_t sum_bytes);
void workspace_give(struct workspace_pool *pool, struct workspace *workspace);

/* A slot of sums for one task; waits where all are in use. */
int workspace_slot(struct workspace *workspace);
void workspace_slot_free(struct workspace *workspace, int slot);

#endif
