// The table of one instruction-set level's kernels, see dispatch.cpp.
#pragma once

#include "../dcnv3_params.h"

namespace dcnv3 {

struct Kernels {
  const char* level;
  // Bytes of scratch memory that one call of `forward` needs, and the pass over output pixels [begin, end).
  uintptr_t (*forward_scratch)(const ForwardArgs& args);
  void (*forward)(const ForwardArgs& args, int64_t begin, int64_t end, void* scratch);
};

}  // namespace dcnv3
