// The operators of ops.py in C++, on LibTorch's stable ABI: from tensors to the arguments of the
// kernels, for any device. The checks here are for memory safety alone, user errors are caught in
// Python, where the schemas stand too.
//
// A backend has
//
//   static void forward(const ForwardArgs& args, const Tensor& input);
//   static void backward(const BackwardArgs& args, const Tensor& input, bool deterministic);
//
// `args` is complete but for what the backend itself allocates; there is at least one output pixel.
// `input` says where (device and dtype) to allocate.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <tuple>

#include "dcnv3_geometry.h"

// The static arguments of every schema in ops.py, in its order; those of a backward pass end with
// `bool deterministic`.
#define DCNV3_GEOMETRY_PARAMETERS                                                            \
  int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t padding_h, \
      int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,             \
      double offset_scale, bool remove_center, bool softmax
#define DCNV3_GEOMETRY_ARGUMENTS                                                                \
  kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups, \
      offset_scale, remove_center, softmax

// as PyTorch's stable classes are
#pragma GCC visibility push(hidden)
namespace dcnv3 {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      STD_TORCH_CHECK(false,
                      "ops_dcnv3: expected a tensor of float64, float32, bfloat16 or float16");
  }
}

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

inline Params make_params(const Tensor& input, const Tensor& points, DCNV3_GEOMETRY_PARAMETERS) {
  STD_TORCH_CHECK(input.dim() == 4 && points.dim() == 4,
                  "ops_dcnv3: expected tensors of 4 dimensions");
  STD_TORCH_CHECK(groups > 0 && input.size(3) > 0 && input.size(3) % groups == 0 && kernel_h > 0 &&
                      kernel_w > 0 && stride_h > 0 && stride_w > 0 && dilation_h > 0 &&
                      dilation_w > 0 && points.size(0) == input.size(0),
                  "ops_dcnv3: the arguments do not fit the input");
  Params params{};
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

inline void check_same_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) {
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t dim = 0;
  for (int64_t size : shape) {
    same = same && tensor.size(dim) == size;
    ++dim;
  }
  STD_TORCH_CHECK(same, "ops_dcnv3: the shapes of the tensors do not fit each other");
}

inline void check_same_device(const Tensor& tensor, const Tensor& input) {
  STD_TORCH_CHECK(
      tensor.is_cuda() == input.is_cuda() && tensor.get_device_index() == input.get_device_index(),
      "ops_dcnv3: the tensors lie on different devices");
}

// Offsets and weights are stored as the input is, or in float32 beside 16-bit input.
inline DType point_dtype(const Tensor& tensor, const Tensor& input) {
  check_same_device(tensor, input);
  const DType dtype = dtype_of(tensor), input_dtype = dtype_of(input);
  STD_TORCH_CHECK(
      dtype == input_dtype || (dtype == DType::kFloat32 && input_dtype != DType::kFloat64),
      "ops_dcnv3: the dtypes of offsets or weights do not fit the input's");
  return dtype;
}

inline void* advance(void* base, DType dtype, int64_t elements) {
  const int64_t bytes = dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
  return static_cast<char*>(base) + elements * bytes;
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline Tensor new_like(const Tensor& tensor) {
  return torch::stable::new_empty(tensor,
                                  {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)});
}

inline ForwardArgs separate_args(const Tensor& input, const Pixels& offsets, const Pixels& weights,
                                 DCNV3_GEOMETRY_PARAMETERS) {
  ForwardArgs args{};
  args.params = make_params(input, offsets.tensor, DCNV3_GEOMETRY_ARGUMENTS);
  const int64_t points = groups * args.params.num_points();
  const Params& params = args.params;
  check_same_shape(offsets.tensor, {params.batch, params.out_height, params.out_width, 2 * points});
  check_same_shape(weights.tensor, {params.batch, params.out_height, params.out_width, points});
  args.dtype = dtype_of(input);
  args.offset_dtype = point_dtype(offsets.tensor, input);
  args.mask_dtype = point_dtype(weights.tensor, input);
  args.offset = offsets.tensor.const_data_ptr();
  args.mask = weights.tensor.const_data_ptr();
  args.params.offset_stride = offsets.stride;
  args.params.mask_stride = weights.stride;
  return args;
}

inline ForwardArgs packed_args(const Tensor& input, const Pixels& both, DCNV3_GEOMETRY_PARAMETERS) {
  ForwardArgs args{};
  args.params = make_params(input, both.tensor, DCNV3_GEOMETRY_ARGUMENTS);
  const int64_t points = groups * args.params.num_points();
  const Params& params = args.params;
  const int64_t width = both.tensor.size(3);  // what lies behind the 3 * points is padding
  check_same_shape(both.tensor, {params.batch, params.out_height, params.out_width, width});
  STD_TORCH_CHECK(width >= 3 * points,
                  "ops_dcnv3: the shapes of the tensors do not fit each other");
  args.dtype = dtype_of(input);
  args.offset_dtype = args.mask_dtype = point_dtype(both.tensor, input);
  args.offset = both.tensor.const_data_ptr();
  args.mask = advance(const_cast<void*>(args.offset), args.mask_dtype, 2 * points);
  args.params.offset_stride = args.params.mask_stride = both.stride;
  return args;
}

// The four operators on one backend.
template <class Backend>
struct Operators {
  static Tensor forward(const Tensor& input, const Tensor& offset, const Tensor& mask,
                        DCNV3_GEOMETRY_PARAMETERS) {
    const Pixels offsets(offset), weights(mask);
    return run_forward(separate_args(input, offsets, weights, DCNV3_GEOMETRY_ARGUMENTS), input);
  }

  static Tensor packed_forward(const Tensor& input, const Tensor& offset_mask,
                               DCNV3_GEOMETRY_PARAMETERS) {
    const Pixels both(offset_mask);
    return run_forward(packed_args(input, both, DCNV3_GEOMETRY_ARGUMENTS), input);
  }

  static std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                                     const Tensor& offset, const Tensor& mask,
                                                     DCNV3_GEOMETRY_PARAMETERS,
                                                     bool deterministic) {
    const Pixels offsets(offset), weights(mask);
    BackwardArgs args{};
    args.forward = separate_args(input, offsets, weights, DCNV3_GEOMETRY_ARGUMENTS);
    Tensor grad_offset = new_like(offset), grad_mask = new_like(mask);
    args.grad_offset = grad_offset.mutable_data_ptr();
    args.grad_mask = grad_mask.mutable_data_ptr();
    args.grad_offset_stride = offset.size(3);
    args.grad_mask_stride = mask.size(3);
    Tensor grad_input = run_backward(args, grad_output, input, deterministic);
    return {grad_input, grad_offset, grad_mask};
  }

  static std::tuple<Tensor, Tensor> packed_backward(const Tensor& grad_output, const Tensor& input,
                                                    const Tensor& offset_mask,
                                                    DCNV3_GEOMETRY_PARAMETERS, bool deterministic) {
    const Pixels both(offset_mask);
    BackwardArgs args{};
    args.forward = packed_args(input, both, DCNV3_GEOMETRY_ARGUMENTS);
    Tensor grad = new_like(offset_mask);
    const int64_t points = groups * args.forward.params.num_points();
    const int64_t width = offset_mask.size(3);
    if (width > 3 * points) {  // the kernels leave the padding alone
      Tensor padding = torch::stable::narrow(grad, 3, 3 * points, width - 3 * points);
      torch::stable::zero_(padding);
    }
    args.grad_offset = grad.mutable_data_ptr();
    args.grad_mask = advance(args.grad_offset, args.forward.mask_dtype, 2 * points);
    args.grad_offset_stride = args.grad_mask_stride = width;
    Tensor grad_input = run_backward(args, grad_output, input, deterministic);
    return {grad_input, grad};
  }

  static void register_in(torch::stable::detail::StableLibrary& library) {
    library.impl("dcnv3", TORCH_BOX(&forward));
    library.impl("dcnv3_backward", TORCH_BOX(&backward));
    library.impl("dcnv3_packed", TORCH_BOX(&packed_forward));
    library.impl("dcnv3_packed_backward", TORCH_BOX(&packed_backward));
  }

 private:
  static Tensor run_forward(ForwardArgs args, const Tensor& input) {
    const Params& params = args.params;
    const Tensor contiguous_input = as_contiguous(input);
    Tensor output = torch::stable::new_empty(
        input, {params.batch, params.out_height, params.out_width, params.channels()});
    args.input = contiguous_input.const_data_ptr();
    args.output = output.mutable_data_ptr();
    if (params.num_pixels() > 0) Backend::forward(args, input);
    return output;
  }

  static Tensor run_backward(BackwardArgs args, const Tensor& grad_output, const Tensor& input,
                             bool deterministic) {
    const Params& params = args.forward.params;
    check_same_shape(grad_output,
                     {params.batch, params.out_height, params.out_width, params.channels()});
    STD_TORCH_CHECK(dtype_of(grad_output) == args.forward.dtype,
                    "ops_dcnv3: grad_output has another dtype");
    check_same_device(grad_output, input);
    const Tensor contiguous_input = as_contiguous(input);
    const Tensor contiguous_grad = as_contiguous(grad_output);
    Tensor grad_input = new_like(input);
    args.forward.input = contiguous_input.const_data_ptr();
    args.grad_output = contiguous_grad.const_data_ptr();
    args.grad_input = grad_input.mutable_data_ptr();
    if (params.num_pixels() > 0)
      Backend::backward(args, input, deterministic);
    else
      torch::stable::zero_(grad_input);
    return grad_input;
  }
};

}  // namespace dcnv3
#pragma GCC visibility pop
