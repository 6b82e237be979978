"""How far two cores are from each other: a value handed there and back, in nanoseconds.

A virtual machine's processors wander over those of its host: on one of two processors it was 55 at one moment, and 170,
340 or 1,000 at another.
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
#include <stdatomic.h>
#include <time.h>
enum { ROUNDS = 20000 };
static _Alignas(128) atomic_int turn;
static void stay(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}
static void *answer(void *cpu) {
  stay(*(int *)cpu);
  for (int i = 0; i < ROUNDS; i++) {
    while (atomic_load(&turn) != 1) {}
    atomic_store(&turn, 0);
  }
  return 0;
}
static void *ask(void *cpu) {
  struct timespec start, end;
  static double found;
  stay(*(int *)cpu);
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < ROUNDS; i++) {
    atomic_store(&turn, 1);
    while (atomic_load(&turn) != 0) {}
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  found = (1e9 * (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec)) / ROUNDS;
  return &found;
}
double distance(int a, int b) {
  pthread_t first, second;
  void *found;
  pthread_create(&second, 0, answer, &b);
  pthread_create(&first, 0, ask, &a);
  pthread_join(first, &found);
  pthread_join(second, 0);
  return *(double *)found;
}
"""


@cache
def _library() -> ctypes.CDLL | None:
    return compiled(SOURCE, "-pthread")


def core_distance_ns() -> float | None:
    """Between the first two processors this process may use, in a few ms; None without a C compiler or with one."""
    processors = sorted(os.sched_getaffinity(0))[:2]
    library = _library()
    if library is None or len(processors) < 2:
        return None
    library.distance.restype = ctypes.c_double
    return float(library.distance(*processors))
