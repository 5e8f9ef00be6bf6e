// Registers the CPU kernels with PyTorch.
#include <algorithm>
#include <cstdlib>

#include "../operators.h"
#include "dispatch.h"

namespace {

using dcnv3::BackwardArgs;
using dcnv3::DType;
using dcnv3::ForwardArgs;
using dcnv3::Kernels;
using dcnv3::Params;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Scratch memory of one thread.
class Scratch {
 public:
  explicit Scratch(uintptr_t bytes) : memory_(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
    STD_TORCH_CHECK(memory_ != nullptr, "ops_dcnv3: out of memory, ", bytes,
                    " bytes of scratch memory a thread");
  }
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_;
};

struct CpuBackend {
  static void forward(const ForwardArgs& args, const Tensor& /* input */) {
    const Params& params = args.params;
    const Kernels& kernels = dcnv3::kernels();
    const uintptr_t bytes = kernels.forward_scratch(args);
    // a share below some thousand points is not worth a thread
    const int64_t grain = 1 + 4096 / (params.groups * params.num_points());
    torch::stable::parallel_for(0, params.num_pixels(), grain, [&](int64_t begin, int64_t end) {
      Scratch scratch(bytes);
      kernels.forward(args, begin, end, scratch.get());
    });
  }

  // Sums are added in a fixed order anyhow, for a given number of threads.
  static void backward(BackwardArgs args, const Tensor& input, bool /* deterministic */) {
    const Params& params = args.forward.params;
    // Rows are split only where images and groups are too few for the threads: each chunk costs a
    // buffer.
    constexpr int64_t kMaxChunks = 8;
    const int64_t items = params.batch * params.groups;
    const int64_t threads = torch::stable::get_num_threads();
    args.chunks = std::min({kMaxChunks, (threads + items - 1) / items, params.out_height});
    Tensor partial = input;  // stays unused with one chunk
    if (args.chunks > 1) {
      const bool is_double = args.forward.dtype == DType::kFloat64;
      partial = torch::stable::new_empty(
          input, {args.chunks, params.batch, params.height, params.width, params.channels()},
          is_double ? ScalarType::Double : ScalarType::Float);
      args.partial = partial.mutable_data_ptr();
    }
    const Kernels& kernels = dcnv3::kernels();
    const uintptr_t bytes = kernels.backward_scratch(args);
    torch::stable::parallel_for(0, items * args.chunks, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(bytes);
      kernels.backward(args, begin, end, scratch.get());
    });
    if (args.chunks > 1)
      torch::stable::parallel_for(0, input.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
        kernels.add_partial(args, begin, end);
      });
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ops_dcnv3, CPU, library) {
  dcnv3::Operators<CpuBackend>::register_in(library);
}
