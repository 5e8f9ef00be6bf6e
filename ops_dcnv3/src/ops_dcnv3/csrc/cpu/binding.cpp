// Registers the CPU kernels with PyTorch through LibTorch's stable ABI. Schemas stand in ops.py;
// the checks here are for memory safety alone, user errors are caught in Python.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <tuple>

#include "../dcnv3_geometry.h"
#include "dispatch.h"

// The static arguments of every schema in ops.py, in its order; those of a backward pass end with
// `bool deterministic`, which asks nothing of the CPU kernels: they add in a fixed order anyhow.
#define GEOMETRY_PARAMETERS                                                                  \
  int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h, \
      int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,             \
      double offset_scale, bool remove_center, bool softmax
#define GEOMETRY_ARGUMENTS                                                                      \
  kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups, \
      offset_scale, remove_center, softmax

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
      STD_TORCH_CHECK(false,
                      "ops_dcnv3: expected a tensor of float64, float32, bfloat16 or float16");
  }
}

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

// A tensor (N, Ho, Wo, K) whose pixels are evenly spaced, as it is or copied.
struct Pixels {
  Tensor tensor;
  int64_t stride;  // elements from one pixel to the next

  explicit Pixels(const Tensor& source) : tensor(source), stride(source.size(3)) {
    if (source.is_contiguous()) return;
    const bool even =
        source.stride(3) == 1 && source.stride(1) == source.size(2) * source.stride(2) &&
        source.stride(0) == source.size(1) * source.stride(1) && source.stride(2) >= source.size(3);
    if (even)
      stride = source.stride(2);
    else
      tensor = torch::stable::contiguous(source);
  }
};

dcnv3::Params make_params(const Tensor& input, const Tensor& points, GEOMETRY_PARAMETERS) {
  STD_TORCH_CHECK(input.dim() == 4 && points.dim() == 4,
                  "ops_dcnv3: expected tensors of 4 dimensions");
  STD_TORCH_CHECK(groups > 0 && input.size(3) % groups == 0 && kernel_h > 0 && kernel_w > 0 &&
                      stride_h > 0 && stride_w > 0 && dilation_h > 0 && dilation_w > 0 &&
                      points.size(0) == input.size(0),
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

void check_same_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) {
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t dim = 0;
  for (int64_t size : shape) {
    same = same && tensor.size(dim) == size;
    ++dim;
  }
  STD_TORCH_CHECK(same, "ops_dcnv3: the shapes of the tensors do not fit each other");
}

// Offsets and weights are stored as the input is, or in float32 beside 16-bit input.
dcnv3::DType point_dtype(const Tensor& tensor, const Tensor& input) {
  const dcnv3::DType dtype = dtype_of(tensor), input_dtype = dtype_of(input);
  STD_TORCH_CHECK(dtype == input_dtype ||
                      (dtype == dcnv3::DType::kFloat32 && input_dtype != dcnv3::DType::kFloat64),
                  "ops_dcnv3: the dtypes of offsets or weights do not fit the input's");
  return dtype;
}

void* advance(void* base, dcnv3::DType dtype, int64_t elements) {
  const int64_t bytes = dtype == dcnv3::DType::kFloat64   ? 8
                        : dtype == dcnv3::DType::kFloat32 ? 4
                                                          : 2;
  return static_cast<char*>(base) + elements * bytes;
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

dcnv3::ForwardArgs separate_args(const Tensor& input, const Pixels& offsets, const Pixels& weights,
                                 GEOMETRY_PARAMETERS) {
  dcnv3::ForwardArgs args{};
  args.params = make_params(input, offsets.tensor, GEOMETRY_ARGUMENTS);
  const int64_t points = groups * args.params.num_points();
  const dcnv3::Params& params = args.params;
  check_same_shape(offsets.tensor, {params.batch, params.out_height, params.out_width, 2 * points});
  check_same_shape(weights.tensor, {params.batch, params.out_height, params.out_width, points});
  args.offset_dtype = point_dtype(offsets.tensor, input);
  args.mask_dtype = point_dtype(weights.tensor, input);
  args.offset = offsets.tensor.const_data_ptr();
  args.mask = weights.tensor.const_data_ptr();
  args.params.offset_stride = offsets.stride;
  args.params.mask_stride = weights.stride;
  return args;
}

dcnv3::ForwardArgs packed_args(const Tensor& input, const Pixels& both, GEOMETRY_PARAMETERS) {
  dcnv3::ForwardArgs args{};
  args.params = make_params(input, both.tensor, GEOMETRY_ARGUMENTS);
  const int64_t points = groups * args.params.num_points();
  const dcnv3::Params& params = args.params;
  const int64_t width = both.tensor.size(3);  // what lies behind the 3 * points is padding
  check_same_shape(both.tensor, {params.batch, params.out_height, params.out_width, width});
  STD_TORCH_CHECK(width >= 3 * points,
                  "ops_dcnv3: the shapes of the tensors do not fit each other");
  args.offset_dtype = args.mask_dtype = point_dtype(both.tensor, input);
  args.offset = both.tensor.const_data_ptr();
  args.mask = advance(const_cast<void*>(args.offset), args.mask_dtype, 2 * points);
  args.params.offset_stride = args.params.mask_stride = both.stride;
  return args;
}

Tensor forward(const Tensor& input, const Tensor& offset, const Tensor& mask, GEOMETRY_PARAMETERS) {
  const Pixels offsets(offset), weights(mask);
  return run_forward(separate_args(input, offsets, weights, GEOMETRY_ARGUMENTS), input);
}

Tensor packed_forward(const Tensor& input, const Tensor& offset_mask, GEOMETRY_PARAMETERS) {
  const Pixels both(offset_mask);
  return run_forward(packed_args(input, both, GEOMETRY_ARGUMENTS), input);
}

// Runs the backward pass into grad_offset and grad_mask, which `args` leads to; returns the
// gradient of the input.
Tensor run_backward(const dcnv3::BackwardArgs& partial_args, const Tensor& grad_output,
                    const Tensor& input) {
  const Tensor contiguous_input = input.is_contiguous() ? input : torch::stable::contiguous(input);
  const Tensor contiguous_grad =
      grad_output.is_contiguous() ? grad_output : torch::stable::contiguous(grad_output);
  dcnv3::BackwardArgs args = partial_args;
  const dcnv3::Params& params = args.forward.params;
  check_same_shape(grad_output,
                   {params.batch, params.out_height, params.out_width, params.channels()});
  args.forward.dtype = dtype_of(input);
  STD_TORCH_CHECK(dtype_of(grad_output) == args.forward.dtype,
                  "ops_dcnv3: grad_output has another dtype");
  args.forward.input = contiguous_input.const_data_ptr();
  args.grad_output = contiguous_grad.const_data_ptr();
  Tensor grad_input = torch::stable::new_empty(
      input, {params.batch, params.height, params.width, params.channels()});
  if (params.batch == 0) return grad_input;
  args.grad_input = grad_input.mutable_data_ptr();

  // Rows are split only where images and groups are too few for the threads: each chunk costs a
  // buffer.
  constexpr int64_t kMaxChunks = 8;
  const int64_t items = params.batch * params.groups;
  const int64_t threads = torch::stable::get_num_threads();
  args.chunks = std::min(
      {kMaxChunks, (threads + items - 1) / items, std::max<int64_t>(params.out_height, 1)});
  Tensor partial = input;  // stays unused with one chunk
  if (args.chunks > 1) {
    const bool is_double = args.forward.dtype == dcnv3::DType::kFloat64;
    partial = torch::stable::new_empty(
        input, {args.chunks, params.batch, params.height, params.width, params.channels()},
        is_double ? ScalarType::Double : ScalarType::Float);
    args.partial = partial.mutable_data_ptr();
  }
  const dcnv3::Kernels& kernels = dcnv3::kernels();
  const uintptr_t bytes = kernels.backward_scratch(args);
  torch::stable::parallel_for(0, items * args.chunks, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(bytes);
    kernels.backward(args, begin, end, scratch.get());
  });
  if (args.chunks > 1)
    torch::stable::parallel_for(0, input.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
      kernels.add_partial(args, begin, end);
    });
  return grad_input;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                            const Tensor& offset, const Tensor& mask,
                                            GEOMETRY_PARAMETERS, bool /* deterministic */) {
  dcnv3::BackwardArgs args{};
  const Pixels offsets(offset), weights(mask);
  args.forward = separate_args(input, offsets, weights, GEOMETRY_ARGUMENTS);
  Tensor grad_offset = torch::stable::new_empty(
      offset, {offset.size(0), offset.size(1), offset.size(2), offset.size(3)});
  Tensor grad_mask =
      torch::stable::new_empty(mask, {mask.size(0), mask.size(1), mask.size(2), mask.size(3)});
  args.grad_offset = grad_offset.mutable_data_ptr();
  args.grad_mask = grad_mask.mutable_data_ptr();
  args.grad_offset_stride = offset.size(3);
  args.grad_mask_stride = mask.size(3);
  Tensor grad_input = run_backward(args, grad_output, input);
  return {grad_input, grad_offset, grad_mask};
}

std::tuple<Tensor, Tensor> packed_backward(const Tensor& grad_output, const Tensor& input,
                                           const Tensor& offset_mask, GEOMETRY_PARAMETERS,
                                           bool /* deterministic */) {
  dcnv3::BackwardArgs args{};
  const Pixels both(offset_mask);
  args.forward = packed_args(input, both, GEOMETRY_ARGUMENTS);
  Tensor grad = torch::stable::new_empty(offset_mask, {offset_mask.size(0), offset_mask.size(1),
                                                       offset_mask.size(2), offset_mask.size(3)});
  const int64_t points = groups * args.forward.params.num_points();
  if (grad.size(3) > 3 * points) torch::stable::zero_(grad);  // the kernels leave padding alone
  args.grad_offset = grad.mutable_data_ptr();
  args.grad_mask = advance(args.grad_offset, args.forward.mask_dtype, 2 * points);
  args.grad_offset_stride = args.grad_mask_stride = offset_mask.size(3);
  Tensor grad_input = run_backward(args, grad_output, input);
  return {grad_input, grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ops_dcnv3, CPU, library) {
  library.impl("dcnv3", TORCH_BOX(&forward));
  library.impl("dcnv3_backward", TORCH_BOX(&backward));
  library.impl("dcnv3_packed", TORCH_BOX(&packed_forward));
  library.impl("dcnv3_packed_backward", TORCH_BOX(&packed_backward));
}
