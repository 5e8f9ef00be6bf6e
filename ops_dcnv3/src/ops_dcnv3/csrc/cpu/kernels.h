// The table of one instruction-set level's kernels, see dispatch.cpp.
#pragma once

#include "../dcnv3_params.h"

namespace dcnv3 {

struct Kernels {
  const char* level;
  // Bytes of scratch memory that one call of `forward` needs, and the pass over output pixels
  // [begin, end).
  uintptr_t (*forward_scratch)(const ForwardArgs& args);
  void (*forward)(const ForwardArgs& args, int64_t begin, int64_t end, void* scratch);
  // The same for the backward pass over N * G * chunks items; then the sum of the partial gradients
  // over input elements [begin, end), if chunks > 1.
  uintptr_t (*backward_scratch)(const BackwardArgs& args);
  void (*backward)(const BackwardArgs& args, int64_t begin, int64_t end, void* scratch);
  void (*add_partial)(const BackwardArgs& args, int64_t begin, int64_t end);
};

}  // namespace dcnv3
