// The kernels of one instruction-set level. The build compiles this file once for each level, with DCNV3_LEVEL
// naming the level and its namespace; nothing from the standard library may come in, since the linker would keep
// one level's copy of a shared inline function for all.

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

#define DCNV3_NAME_(level) kKernels_##level
#define DCNV3_NAME(level) DCNV3_NAME_(level)
#define DCNV3_STRING_(level) #level
#define DCNV3_STRING(level) DCNV3_STRING_(level)

extern const Kernels DCNV3_NAME(DCNV3_LEVEL) = {
    DCNV3_STRING(DCNV3_LEVEL),
    DCNV3_LEVEL::forward_scratch,
    DCNV3_LEVEL::forward,
};

}  // namespace dcnv3
