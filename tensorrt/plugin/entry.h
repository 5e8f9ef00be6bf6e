/* The forward pass of DCNv3 on a GPU as a plain C function: for the TensorRT plugin, and for any
 * other program that has device pointers and a stream. The letters are those of dcnv3_params.h;
 * what is computed stands in docs/dcnv3.md. */
#pragma once

#include <stdint.h>

#if defined(DCNV3_TENSORRT_BUILD)
#define DCNV3_EXPORT __attribute__((visibility("default")))
#else
#define DCNV3_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { DCNV3_FLOAT32 = 0, DCNV3_FLOAT16 = 1 };

/* All tensors are channels last and contiguous, and lie on the current device. */
struct Dcnv3Call {
  int64_t batch, height, width, channels;
  int64_t out_height, out_width; /* of the output, offsets and weights: checked */
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_h, pad_w;
  int64_t dilation_h, dilation_w;
  int64_t group;
  double offset_scale;
  int32_t remove_center; /* 0 or 1 */
  int32_t softmax;       /* 0 or 1: the weights are logits */
  int32_t dtype;         /* of input and output */
  int32_t point_dtype;   /* of offsets and weights: dtype, or DCNV3_FLOAT32 */
  /* Numbers a pixel of `offset`: 2 G P, or with `mask` null 3 G P or more: offsets, then weights,
   * then padding, which is never read. */
  int64_t offset_channels;
  int64_t mask_channels; /* G P; 0 with `mask` null */
  const void* input;     /* (N, H, W, C) */
  const void* offset;    /* (N, Ho, Wo, offset_channels), x before y */
  const void* mask;      /* (N, Ho, Wo, G P), or null */
  void* output;          /* (N, Ho, Wo, C) */
  void* stream;          /* a cudaStream_t; null is the default one */
};

/* Enqueues the kernel and does not wait for it. Returns null, or what is wrong: a text that stays
 * until the same thread calls again. */
DCNV3_EXPORT const char* dcnv3_forward(const struct Dcnv3Call* call);

/* Only the checks of the above, of everything but the pointers. */
DCNV3_EXPORT const char* dcnv3_check(const struct Dcnv3Call* call);

#ifdef __cplusplus
}
#endif
