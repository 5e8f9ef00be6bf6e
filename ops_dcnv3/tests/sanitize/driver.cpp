// Runs the CPU kernels of one instruction-set level on random shapes and hostile values, without
// PyTorch, so that AddressSanitizer and UndefinedBehaviorSanitizer see every access: each tensor is
// a heap block of exactly its size. Built by test_sanitizers.py. Offsets are hostile in every round
// and all results must be finite; in every third round image, weights and gradient have values that
// are not finite as well, and only accesses and undefined behaviour count.
//
//   driver SEED ROUNDS [short]    `short` makes the offsets one element too few, which must be
//   caught
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "random_call.h"

#define NAME_(level) kKernels_##level
#define NAME(level) NAME_(level)

namespace dcnv3 {
extern const Kernels NAME(DCNV3_LEVEL);
}

namespace {

using namespace dcnv3;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Scratch = std::unique_ptr<void, Free>;

Scratch make_scratch(uintptr_t bytes) {
  return Scratch(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
}

// Cuts [0, count) as threads would.
std::vector<int64_t> random_cuts(int64_t count) {
  std::vector<int64_t> cuts{0};
  while (cuts.back() < count) cuts.push_back(between(cuts.back() + 1, count));
  return cuts;
}

void run_once(const Kernels& kernels, bool hostile, bool too_short) {
  RandomCall call(random_shape(), hostile, too_short);
  BackwardArgs& args = call.args;
  const Params& params = call.params();
  const std::vector<int64_t> cuts = random_cuts(params.num_pixels());
  for (size_t k = 0; k + 1 < cuts.size(); ++k) {
    const Scratch scratch = make_scratch(kernels.forward_scratch(args.forward));
    kernels.forward(args.forward, cuts[k], cuts[k + 1], scratch.get());
  }
  if (!hostile) call.check_output();

  args.forward.output = nullptr;
  args.chunks = between(1, params.out_height < 4 ? params.out_height : 4);
  const DType partial_dtype =
      args.forward.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  Block partial(partial_dtype, args.chunks > 1 ? args.chunks * call.input_count() : 0);
  args.partial = args.chunks > 1 ? partial.get() : nullptr;
  const std::vector<int64_t> items = random_cuts(params.batch * params.groups * args.chunks);
  for (size_t k = 0; k + 1 < items.size(); ++k) {
    const Scratch scratch = make_scratch(kernels.backward_scratch(args));
    kernels.backward(args, items[k], items[k + 1], scratch.get());
  }
  if (args.chunks > 1) {
    const std::vector<int64_t> elements = random_cuts(call.input_count());
    for (size_t k = 0; k + 1 < elements.size(); ++k)
      kernels.add_partial(args, elements[k], elements[k + 1]);
  }
  if (!hostile) call.check_gradients();
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rounds = run_rounds(argc, argv, [](bool hostile, bool too_short) {
    run_once(dcnv3::NAME(DCNV3_LEVEL), hostile, too_short);
  });
  if (rounds < 0) return 2;
  std::printf("%s: %ld rounds\n", dcnv3::NAME(DCNV3_LEVEL).level, long(rounds));
  return 0;
}
