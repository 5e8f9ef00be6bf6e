// The kernels of one instruction-set level. The build compiles this file once for each level, with
// DCNV3_LEVEL naming the level and its namespace; nothing from the standard library may come in,
// since the linker would keep one level's copy of a shared inline function for all.

#include "kernels.h"
#include "backward.h"
#include "forward.h"

namespace dcnv3 {
namespace DCNV3_LEVEL {

// Calls `function` with the number of points of the 3x3 kernel that every released model has, or 0
// for any other.
template <int kPoints>
struct Points {
  static constexpr int value = kPoints;
};
template <typename F>
void with_points(int64_t num_points, F function) {
  if (num_points == 9)
    function(Points<9>{});
  else
    function(Points<0>{});
}

template <template <typename> class Layout>
uintptr_t scratch_size(DType dtype, const Params& params) {
  Arena arena(nullptr);
  if (dtype == DType::kFloat64)
    Layout<double>(params, arena);
  else
    Layout<float>(params, arena);
  return arena.size();
}

uintptr_t forward_scratch(const ForwardArgs& args) {
  return scratch_size<ForwardScratch>(args.dtype, args.params);
}

void forward(const ForwardArgs& args, int64_t begin, int64_t end, void* scratch) {
  with_scalar(args.dtype, [&](auto zero) {
    with_points(args.params.num_points(), [&](auto points) {
      forward_pixels<points.value, decltype(zero)>(args, begin, end, Arena(scratch));
    });
  });
}

uintptr_t backward_scratch(const BackwardArgs& args) {
  return scratch_size<BackwardScratch>(args.forward.dtype, args.forward.params);
}

void backward(const BackwardArgs& args, int64_t begin, int64_t end, void* scratch) {
  with_scalar(args.forward.dtype, [&](auto zero) {
    with_points(args.forward.params.num_points(), [&](auto points) {
      backward_items<points.value, decltype(zero)>(args, begin, end, Arena(scratch));
    });
  });
}

void add_partial(const BackwardArgs& args, int64_t begin, int64_t end) {
  with_scalar(args.forward.dtype,
              [&](auto zero) { add_partial<decltype(zero)>(args, begin, end); });
}

}  // namespace DCNV3_LEVEL

#define DCNV3_NAME_(level) kKernels_##level
#define DCNV3_NAME(level) DCNV3_NAME_(level)
#define DCNV3_STRING_(level) #level
#define DCNV3_STRING(level) DCNV3_STRING_(level)

extern const Kernels DCNV3_NAME(DCNV3_LEVEL) = {
    DCNV3_STRING(DCNV3_LEVEL),     DCNV3_LEVEL::forward_scratch, DCNV3_LEVEL::forward,
    DCNV3_LEVEL::backward_scratch, DCNV3_LEVEL::backward,        DCNV3_LEVEL::add_partial,
};

}  // namespace dcnv3
