"""What one core can do at most: fused multiply-adds in registers, compiled and timed on the spot."""

from __future__ import annotations

import ctypes
import platform

from compiled import compiled

SOURCE = """
#include <time.h>
typedef float v8 __attribute__((vector_size(32)));
double peak(void) {
  v8 a[12], x = {1.0000001f}, y = {1e-9f};
  double best = 0;
  struct timespec start, end;
  for (int i = 0; i < 12; i++) a[i] = x;
  for (int round = 0; round < 200; round++) {
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    for (int n = 0; n < 20000; n++) {
#pragma GCC unroll 12
      for (int i = 0; i < 12; i++) a[i] = a[i] * x + y;
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    double rate = 20000.0 * 12 * 16 / seconds;
    if (rate > best) best = rate;
  }
  volatile float keep = 0;
  for (int i = 0; i < 12; i++) keep = keep + a[i][0];
  return best * 1e-9;
}
"""


def fma_peak_gflops() -> float | None:
    """GFLOP/s of one core with vectors of eight floats, 2 a multiply-add; None without a C compiler."""
    library = compiled(SOURCE, "-ffp-contract=fast", *(["-mavx2", "-mfma"] if platform.machine() == "x86_64" else []))
    if library is None:
        return None
    library.peak.restype = ctypes.c_double
    return float(library.peak())
