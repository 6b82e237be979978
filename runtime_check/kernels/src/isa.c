#include "isa.h"

#include <stdbool.h>
#include <string.h>

const struct isa *isa_select(const char *limit) {
  if (limit && strcmp(limit, "generic") == 0) return &isa_generic;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("fma");
  if (wide && !(limit && strcmp(limit, "avx2") == 0)) return &isa_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &isa_avx2;
  return &isa_generic;
#elif defined(__aarch64__)
  return &isa_neon; /* every such processor has it */
#else
  return &isa_generic;
#endif
}
