// Sixteen bytes at a time, and arithmetic on pairs of 16-bit numbers.
#pragma once

#include "../dcnv3_scalar.h"

namespace dcnv3 {

struct alignas(16) Words {
  uint32_t word[4];
};

// `from` lies on a multiple of 16 bytes and is not written while the kernel runs.
DCNV3_HOST_DEVICE Words load_words(const void* from) {
#if defined(__CUDA_ARCH__)
  const uint4 loaded = __ldg(static_cast<const uint4*>(from));
  return {{loaded.x, loaded.y, loaded.z, loaded.w}};
#else
  Words words;
  __builtin_memcpy(&words, __builtin_assume_aligned(from, 16), sizeof(words));
  return words;
#endif
}

DCNV3_HOST_DEVICE void store_words(void* to, const Words& words) {
#if defined(__CUDA_ARCH__)
  *static_cast<uint4*>(to) = make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
#else
  __builtin_memcpy(__builtin_assume_aligned(to, 16), &words, sizeof(words));
#endif
}

template <typename scalar_t>
DCNV3_HOST_DEVICE scalar_t load_scalar(const scalar_t* from) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(scalar_t) == 2)
    return {__ldg(reinterpret_cast<const unsigned short*>(from))};
  else
    return __ldg(from);
#else
  return *from;
#endif
}

// Two neighbouring numbers, on a multiple of their common size.
DCNV3_HOST_DEVICE void load_two(const double* from, double& first, double& second) {
  const double* aligned = static_cast<const double*>(__builtin_assume_aligned(from, 16));
  first = load_scalar(aligned);
  second = load_scalar(aligned + 1);
}
DCNV3_HOST_DEVICE void load_two(const float* from, float& first, float& second) {
#if defined(__CUDA_ARCH__)
  const float2 two = __ldg(reinterpret_cast<const float2*>(from));
  first = two.x;
  second = two.y;
#else
  const float* aligned = static_cast<const float*>(__builtin_assume_aligned(from, 8));
  first = aligned[0];
  second = aligned[1];
#endif
}

// Two numbers of a 16-bit format in one word, the first in the low half.
template <typename scalar_t>
struct Pair {
  static DCNV3_HOST_DEVICE scalar_t low_half(uint32_t pair) {
    return {static_cast<uint16_t>(pair)};
  }
  static DCNV3_HOST_DEVICE scalar_t high_half(uint32_t pair) {
    return {static_cast<uint16_t>(pair >> 16)};
  }
  static DCNV3_HOST_DEVICE uint32_t join(scalar_t low, scalar_t high) {
    return low.bits | static_cast<uint32_t>(high.bits) << 16;
  }

  static DCNV3_HOST_DEVICE float low(uint32_t pair) { return to_compute(low_half(pair)); }
  static DCNV3_HOST_DEVICE float high(uint32_t pair) { return to_compute(high_half(pair)); }
  static DCNV3_HOST_DEVICE uint32_t of(float low, float high) {
    return join(from_compute<scalar_t>(low), from_compute<scalar_t>(high));
  }
  static DCNV3_HOST_DEVICE uint32_t both_low(uint32_t pair) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(pair, pair, 0x1010);
#else
    return join(low_half(pair), low_half(pair));
#endif
  }
  static DCNV3_HOST_DEVICE uint32_t both_high(uint32_t pair) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(pair, pair, 0x3232);
#else
    return join(high_half(pair), high_half(pair));
#endif
  }

  // Element by element, rounded once.
  static DCNV3_HOST_DEVICE uint32_t product(uint32_t a, uint32_t b);
  static DCNV3_HOST_DEVICE uint32_t product_sum(uint32_t a, uint32_t b, uint32_t c);
};

#if defined(__CUDA_ARCH__)

template <>
DCNV3_HOST_DEVICE float Pair<BFloat16>::low(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
template <>
DCNV3_HOST_DEVICE float Pair<BFloat16>::high(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}
template <>
DCNV3_HOST_DEVICE uint32_t Pair<BFloat16>::of(float low, float high) {
  return bit_cast<uint32_t>(__floats2bfloat162_rn(low, high));
}
template <>
DCNV3_HOST_DEVICE uint32_t Pair<BFloat16>::product(uint32_t a, uint32_t b) {
  return bit_cast<uint32_t>(__hmul2(bit_cast<__nv_bfloat162>(a), bit_cast<__nv_bfloat162>(b)));
}
template <>
DCNV3_HOST_DEVICE uint32_t Pair<BFloat16>::product_sum(uint32_t a, uint32_t b, uint32_t c) {
  return bit_cast<uint32_t>(__hfma2(bit_cast<__nv_bfloat162>(a), bit_cast<__nv_bfloat162>(b),
                                    bit_cast<__nv_bfloat162>(c)));
}
template <>
DCNV3_HOST_DEVICE uint32_t Pair<Float16>::of(float low, float high) {
  return bit_cast<uint32_t>(__floats2half2_rn(low, high));
}
template <>
DCNV3_HOST_DEVICE uint32_t Pair<Float16>::product(uint32_t a, uint32_t b) {
  return bit_cast<uint32_t>(__hmul2(bit_cast<__half2>(a), bit_cast<__half2>(b)));
}
template <>
DCNV3_HOST_DEVICE uint32_t Pair<Float16>::product_sum(uint32_t a, uint32_t b, uint32_t c) {
  return bit_cast<uint32_t>(
      __hfma2(bit_cast<__half2>(a), bit_cast<__half2>(b), bit_cast<__half2>(c)));
}

#else

// A product of two 16-bit numbers is exact in float64, and so is nearly every sum with a third.
template <typename scalar_t>
DCNV3_HOST_DEVICE scalar_t fused(scalar_t a, scalar_t b, double c) {
  const double product = static_cast<double>(to_compute(a)) * to_compute(b);
  return from_compute<scalar_t>(static_cast<float>(product + c));
}
template <typename scalar_t>
DCNV3_HOST_DEVICE uint32_t Pair<scalar_t>::product(uint32_t a, uint32_t b) {
  return join(fused(low_half(a), low_half(b), 0.0), fused(high_half(a), high_half(b), 0.0));
}
template <typename scalar_t>
DCNV3_HOST_DEVICE uint32_t Pair<scalar_t>::product_sum(uint32_t a, uint32_t b, uint32_t c) {
  return join(fused(low_half(a), low_half(b), low(c)), fused(high_half(a), high_half(b), high(c)));
}

#endif

template <typename scalar_t>
DCNV3_HOST_DEVICE void load_two(const scalar_t* from, float& first, float& second) {
#if defined(__CUDA_ARCH__)
  const uint32_t two = __ldg(reinterpret_cast<const unsigned*>(from));
#else
  uint32_t two;
  __builtin_memcpy(&two, __builtin_assume_aligned(from, 4), sizeof(two));
#endif
  first = Pair<scalar_t>::low(two);
  second = Pair<scalar_t>::high(two);
}

DCNV3_HOST_DEVICE void store_two(double first, double second, double* to) {
  double* aligned = static_cast<double*>(__builtin_assume_aligned(to, 16));
  aligned[0] = first;
  aligned[1] = second;
}
DCNV3_HOST_DEVICE void store_two(float first, float second, float* to) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<float2*>(to) = make_float2(first, second);
#else
  float* aligned = static_cast<float*>(__builtin_assume_aligned(to, 8));
  aligned[0] = first;
  aligned[1] = second;
#endif
}
template <typename scalar_t>
DCNV3_HOST_DEVICE void store_two(float first, float second, scalar_t* to) {
  const uint32_t two = Pair<scalar_t>::of(first, second);
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<unsigned*>(to) = two;
#else
  __builtin_memcpy(__builtin_assume_aligned(to, 4), &two, sizeof(two));
#endif
}

// The numbers in sixteen bytes, in the type of calculation.
template <typename scalar_t>
constexpr int kPerWords = static_cast<int>(sizeof(Words) / sizeof(scalar_t));

template <typename scalar_t>
DCNV3_HOST_DEVICE void unpack(const Words& words, float (&values)[kPerWords<scalar_t>]) {
  for (int w = 0; w < 4; ++w) {
    if constexpr (sizeof(scalar_t) == 4) {
      values[w] = bit_cast<float>(words.word[w]);
    } else {
      values[2 * w] = Pair<scalar_t>::low(words.word[w]);
      values[2 * w + 1] = Pair<scalar_t>::high(words.word[w]);
    }
  }
}

template <typename scalar_t>
DCNV3_HOST_DEVICE Words pack(const float (&values)[kPerWords<scalar_t>]) {
  Words words;
  for (int w = 0; w < 4; ++w) {
    if constexpr (sizeof(scalar_t) == 4)
      words.word[w] = bit_cast<uint32_t>(values[w]);
    else
      words.word[w] = Pair<scalar_t>::of(values[2 * w], values[2 * w + 1]);
  }
  return words;
}

}  // namespace dcnv3
