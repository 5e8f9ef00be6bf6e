// The 16-bit floating-point formats and the exponential: see dcnv3_params.h. Device code takes the
// GPU's own instructions, all else does without any library.
#pragma once

#include "dcnv3_params.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace dcnv3 {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <typename scalar_t>
constexpr bool kIsBFloat16 = false;
template <>
constexpr bool kIsBFloat16<BFloat16> = true;

// Calls `function` with a null value of the type that `dtype` is stored in.
template <typename F>
auto with_scalar(DType dtype, F function) {
  switch (dtype) {
    case DType::kFloat64:
      return function(double{});
    case DType::kFloat32:
      return function(float{});
    case DType::kBFloat16:
      return function(BFloat16{});
    default:
      return function(Float16{});
  }
}

// The type that a storage type is calculated in.
template <typename scalar_t>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};

template <typename to_t, typename from_t>
DCNV3_HOST_DEVICE to_t bit_cast(from_t value) {
  static_assert(sizeof(to_t) == sizeof(from_t), "bit_cast keeps the size");
  to_t result;
  __builtin_memcpy(&result, &value, sizeof(result));
  return result;
}

// A signed integer as wide as a number.
template <typename acc_t>
struct Bits {
  using type = int32_t;
};
template <>
struct Bits<double> {
  using type = int64_t;
};
// The value where all bits of `mask` are set, 0 where none is: unlike a product also for NaN.
template <typename acc_t>
DCNV3_HOST_DEVICE acc_t keep_bits(acc_t value, typename Bits<acc_t>::type mask) {
  return bit_cast<acc_t>(bit_cast<typename Bits<acc_t>::type>(value) & mask);
}

DCNV3_HOST_DEVICE bool is_finite(float value) {
  return (bit_cast<uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}

DCNV3_HOST_DEVICE double to_compute(double value) { return value; }
DCNV3_HOST_DEVICE float to_compute(float value) { return value; }
DCNV3_HOST_DEVICE float to_compute(BFloat16 value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}
// Exponent and mantissa moved to their float32 places are short of 2^112; the product also makes
// subnormals right. Infinity and NaN get the full exponent back.
DCNV3_HOST_DEVICE float to_compute(Float16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;
  return bit_cast<float>(sign | (magnitude >= 0x0f800000u ? special : finite));
#endif
}

template <typename scalar_t>
struct FromCompute {
  static DCNV3_HOST_DEVICE scalar_t of(scalar_t value) { return value; }
};
template <>
struct FromCompute<BFloat16> {  // to nearest, ties to even; NaN stays NaN
  static DCNV3_HOST_DEVICE BFloat16 of(float value) {
#if defined(__CUDA_ARCH__)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return {static_cast<uint16_t>(value != value ? 0x7fc0u : rounded)};
#endif
  }
};
template <>
struct FromCompute<Float16> {  // to nearest, ties to even; beyond 65519 infinity; NaN stays NaN
  static DCNV3_HOST_DEVICE Float16 of(float value) {
#if defined(__CUDA_ARCH__)
    return {__half_as_ushort(__float2half_rn(value))};
#else
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    // below 2^-14 the sum with 0.5 rounds to a multiple of 2^-24, the step of the subnormals
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
    result = magnitude >= 0x477ff000u ? 0x7c00u : result;
    result = magnitude > 0x7f800000u ? 0x7e00u : result;
    return {static_cast<uint16_t>(sign | result)};
#endif
  }
};

template <typename scalar_t, typename acc_t>
DCNV3_HOST_DEVICE scalar_t from_compute(acc_t value) {
  return FromCompute<scalar_t>::of(value);
}

// 1 / x for x >= 1, relative error below 2e-7 in float32.
DCNV3_HOST_DEVICE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
  return inverse;
#else
  return 1.0f / x;
#endif
}
DCNV3_HOST_DEVICE double reciprocal(double x) {
#if defined(__CUDA_ARCH__)
  // of some 20 bits, doubled by each step of Newton's; a division would be a function call
  double inverse;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(inverse) : "d"(x));
  inverse = inverse * fma(-x, inverse, 2.0);
  inverse = inverse * fma(-x, inverse, 2.0);
  return inverse * fma(-x, inverse, 2.0);
#else
  return 1.0 / x;
#endif
}

// The larger one; either if one is NaN, which the exponential of a softmax will show all the same.
DCNV3_HOST_DEVICE float maximum(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fmaxf(a, b);
#else
  return a > b ? a : b;
#endif
}
DCNV3_HOST_DEVICE double maximum(double a, double b) { return a > b ? a : b; }

// e^x for x <= 0, relative error below 2e-7; branch-free, so that loops over it become vector code.
// Note [Exponential]: x = n ln2 + r with |r| <= ln2/2, e^r by its Taylor polynomial of degree 7,
// and n added to the exponent field. Adding 1.5 * 2^23 leaves n in the low bits of the sum, which
// avoids a conversion.
DCNV3_HOST_DEVICE float exp_nonpositive(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  const float magic = 12582912.0f;
  const float shifted = x * 1.442695041f + magic;
  const float n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float scaled = bit_cast<float>(bit_cast<uint32_t>(p) + (bit_cast<uint32_t>(shifted) << 23));
  const float flushed = x < -87.0f ? 0.0f : scaled;
  return x != x ? x : flushed;
#endif
}
DCNV3_HOST_DEVICE double exp_nonpositive(double x) {
#if defined(__CUDA_ARCH__)
  return exp(x);
#else
  return __builtin_exp(x);
#endif
}

// The same for weights that belong to numbers of scalar_t: beside 16-bit ones a GPU's instruction
// is exact enough, whose error is 2^-22 of e^0.
template <typename scalar_t, typename acc_t>
DCNV3_HOST_DEVICE acc_t softmax_power(acc_t x) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(scalar_t) == 2) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * 1.442695041f));
    return power;
  }
#endif
  return exp_nonpositive(x);
}

}  // namespace dcnv3
