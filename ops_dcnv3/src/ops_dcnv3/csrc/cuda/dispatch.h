// Which kernel runs with which grid: the same for a GPU and for the tests, which run the kernels on
// a CPU. Every function takes what launches a kernel, as
//
//   const char* launch(Kernel{}, Kernel::Arguments, int64_t blocks, int threads, int64_t shared)
//
// or fills memory with zeros, as `const char* zero(void* memory, int64_t bytes)`; both return null,
// or what went wrong, and so do the functions here. There must be an output pixel.
//
// A kernel's kThreads and kBlocks are its __launch_bounds__: threads of a block at most, and blocks
// that shall fit on a multiprocessor; 0 leaves the number of registers to the compiler, which with
// 1 gives the fast kernels so many that only two blocks fit, and else spills in the other ones.
#pragma once

#include <type_traits>

#include "backward_finish.h"
#include "backward_matrix.h"
#include "backward_points.h"
#include "forward.h"

namespace dcnv3 {

template <class Kernel, class Launch>
const char* launch_tiles(const typename Kernel::Arguments& arguments, const Launch& launch) {
  const TilePlan& plan = arguments.plan;
  return launch(Kernel{}, arguments, plan.blocks, plan.threads, int64_t{0});
}

// A route's kernel: `Vector` with the lanes of 16 or 32 channels, or `Plain`.
template <template <typename, int> class Vector, template <typename> class Plain, typename scalar_t,
          class Launch>
const char* launch_route(const Route& route, const typename Plain<scalar_t>::Arguments& arguments,
                         const Launch& launch) {
  if constexpr (sizeof(scalar_t) < sizeof(double)) {
    constexpr int kLanes = sizeof(scalar_t);  // for 16 channels at 16 bytes a lane
    if (route.vector && route.lanes == kLanes)
      return launch_tiles<Vector<scalar_t, kLanes>>(arguments, launch);
    if (route.vector && route.lanes == 2 * kLanes)
      return launch_tiles<Vector<scalar_t, 2 * kLanes>>(arguments, launch);
  }
  return launch_tiles<Plain<scalar_t>>(arguments, launch);
}

template <typename scalar_t, class Launch>
const char* run_forward(const ForwardArgs& args, const Device& device, const Launch& launch) {
  using acc_t = typename Compute<scalar_t>::type;
  const Route route = choose_route(args, args.output);
  const ForwardArguments<acc_t> arguments{args, Sampling<acc_t>(args),
                                          plan_tiles(args, route, device)};
  return launch_route<VectorForward, PlainForward, scalar_t>(route, arguments, launch);
}

template <class Launch>
const char* forward(const ForwardArgs& args, const Device& device, const Launch& launch) {
  if (const char* reason = why_too_large(args.params)) return reason;
  return with_scalar(args.dtype,
                     [&](auto type) { return run_forward<decltype(type)>(args, device, launch); });
}

// ------------------------------------------------------------------------- backward

// Calls `function` with two constants: the lanes that share a cell, and whether it has the nine
// points of a 3 x 3 kernel, whose loops are unrolled then.
template <typename scalar_t, class Function>
const char* with_scatter(const BackwardArgs& args, const Function& function) {
  const Params& params = args.forward.params;
  const auto with_lanes = [&](auto nine_points) {
    if (channel_lanes(params) == 8) return function(std::integral_constant<int, 8>{}, nine_points);
    return function(std::integral_constant<int, 16>{}, nine_points);
  };
  if constexpr (sizeof(scalar_t) < sizeof(double))
    if (has_nine_points(params)) return with_lanes(std::true_type{});
  return with_lanes(std::false_type{});
}

// The ways to the gradient of the input. Each leaves it in grad_input, or, if there is something in
// `partial`, as a sum of copies there.

template <typename scalar_t, class Launch, class Zero>
const char* run_owned_input(const BackwardArgs& args, int64_t partial, const Launch& launch,
                            const Zero& zero) {
  using acc_t = typename Compute<scalar_t>::type;
  const OwnerArguments<acc_t> arguments{args, Sampling<acc_t>(args.forward),
                                        plan_owners(args.forward.params)};
  if (const char* failure = zero(args.partial, partial * static_cast<int64_t>(sizeof(acc_t))))
    return failure;
  return with_scatter<scalar_t>(args, [&](auto lanes, auto nine_points) {
    return launch(OwnedInput<scalar_t, lanes, nine_points>{}, arguments, arguments.plan.blocks,
                  kOwnerThreads, int64_t{0});
  });
}

template <typename scalar_t, class Launch>
const char* run_matrix_input(const BackwardArgs& args, const MatrixPlan& plan, void* sum,
                             const Launch& launch) {
  if constexpr (sizeof(scalar_t) == 2) {
    const MatrixArguments arguments{args, Sampling<float>(args.forward), plan,
                                    static_cast<float*>(sum)};
    return launch(MatrixInput<scalar_t>{}, arguments, plan.blocks, kMatrixCells, plan.shared_bytes);
  }
  return "matrices are for 16-bit numbers";
}

template <typename scalar_t, class Launch>
const char* run_window_input(const BackwardArgs& args, const Device& device, void* sum,
                             const Launch& launch) {
  using acc_t = typename Compute<scalar_t>::type;
  const WindowArguments<acc_t> arguments{args, Sampling<acc_t>(args.forward),
                                         plan_window(args, device), sum};
  return with_scatter<scalar_t>(args, [&](auto lanes, auto nine_points) {
    return launch(WindowInput<scalar_t, lanes, nine_points>{}, arguments, arguments.plan.blocks,
                  arguments.plan.tiles.threads, arguments.plan.shared_bytes);
  });
}

template <typename scalar_t, class Launch, class Zero>
const char* run_backward_input(const BackwardArgs& args, const Device& device, bool deterministic,
                               const Launch& launch, const Zero& zero) {
  using acc_t = typename Compute<scalar_t>::type;
  const Params& params = args.forward.params;
  const int64_t numbers = params.batch * params.height * params.width * params.channels();
  const int64_t partial = partial_numbers(args, device, deterministic);
  const char* failure = nullptr;
  if (deterministic) {
    failure = run_owned_input<scalar_t>(args, partial, launch, zero);
  } else {
    const MatrixPlan matrix = plan_matrix(args, device);
    const bool exclusive = matrix.fits ? matrix.exclusive : plan_window(args, device).exclusive;
    void* sum = partial > 0 ? args.partial : args.grad_input;
    if (!exclusive) failure = zero(sum, numbers * static_cast<int64_t>(sizeof(acc_t)));
    if (failure == nullptr)
      failure = matrix.fits ? run_matrix_input<scalar_t>(args, matrix, sum, launch)
                            : run_window_input<scalar_t>(args, device, sum, launch);
  }
  if (failure != nullptr || partial == 0) return failure;
  constexpr int kThreads = FinishInput<scalar_t>::kThreads;
  const int64_t blocks = smaller(ceil_div(numbers, kFinishAtOnce * kThreads), 1 << 16);
  return launch(FinishInput<scalar_t>{},
                finish_arguments(args, numbers, partial / numbers, blocks * kThreads), blocks,
                kThreads, int64_t{0});
}

template <class Launch, class Zero>
const char* backward(const BackwardArgs& args, const Device& device, bool deterministic,
                     const Launch& launch, const Zero& zero) {
  if (const char* reason = why_too_large(args.forward.params)) return reason;
  return with_scalar(args.forward.dtype, [&](auto type) {
    using scalar_t = decltype(type);
    using acc_t = typename Compute<scalar_t>::type;
    const Route route = choose_route(args.forward, args.grad_output);
    const PointsArguments<acc_t> arguments{args, Sampling<acc_t>(args.forward),
                                           plan_tiles(args.forward, route, device)};
    const char* failure =
        launch_route<VectorPoints, PlainPoints, scalar_t>(route, arguments, launch);
    return failure != nullptr
               ? failure
               : run_backward_input<scalar_t>(args, device, deterministic, launch, zero);
  });
}

}  // namespace dcnv3
