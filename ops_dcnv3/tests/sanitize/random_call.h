// Random shapes and hostile values for kernels that run without PyTorch, so that AddressSanitizer
// and UndefinedBehaviorSanitizer see every access: each tensor is a heap block of exactly its size.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

#include "dcnv3_geometry.h"

namespace dcnv3 {

inline std::mt19937_64& random_bits() {
  static std::mt19937_64 generator;
  return generator;
}

inline int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_bits());
}
inline double normal() { return std::normal_distribution<double>()(random_bits()); }
template <typename T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
}

inline int64_t element_bytes(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

// A tensor in a heap block of exactly its size.
class Block {
 public:
  Block(DType dtype, int64_t count)
      : dtype_(dtype),
        count_(count),
        memory_(std::malloc(static_cast<size_t>(count * element_bytes(dtype)))) {}
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void* get() const { return memory_; }
  void* at(int64_t element) const {
    return static_cast<char*>(memory_) + element * element_bytes(dtype_);
  }
  int64_t count() const { return count_; }

  void set(int64_t k, double value) {
    switch (dtype_) {
      case DType::kFloat64:
        return put(k, value);
      case DType::kFloat32:
        return put(k, static_cast<float>(value));
      case DType::kBFloat16:
        return put(k, from_compute<BFloat16>(static_cast<float>(value)));
      default:
        return put(k, from_compute<Float16>(static_cast<float>(value)));
    }
  }
  double value(int64_t k) const {
    switch (dtype_) {
      case DType::kFloat64:
        return to_compute(take<double>(k));
      case DType::kFloat32:
        return to_compute(take<float>(k));
      case DType::kBFloat16:
        return to_compute(take<BFloat16>(k));
      default:
        return to_compute(take<Float16>(k));
    }
  }
  // Normal numbers; with `hostile` one in sixteen is not finite, or huge.
  void fill(bool hostile) {
    const double infinity = std::numeric_limits<double>::infinity();
    for (int64_t k = 0; k < count_; ++k)
      set(k, hostile && between(0, 15) == 0 ? one_of({std::nan(""), infinity, -infinity, 3e38})
                                            : normal());
  }
  bool all_finite() const {
    for (int64_t k = 0; k < count_; ++k)
      if (!std::isfinite(value(k))) return false;
    return true;
  }

 private:
  template <typename T>
  void put(int64_t k, T value) {
    std::memcpy(at(k), &value, sizeof(T));
  }
  template <typename T>
  T take(int64_t k) const {
    T value;
    std::memcpy(&value, at(k), sizeof(T));
    return value;
  }

  DType dtype_;
  int64_t count_;
  void* memory_;
};

inline double hostile_offset(const Params& params) {
  const double infinity = std::numeric_limits<double>::infinity();
  switch (between(0, 11)) {
    case 0:
      return one_of({std::nan(""), infinity, -infinity});
    case 1:
      return one_of(
          {1e30, -1e30, 1e300, -1e300, 1e-300, 2147483648.0, -2147483649.0, 9.3e18, -9.3e18});
    case 2:
      return one_of(
          {-1.0, 0.0, 1.0, double(params.height), double(params.width), -double(params.height)});
    case 3:
      return normal() * 100;
    case 4:  // exactly on the lattice
      return std::round(normal() * 3);
    default:
      return normal() * 2;
  }
}

inline Params random_params() {
  Params params{};
  while (true) {
    params.batch = between(1, 3);
    params.height = one_of<int64_t>({1, 2, 3, 5, 8, 11});
    params.width = one_of<int64_t>({1, 2, 3, 6, 7, 13});
    params.groups = one_of<int64_t>({1, 2, 3, 5, 12});
    params.depth =
        one_of<int64_t>({1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65, 128, 130});
    params.kernel_h = one_of<int64_t>({1, 2, 3, 3, 3, 5, 7});
    params.kernel_w = between(0, 2) ? params.kernel_h : one_of<int64_t>({1, 2, 3, 5, 11});
    params.stride_h = between(1, 3);
    params.stride_w = between(1, 3);
    params.padding_h = between(0, 4);
    params.padding_w = between(0, 4);
    params.dilation_h = between(1, 3);
    params.dilation_w = between(1, 3);
    params.offset_scale = one_of({1.0, 0.5, 2.0, -1.0, 1e30});
    const bool odd = params.kernel_h % 2 == 1 && params.kernel_w % 2 == 1;
    params.remove_center = odd && params.kernel_h * params.kernel_w > 1 && between(0, 2) == 0;
    params.softmax = between(0, 1) == 1;
    const int64_t reach_h = params.dilation_h * (params.kernel_h - 1) + 1;
    const int64_t reach_w = params.dilation_w * (params.kernel_w - 1) + 1;
    const int64_t room_h = params.height + 2 * params.padding_h - reach_h;
    const int64_t room_w = params.width + 2 * params.padding_w - reach_w;
    if (room_h < 0 || room_w < 0) continue;
    params.out_height = room_h / params.stride_h + 1;
    params.out_width = room_w / params.stride_w + 1;
    return params;
  }
}

inline void fail(const char* what, const Params& params, DType dtype) {
  std::fprintf(
      stderr, "%s is not finite: dtype %d, N %ld, H %ld, W %ld, G %ld, D %ld, K %ld x %ld\n", what,
      int(dtype), long(params.batch), long(params.height), long(params.width), long(params.groups),
      long(params.depth), long(params.kernel_h), long(params.kernel_w));
  std::exit(1);
}

// The tensors of one call of both passes. Offsets are hostile in any case; with `hostile` image,
// weights and gradient are too. Offsets and weights lie apart, or side by side in one packed
// tensor.
class RandomCall {
 public:
  // `too_short`: the offsets are one element too few.
  RandomCall(const ForwardArgs& shape, bool hostile, bool too_short)
      : args{shape, nullptr, nullptr, nullptr, nullptr, 0, 0, 1, nullptr},
        points_(shape.params.groups * shape.params.num_points()),
        pixels_(shape.params.num_pixels()),
        packed_(shape.offset_dtype == shape.mask_dtype && between(0, 1) == 1),
        stride_(points_ * 2 + (packed_ ? points_ + between(0, 3) : 0)),
        input_(shape.dtype, shape.params.batch * shape.params.height * shape.params.width *
                                shape.params.channels()),
        offsets_(shape.offset_dtype, pixels_ * stride_ - (too_short ? 1 : 0)),
        masks_(shape.mask_dtype, packed_ ? 0 : pixels_ * points_),
        output_(shape.dtype, pixels_ * shape.params.channels()),
        grad_output_(shape.dtype, output_.count()),
        grad_input_(shape.dtype, input_.count()),
        grad_offsets_(shape.offset_dtype, pixels_ * stride_),
        grad_masks_(shape.mask_dtype, masks_.count()) {
    input_.fill(hostile);
    offsets_.fill(hostile);  // the weights in a packed tensor
    masks_.fill(hostile);
    grad_output_.fill(hostile);
    grad_offsets_.fill(false);  // the padding of a packed tensor stays
    Params& params = args.forward.params;
    for (int64_t pixel = 0; pixel < pixels_; ++pixel)
      for (int64_t k = 0; k < points_ * 2; ++k)
        if (pixel * stride_ + k < offsets_.count())
          offsets_.set(pixel * stride_ + k, hostile_offset(params));
    params.offset_stride = args.grad_offset_stride = stride_;
    params.mask_stride = args.grad_mask_stride = packed_ ? stride_ : points_;
    args.forward.input = input_.get();
    args.forward.offset = offsets_.get();
    args.forward.mask = packed_ ? offsets_.at(points_ * 2) : masks_.get();
    args.forward.output = output_.get();
    args.grad_output = grad_output_.get();
    args.grad_input = grad_input_.get();
    args.grad_offset = grad_offsets_.get();
    args.grad_mask = packed_ ? grad_offsets_.at(points_ * 2) : grad_masks_.get();
  }

  const Params& params() const { return args.forward.params; }
  int64_t input_count() const { return input_.count(); }

  // Hostile offsets alone must not make any result infinite or NaN.
  void check_output() const { check("the output", output_); }
  void check_gradients() const {
    check("the gradient of the input", grad_input_);
    check("the gradient of the mask", grad_masks_);
    if (std::fabs(params().offset_scale) < 1e4)  // 1e30 overflows
      check("the gradient of the offset", grad_offsets_);
  }

  BackwardArgs args;

 private:
  void check(const char* name, const Block& block) const {
    if (!block.all_finite()) fail(name, params(), args.forward.dtype);
  }

  int64_t points_, pixels_;
  bool packed_;
  int64_t stride_;
  Block input_, offsets_, masks_, output_;
  Block grad_output_, grad_input_, grad_offsets_, grad_masks_;
};

inline ForwardArgs random_shape() {
  ForwardArgs args{};
  args.params = random_params();
  args.dtype = one_of({DType::kFloat64, DType::kFloat32, DType::kBFloat16, DType::kFloat16});
  const bool low = args.dtype == DType::kBFloat16 || args.dtype == DType::kFloat16;
  args.offset_dtype = low && between(0, 1) ? DType::kFloat32 : args.dtype;
  args.mask_dtype = low && between(0, 1) ? DType::kFloat32 : args.dtype;
  return args;
}

// Calls round(hostile, too_short) as often as a driver's command line says: SEED ROUNDS [short].
// Returns the number of rounds, or -1 for a command line that says nothing of the kind.
template <class Round>
int64_t run_rounds(int argc, char** argv, const Round& round) {
  if (argc < 3) return -1;
  random_bits().seed(std::strtoull(argv[1], nullptr, 10));
  const int64_t rounds = std::strtoll(argv[2], nullptr, 10);
  const bool too_short = argc > 3 && std::strcmp(argv[3], "short") == 0;
  for (int64_t k = 0; k < rounds; ++k) round(k % 3 == 2, too_short);
  return rounds;
}

}  // namespace dcnv3
