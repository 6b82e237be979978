"""Whether each core is ours alone: the milliseconds that a fixed loop of multiply-adds takes on every one at once.

Two virtual processors may share a core of the host with those of other tenants: then both take nearly twice as long for
as long as the neighbour is busy, which no figure of the guest shows.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

from compiled import compiled

SOURCE = """
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <time.h>
typedef float v4 __attribute__((vector_size(16)));
#ifdef __x86_64__
#define KEPT "+x"
#else
#define KEPT "+w"
#endif
struct core { int cpu; double ms; };
static void *work(void *argument) {
  struct core *core = argument;
  cpu_set_t set;
  struct timespec start, end;
  v4 sums[14] = {0};
  CPU_ZERO(&set);
  CPU_SET(core->cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int round = 0; round < 1500000; round++)
    for (int i = 0; i < 14; i++) {
      sums[i] = sums[i] * 0.999f + 0.01f;
      __asm__ volatile("" : KEPT(sums[i]));
    }
  clock_gettime(CLOCK_MONOTONIC, &end);
  core->ms = 1e3 * (double)(end.tv_sec - start.tv_sec) + 1e-6 * (double)(end.tv_nsec - start.tv_nsec);
  return 0;
}
void speeds(const int *cpus, int count, double *ms) {
  pthread_t threads[64];
  struct core cores[64];
  for (int i = 0; i < count; i++) {
    cores[i].cpu = cpus[i];
    pthread_create(&threads[i], 0, work, &cores[i]);
  }
  for (int i = 0; i < count; i++) {
    pthread_join(threads[i], 0);
    ms[i] = cores[i].ms;
  }
}
"""


@cache
def _library() -> ctypes.CDLL | None:
    return compiled(SOURCE, "-pthread")


def core_milliseconds() -> list[float]:
    """Of the processors that this process may use, at most 64; empty without a C compiler."""
    processors = sorted(os.sched_getaffinity(0))[:64]
    library = _library()
    if library is None:
        return []
    milliseconds = (ctypes.c_double * len(processors))()
    library.speeds((ctypes.c_int * len(processors))(*processors), len(processors), milliseconds)
    return list(milliseconds)
