// Vectors of the instruction set that this translation unit is compiled for: loads, stores,
// conversions and sums. GNU vector types (gcc, clang) in native widths only: wider ones are split
// badly by gcc.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../dcnv3_scalar.h"

namespace dcnv3 {
namespace DCNV3_LEVEL {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T, int kLanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(kLanes * sizeof(T))));
};
template <typename T, int kLanes>
using Vector = typename VectorOf<T, kLanes>::type;

// Lanes of the widest native vector, and of 128 bits.
template <typename acc_t>
constexpr int kMaxLanes = kVectorBytes / int(sizeof(acc_t));
template <typename acc_t>
constexpr int kMinLanes = 16 / int(sizeof(acc_t));

template <typename V, typename T>
DCNV3_HOST_DEVICE V load_unaligned(const T* from) {
  V result;
  __builtin_memcpy(&result, from, sizeof(V));
  return result;
}

// The twin of ScalarLane in dcnv3_geometry.h.
template <int kLanes>
struct VectorLane {
  using float_t = Vector<float, kLanes>;
  using limit_t = float;
  using index_t = Vector<int32_t, kLanes>;
  static DCNV3_HOST_DEVICE index_t floor(float_t x) {
    const index_t truncated = __builtin_convertvector(x, index_t);
    return truncated + (to_float(truncated) > x);  // a true comparison is -1
  }
  static DCNV3_HOST_DEVICE float_t to_float(index_t index) {
    return __builtin_convertvector(index, float_t);
  }
};

// Reads kLanes stored values as the type they are calculated in.
template <int kLanes>
DCNV3_HOST_DEVICE Vector<float, kLanes> load(const float* from) {
  return load_unaligned<Vector<float, kLanes>>(from);
}
template <int kLanes>
DCNV3_HOST_DEVICE Vector<double, kLanes> load(const double* from) {
  return load_unaligned<Vector<double, kLanes>>(from);
}
template <int kLanes>
DCNV3_HOST_DEVICE Vector<float, kLanes> load(const BFloat16* from) {
  using Wide = Vector<uint32_t, kLanes>;
  const auto narrow = load_unaligned<Vector<uint16_t, kLanes>>(from);
  return bit_cast<Vector<float, kLanes>>(__builtin_convertvector(narrow, Wide) << 16);
}
template <int kLanes>
DCNV3_HOST_DEVICE Vector<float, kLanes> load(const Float16* from) {
#if defined(__F16C__)
  if constexpr (kLanes == 4) {
    return bit_cast<Vector<float, 4>>(
        _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  } else if constexpr (kLanes == 8) {
    return bit_cast<Vector<float, 8>>(_mm256_cvtph_ps(load_unaligned<__m128i>(from)));
  } else {
#if defined(__AVX512F__)
    static_assert(kLanes == 16, "a native width");
    return bit_cast<Vector<float, 16>>(_mm512_cvtph_ps(load_unaligned<__m256i>(from)));
#endif
  }
#else
  Vector<float, kLanes> result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = to_compute(from[lane]);
  return result;
#endif
}

// Stores kLanes values, rounded to the type that they are kept in.
template <int kLanes>
DCNV3_HOST_DEVICE void store(float* to, Vector<float, kLanes> value) {
  __builtin_memcpy(to, &value, sizeof(value));
}
template <int kLanes>
DCNV3_HOST_DEVICE void store(double* to, Vector<double, kLanes> value) {
  __builtin_memcpy(to, &value, sizeof(value));
}
template <int kLanes>
DCNV3_HOST_DEVICE void store(int32_t* to, Vector<int32_t, kLanes> value) {
  __builtin_memcpy(to, &value, sizeof(value));
}
template <int kLanes>
DCNV3_HOST_DEVICE void store(BFloat16* to,
                             Vector<float, kLanes> value) {  // as from_compute<BFloat16>
  using Wide = Vector<uint32_t, kLanes>;
  const Wide bits = bit_cast<Wide>(value);
  const Wide rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Wide nan = Wide{} + 0x7fc0u;
  const auto narrow =
      __builtin_convertvector(value != value ? nan : rounded, Vector<uint16_t, kLanes>);
  __builtin_memcpy(to, &narrow, sizeof(narrow));
}
template <int kLanes>
DCNV3_HOST_DEVICE void store(Float16* to,
                             Vector<float, kLanes> value) {  // as from_compute<Float16>
#if defined(__AVX512F__)
  if constexpr (kLanes == 16) {
    const __m256i narrow = _mm512_cvtps_ph(bit_cast<__m512>(value), _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(to, &narrow, sizeof(narrow));
    return;
  }
#endif
#if defined(__F16C__)
  if constexpr (kLanes == 8) {
    const __m128i narrow = _mm256_cvtps_ph(bit_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(to, &narrow, sizeof(narrow));
    return;
  }
#endif
  for (int lane = 0; lane < kLanes; ++lane) to[lane] = from_compute<Float16>(value[lane]);
}

// Lanes of `a` and `b` together by number; gcc has clang's form only from version 12 on.
#if defined(__clang__)
#define DCNV3_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define DCNV3_SHUFFLE(a, b, ...) \
  __builtin_shuffle(a, b, Vector<int32_t, sizeof(a) / sizeof(int32_t)>{__VA_ARGS__})
#endif

// Parts (x0, y0, x1, y1, ...) into (x0, x1, ...) and (y0, y1, ...).
template <int kLanes>
DCNV3_HOST_DEVICE void deinterleave(const float* from, Vector<float, kLanes>* x,
                                    Vector<float, kLanes>* y) {
  const auto a = load<kLanes>(from), b = load<kLanes>(from + kLanes);
  if constexpr (kLanes == 16) {
    *x = DCNV3_SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *y = DCNV3_SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  } else if constexpr (kLanes == 8) {
    *x = DCNV3_SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    *y = DCNV3_SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  } else {
    *x = DCNV3_SHUFFLE(a, b, 0, 2, 4, 6);
    *y = DCNV3_SHUFFLE(a, b, 1, 3, 5, 7);
  }
}

// Sums of four vectors' lanes, side by side.
template <int kLanes, typename acc_t>
DCNV3_HOST_DEVICE void store_sums(acc_t* to, Vector<acc_t, kLanes> a, Vector<acc_t, kLanes> b,
                                  Vector<acc_t, kLanes> c, Vector<acc_t, kLanes> d) {
#if defined(__x86_64__)
  if constexpr (sizeof(acc_t) == 4) {
    __m128 quad;
#if defined(__AVX512F__)
    if constexpr (kLanes == 16) {
      const __m512 va = bit_cast<__m512>(a), vb = bit_cast<__m512>(b);
      const __m512 vc = bit_cast<__m512>(c), vd = bit_cast<__m512>(d);
      const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(va, vb), _mm512_unpackhi_ps(va, vb));
      const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(vc, vd), _mm512_unpackhi_ps(vc, vd));
      const __m512 abcd =
          _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
      const __m256 half =
          _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
      quad = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    }
#endif
#if defined(__AVX2__)
    if constexpr (kLanes == 8) {
      const __m256 va = bit_cast<__m256>(a), vb = bit_cast<__m256>(b);
      const __m256 vc = bit_cast<__m256>(c), vd = bit_cast<__m256>(d);
      const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(va, vb), _mm256_unpackhi_ps(va, vb));
      const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(vc, vd), _mm256_unpackhi_ps(vc, vd));
      const __m256 abcd =
          _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
      quad = _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
    }
#endif
    if constexpr (kLanes == 4) {
      const __m128 va = bit_cast<__m128>(a), vb = bit_cast<__m128>(b);
      const __m128 vc = bit_cast<__m128>(c), vd = bit_cast<__m128>(d);
      const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(va, vb), _mm_unpackhi_ps(va, vb));
      const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(vc, vd), _mm_unpackhi_ps(vc, vd));
      quad = _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x44), _mm_shuffle_ps(ab, cd, 0xee));
    }
    _mm_storeu_ps(reinterpret_cast<float*>(to), quad);
    return;
  }
#endif
  acc_t sums[4] = {};
  for (int lane = 0; lane < kLanes; ++lane) {
    sums[0] += a[lane];
    sums[1] += b[lane];
    sums[2] += c[lane];
    sums[3] += d[lane];
  }
  for (int k = 0; k < 4; ++k) to[k] = sums[k];
}

}  // namespace DCNV3_LEVEL
}  // namespace dcnv3
