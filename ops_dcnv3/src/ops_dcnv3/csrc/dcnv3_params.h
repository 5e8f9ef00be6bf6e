// What the kernels are told, on every device. No torch header may be included here or in anything
// that the kernels include: the same files serve the CPU, CUDA and TensorRT builds.
//
// Shape legend: N batch, H W input, Ho Wo output, C channels, G groups, D = C/G, P sampling points
// a group.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#define DCNV3_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(_MSC_VER) && !defined(__clang__)
#define DCNV3_HOST_DEVICE __forceinline
#else
#define DCNV3_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace dcnv3 {

enum class DType : int32_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

struct Params {
  int64_t batch;       // N
  int64_t height;      // H
  int64_t width;       // W
  int64_t groups;      // G
  int64_t depth;       // D
  int64_t out_height;  // Ho
  int64_t out_width;   // Wo
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t padding_h, padding_w;
  int64_t dilation_h, dilation_w;
  double offset_scale;
  bool remove_center;
  bool softmax;  // the weights are logits, normalised over the P points of each group

  // Offsets and weights may be slices of one packed tensor: elements from one output pixel to the
  // next.
  int64_t offset_stride;
  int64_t mask_stride;

  DCNV3_HOST_DEVICE int64_t channels() const { return groups * depth; }
  DCNV3_HOST_DEVICE int64_t num_points() const {
    return kernel_h * kernel_w - (remove_center ? 1 : 0);
  }
  DCNV3_HOST_DEVICE int64_t num_pixels() const { return batch * out_height * out_width; }
};

// All tensors channels-last and contiguous but for the two strides above.
struct ForwardArgs {
  Params params;
  DType dtype;         // of input and output
  DType offset_dtype;  // dtype, or float32 beside a 16-bit dtype
  DType mask_dtype;    // likewise
  const void* input;   // (N, H, W, C)
  const void* offset;  // (N, Ho, Wo, G*P*2)
  const void* mask;    // (N, Ho, Wo, G*P)
  void* output;        // (N, Ho, Wo, C)
};

struct BackwardArgs {
  ForwardArgs forward;  // `output` unused
  const void* grad_output;
  void* grad_input;  // overwritten, as are the two below
  void* grad_offset;
  void* grad_mask;
  int64_t grad_offset_stride;  // elements from one output pixel to the next
  int64_t grad_mask_stride;
  // The CPU splits the output rows of one image and group into so many items of work.
  int64_t chunks;
  // Copies of the gradient of the input in the type of calculation, (copies, N, H, W, C): on the
  // CPU `chunks` of them if there is more than one; on a GPU see cuda/plan.h, partial_numbers().
  void* partial;
};

}  // namespace dcnv3
