// Instantiates the kernels for the level of the including file.
#pragma once

#include "forward.h"
#include "kernels.h"

namespace dcnv3 {
namespace DCNV3_LEVEL {

// Calls `function` with a null value of the type that `dtype` is stored in.
template <typename F>
auto with_scalar(DType dtype, F function) {
  switch (dtype) {
    case DType::kFloat64:
      return function(double{});
    case DType::kFloat32:
      return function(float{});
    case DType::kBFloat16:
      return function(BFloat16{});
    default:
      return function(Float16{});
  }
}

uintptr_t forward_scratch(const ForwardArgs& args) {
  Arena arena(nullptr);
  if (args.dtype == DType::kFloat64)
    ForwardScratch<double>(args.params, arena);
  else
    ForwardScratch<float>(args.params, arena);
  return arena.size();
}

void forward(const ForwardArgs& args, int64_t begin, int64_t end, void* scratch) {
  with_scalar(args.dtype, [&](auto zero) {
    using scalar_t = decltype(zero);
    if (args.params.num_points() == 9)  // 3x3, the kernel of every released model
      forward_pixels<9, scalar_t>(args, begin, end, Arena(scratch));
    else
      forward_pixels<0, scalar_t>(args, begin, end, Arena(scratch));
  });
}

}  // namespace DCNV3_LEVEL
}  // namespace dcnv3
