#include "dispatch.h"

#include <atomic>
#include <cstring>
#include <string>

namespace dcnv3 {

#if defined(__x86_64__)
extern const Kernels kKernels_v2, kKernels_v3, kKernels_v4;
#else
extern const Kernels kKernels_baseline;
#endif

namespace {

struct Level {
  const Kernels* kernels;
  bool supported;
};

// Lowest first.
const Level* levels(int* count) {
#if defined(__x86_64__)
  static const Level kLevels[] = {
      {&kKernels_v2, static_cast<bool>(__builtin_cpu_supports("sse4.2"))},
      {&kKernels_v3, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c")},
      {&kKernels_v4, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                         __builtin_cpu_supports("avx512vl")},
  };
#else
  static const Level kLevels[] = {{&kKernels_baseline, true}};
#endif
  *count = static_cast<int>(sizeof(kLevels) / sizeof(kLevels[0]));
  return kLevels;
}

const Kernels* highest() {
  int count = 0;
  const Level* all = levels(&count);
  const Kernels* best = all[0].kernels;
  for (int k = 0; k < count; ++k)
    if (all[k].supported) best = all[k].kernels;
  return best;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> kernels{highest()};
  return kernels;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }

}  // namespace dcnv3

// The plain C entries that extension.py reads through ctypes.
extern "C" {

// Compared with INTERFACE of _version.py before any kernel is called.
int ops_dcnv3_interface() { return OPS_DCNV3_INTERFACE; }

const char* ops_dcnv3_cpu_levels() {
  static const std::string names = [] {
    std::string joined;
    int count = 0;
    const dcnv3::Level* all = dcnv3::levels(&count);
    for (int k = 0; k < count; ++k)
      if (all[k].supported)
        joined += (joined.empty() ? "" : " ") + std::string(all[k].kernels->level);
    return joined;
  }();
  return names.c_str();
}

const char* ops_dcnv3_cpu_level() { return dcnv3::kernels().level; }

// Returns 0, or -1 for a level that this build or CPU does not have.
int ops_dcnv3_set_cpu_level(const char* name) {
  int count = 0;
  const dcnv3::Level* all = dcnv3::levels(&count);
  for (int k = 0; k < count; ++k) {
    if (all[k].supported && std::strcmp(all[k].kernels->level, name) == 0) {
      dcnv3::current().store(all[k].kernels, std::memory_order_relaxed);
      return 0;
    }
  }
  return -1;
}

}  // extern "C"
