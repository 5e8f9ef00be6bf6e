// Registers the CPU kernels with PyTorch through LibTorch's stable ABI. Schemas stand in ops.py; the checks
// here are for memory safety alone, user errors are caught in Python.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdlib>
#include <memory>
#include <tuple>

#include "../dcnv3_geometry.h"
#include "dispatch.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

dcnv3::DType dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return dcnv3::DType::kFloat64;
    case ScalarType::Float:
      return dcnv3::DType::kFloat32;
    case ScalarType::BFloat16:
      return dcnv3::DType::kBFloat16;
    case ScalarType::Half:
      return dcnv3::DType::kFloat16;
    default:
      STD_TORCH_CHECK(false, "ops_dcnv3: expected a tensor of float64, float32, bfloat16 or float16");
  }
}

// Scratch memory of one thread.
class Scratch {
 public:
  explicit Scratch(uintptr_t bytes) : memory_(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
    STD_TORCH_CHECK(memory_ != nullptr, "ops_dcnv3: out of memory, ", bytes, " bytes of scratch memory a thread");
  }
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_;
};

// A tensor (N, Ho, Wo, K) whose pixels are evenly spaced, as it is or copied.
struct Pixels {
  Tensor tensor;
  int64_t stride;  // elements from one pixel to the next

  explicit Pixels(const Tensor& source) : tensor(source), stride(source.size(3)) {
    if (source.is_contiguous()) return;
    const bool even = source.stride(3) == 1 && source.stride(1) == source.size(2) * source.stride(2) &&
                      source.stride(0) == source.size(1) * source.stride(1) && source.stride(2) >= source.size(3);
    if (even)
      stride = source.stride(2);
    else
      tensor = torch::stable::contiguous(source);
  }
};

dcnv3::Params make_params(const Tensor& input, const Tensor& points, int64_t kernel_h, int64_t kernel_w,
                          int64_t stride_h, int64_t stride_w, int64_t padding_h, int64_t padding_w,
                          int64_t dilation_h, int64_t dilation_w, int64_t groups, double offset_scale,
                          bool remove_center, bool softmax) {
  STD_TORCH_CHECK(input.dim() == 4 && points.dim() == 4, "ops_dcnv3: expected tensors of 4 dimensions");
  STD_TORCH_CHECK(groups > 0 && input.size(3) % groups == 0 && kernel_h > 0 && kernel_w > 0 && stride_h > 0 &&
                      stride_w > 0 && dilation_h > 0 && dilation_w > 0 && points.size(0) == input.size(0),
                  "ops_dcnv3: the arguments do not fit the input");
  dcnv3::Params params{};
  params.batch = input.size(0);
  params.height = input.size(1);
  params.width = input.size(2);
  params.groups = groups;
  params.depth = input.size(3) / groups;
  params.out_height = points.size(1);
  params.out_width = points.size(2);
  params.kernel_h = kernel_h;
  params.kernel_w = kernel_w;
  params.stride_h = stride_h;
  params.stride_w = stride_w;
  params.padding_h = padding_h;
  params.padding_w = padding_w;
  params.dilation_h = dilation_h;
  params.dilation_w = dilation_w;
  params.offset_scale = offset_scale;
  params.remove_center = remove_center;
  params.softmax = softmax;
  STD_TORCH_CHECK(params.num_points() > 0, "ops_dcnv3: no sampling points");
  return params;
}

void check_same_pixels(const Tensor& a, const Tensor& b, int64_t b_channels) {
  STD_TORCH_CHECK(b.dim() == 4 && a.size(0) == b.size(0) && a.size(1) == b.size(1) && a.size(2) == b.size(2) &&
                      b.size(3) == b_channels,
                  "ops_dcnv3: a tensor's shape does not fit the others");
}

const void* advance(const void* base, dcnv3::DType dtype, int64_t elements) {
  const int64_t bytes = dtype == dcnv3::DType::kFloat64 ? 8 : dtype == dcnv3::DType::kFloat32 ? 4 : 2;
  return static_cast<const char*>(base) + elements * bytes;
}

Tensor run_forward(const dcnv3::ForwardArgs& partial, const Tensor& input) {
  const Tensor contiguous_input = input.is_contiguous() ? input : torch::stable::contiguous(input);
  dcnv3::ForwardArgs args = partial;
  const dcnv3::Params& params = args.params;
  Tensor output = torch::stable::new_empty(
      input, {params.batch, params.out_height, params.out_width, params.channels()});
  const int64_t pixels = params.num_pixels();
  if (pixels == 0) return output;
  args.dtype = dtype_of(input);
  args.input = contiguous_input.const_data_ptr();
  args.output = output.mutable_data_ptr();
  const dcnv3::Kernels& kernels = dcnv3::kernels();
  const uintptr_t bytes = kernels.forward_scratch(args);
  // a share below some thousand points is not worth a thread
  const int64_t grain = 1 + 4096 / (params.groups * params.num_points());
  torch::stable::parallel_for(0, pixels, grain, [&](int64_t begin, int64_t end) {
    Scratch scratch(bytes);
    kernels.forward(args, begin, end, scratch.get());
  });
  return output;
}

Tensor forward(const Tensor& input, const Tensor& offset, const Tensor& mask, int64_t kernel_h, int64_t kernel_w,
               int64_t stride_h, int64_t stride_w, int64_t padding_h, int64_t padding_w, int64_t dilation_h,
               int64_t dilation_w, int64_t groups, double offset_scale, bool remove_center, bool softmax) {
  dcnv3::ForwardArgs args{};
  args.params = make_params(input, offset, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w,
                            dilation_h, dilation_w, groups, offset_scale, remove_center, softmax);
  const int64_t points = groups * args.params.num_points();
  check_same_pixels(offset, offset, 2 * points);
  check_same_pixels(offset, mask, points);
  const Pixels offsets(offset), weights(mask);
  args.offset_dtype = dtype_of(offset);
  args.mask_dtype = dtype_of(mask);
  args.offset = offsets.tensor.const_data_ptr();
  args.mask = weights.tensor.const_data_ptr();
  args.params.offset_stride = offsets.stride;
  args.params.mask_stride = weights.stride;
  return run_forward(args, input);
}

Tensor packed_forward(const Tensor& input, const Tensor& offset_mask, int64_t kernel_h, int64_t kernel_w,
                      int64_t stride_h, int64_t stride_w, int64_t padding_h, int64_t padding_w,
                      int64_t dilation_h, int64_t dilation_w, int64_t groups, double offset_scale,
                      bool remove_center, bool softmax) {
  dcnv3::ForwardArgs args{};
  args.params = make_params(input, offset_mask, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w,
                            dilation_h, dilation_w, groups, offset_scale, remove_center, softmax);
  const int64_t points = groups * args.params.num_points();
  check_same_pixels(offset_mask, offset_mask, 3 * points);
  const Pixels both(offset_mask);
  args.offset_dtype = args.mask_dtype = dtype_of(offset_mask);
  args.offset = both.tensor.const_data_ptr();
  args.mask = advance(args.offset, args.mask_dtype, 2 * points);
  args.params.offset_stride = args.params.mask_stride = both.stride;
  return run_forward(args, input);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ops_dcnv3, CPU, library) {
  library.impl("dcnv3", TORCH_BOX(&forward));
  library.impl("dcnv3_packed", TORCH_BOX(&packed_forward));
}
