// The last step to the gradient of the input, where it was summed up in copies of the type of
// calculation.
#pragma once

#include "lanes.h"
#include "plan.h"
#include "vector.h"

namespace dcnv3 {

struct FinishArguments {
  const void* partial;  // (copies, numbers)
  void* grad_input;     // (numbers)
  int64_t numbers;
  int64_t copies;
  int64_t threads;  // of the whole grid
  bool aligned;     // four float32 numbers of any copy, and of the result, can be moved at once
};

constexpr int kFinishAtOnce = 4;

inline FinishArguments finish_arguments(const BackwardArgs& args, int64_t numbers, int64_t copies,
                                        int64_t threads) {
  const bool aligned = args.forward.dtype != DType::kFloat64 && numbers % kFinishAtOnce == 0 &&
                       is_aligned(args.partial, 16) && is_aligned(args.grad_input, 16);
  return {args.partial, args.grad_input, numbers, copies, threads, aligned};
}

// Adds the copies of the gradient in their order and rounds the sum.
template <typename scalar_t>
struct FinishInput {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = FinishArguments;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 1;

  // Numbers `from` to `from` + 3.
  static DCNV3_HOST_DEVICE void finish_four(const Arguments& arguments, int64_t from) {
    const float* partial = static_cast<const float*>(arguments.partial) + from;
    float sums[4], more[4];
    unpack<float>(load_words(partial), sums);
#pragma unroll 1
    for (int64_t copy = 1; copy < arguments.copies; ++copy) {
      unpack<float>(load_words(partial + copy * arguments.numbers), more);
      for (int k = 0; k < 4; ++k) sums[k] += more[k];
    }
    scalar_t* result = static_cast<scalar_t*>(arguments.grad_input) + from;
    store_two(sums[0], sums[1], result);
    store_two(sums[2], sums[3], result + 2);
  }

  static DCNV3_HOST_DEVICE void finish_one(const Arguments& arguments, int64_t number) {
    const acc_t* partial = static_cast<const acc_t*>(arguments.partial) + number;
    acc_t sum = partial[0];
#pragma unroll 1
    for (int64_t copy = 1; copy < arguments.copies; ++copy)
      sum += partial[copy * arguments.numbers];
    static_cast<scalar_t*>(arguments.grad_input)[number] = from_compute<scalar_t>(sum);
  }

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const int64_t thread = lanes.block() * lanes.block_size() + lanes.thread();
    const int64_t step = arguments.threads * kFinishAtOnce;
    for (int64_t from = thread * kFinishAtOnce; from < arguments.numbers; from += step) {
      if constexpr (sizeof(acc_t) == sizeof(float)) {
        if (arguments.aligned) {
          finish_four(arguments, from);
          continue;
        }
      }
      const int64_t end = smaller(from + kFinishAtOnce, arguments.numbers);
#pragma unroll 1
      for (int64_t number = from; number < end; ++number) finish_one(arguments, number);
    }
  }
};

}  // namespace dcnv3
