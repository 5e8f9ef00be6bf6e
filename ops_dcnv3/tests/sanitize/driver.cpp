// Runs the CPU kernels of one instruction-set level on random shapes and hostile values, without
// PyTorch, so that AddressSanitizer and UndefinedBehaviorSanitizer see every access: each tensor is
// a heap block of exactly its size. Built by test_sanitizers.py. Offsets are hostile in every round
// and all results must be finite; in every third round image, weights and gradient have values that
// are not finite as well, and only accesses and undefined behaviour count.
//
//   driver SEED ROUNDS [short]    `short` makes the offsets one element too few, which must be
//   caught
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "cpu/kernels.h"
#include "dcnv3_geometry.h"

#define NAME_(level) kKernels_##level
#define NAME(level) NAME_(level)

namespace dcnv3 {
extern const Kernels NAME(DCNV3_LEVEL);
}

namespace {

using namespace dcnv3;

std::mt19937_64 random_bits;

int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_bits);
}
double normal() { return std::normal_distribution<double>()(random_bits); }
template <typename T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
}

int64_t bytes_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

// A tensor in a heap block of exactly its size.
class Block {
 public:
  Block(DType dtype, int64_t count)
      : dtype_(dtype),
        count_(count),
        memory_(std::malloc(static_cast<size_t>(count * bytes_of(dtype)))) {}
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void* get() const { return memory_; }
  void* at(int64_t element) const {
    return static_cast<char*>(memory_) + element * bytes_of(dtype_);
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

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Scratch = std::unique_ptr<void, Free>;

Scratch make_scratch(uintptr_t bytes) {
  return Scratch(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
}

double hostile_offset(const Params& params) {
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

Params random_params() {
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

void fail(const char* what, const Params& params, DType dtype) {
  std::fprintf(stderr, "%s: dtype %d, N %ld, H %ld, W %ld, G %ld, D %ld, K %ld x %ld\n", what,
               int(dtype), long(params.batch), long(params.height), long(params.width),
               long(params.groups), long(params.depth), long(params.kernel_h),
               long(params.kernel_w));
  std::exit(1);
}

// Cuts [0, count) as threads would.
std::vector<int64_t> random_cuts(int64_t count) {
  std::vector<int64_t> cuts{0};
  while (cuts.back() < count) cuts.push_back(between(cuts.back() + 1, count));
  return cuts;
}

void run_once(const Kernels& kernels, bool hostile, bool too_short) {
  ForwardArgs args{};
  args.params = random_params();
  Params& params = args.params;
  args.dtype = one_of({DType::kFloat64, DType::kFloat32, DType::kBFloat16, DType::kFloat16});
  const bool low = args.dtype == DType::kBFloat16 || args.dtype == DType::kFloat16;
  args.offset_dtype = low && between(0, 1) ? DType::kFloat32 : args.dtype;
  args.mask_dtype = low && between(0, 1) ? DType::kFloat32 : args.dtype;

  // apart, or side by side in one packed tensor
  const int64_t points = params.groups * params.num_points();
  const int64_t pixels = params.num_pixels();
  const bool packed = args.offset_dtype == args.mask_dtype && between(0, 1);
  Block input(args.dtype, params.batch * params.height * params.width * params.channels());
  Block offsets(args.offset_dtype, pixels * points * (packed ? 3 : 2) - (too_short ? 1 : 0));
  Block masks(args.mask_dtype, packed ? 0 : pixels * points);
  Block output(args.dtype, pixels * params.channels());
  params.offset_stride = points * (packed ? 3 : 2);
  params.mask_stride = packed ? params.offset_stride : points;
  input.fill(hostile);
  offsets.fill(hostile);  // the weights in a packed tensor
  masks.fill(hostile);
  for (int64_t pixel = 0; pixel < pixels; ++pixel)
    for (int64_t k = 0; k < points * 2; ++k)
      if (pixel * params.offset_stride + k < offsets.count())
        offsets.set(pixel * params.offset_stride + k, hostile_offset(params));
  args.input = input.get();
  args.offset = offsets.get();
  args.mask = packed ? offsets.at(points * 2) : masks.get();
  args.output = output.get();

  const std::vector<int64_t> cuts = random_cuts(pixels);
  for (size_t k = 0; k + 1 < cuts.size(); ++k) {
    const Scratch scratch = make_scratch(kernels.forward_scratch(args));
    kernels.forward(args, cuts[k], cuts[k + 1], scratch.get());
  }
  if (!hostile && !output.all_finite()) fail("the output is not finite", params, args.dtype);

  Block grad_output(args.dtype, output.count());
  Block grad_input(args.dtype, input.count());
  Block grad_offsets(args.offset_dtype, pixels * params.offset_stride);
  Block grad_masks(args.mask_dtype, masks.count());
  grad_output.fill(hostile);
  BackwardArgs backward{};
  backward.forward = args;
  backward.forward.output = nullptr;
  backward.grad_output = grad_output.get();
  backward.grad_input = grad_input.get();
  backward.grad_offset = grad_offsets.get();
  backward.grad_mask = packed ? grad_offsets.at(points * 2) : grad_masks.get();
  backward.grad_offset_stride = params.offset_stride;
  backward.grad_mask_stride = params.mask_stride;
  backward.chunks = between(1, params.out_height < 4 ? params.out_height : 4);
  const DType partial_dtype = args.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  Block partial(partial_dtype, backward.chunks > 1 ? backward.chunks * input.count() : 0);
  backward.partial = backward.chunks > 1 ? partial.get() : nullptr;
  const std::vector<int64_t> items = random_cuts(params.batch * params.groups * backward.chunks);
  for (size_t k = 0; k + 1 < items.size(); ++k) {
    const Scratch scratch = make_scratch(kernels.backward_scratch(backward));
    kernels.backward(backward, items[k], items[k + 1], scratch.get());
  }
  if (backward.chunks > 1) {
    const std::vector<int64_t> elements = random_cuts(input.count());
    for (size_t k = 0; k + 1 < elements.size(); ++k)
      kernels.add_partial(backward, elements[k], elements[k + 1]);
  }
  if (hostile) return;
  if (!grad_input.all_finite()) fail("the gradient of the input is not finite", params, args.dtype);
  if (!grad_masks.all_finite()) fail("the gradient of the mask is not finite", params, args.dtype);
  if (std::fabs(params.offset_scale) < 1e4 && !grad_offsets.all_finite())  // 1e30 overflows
    fail("the gradient of the offset is not finite", params, args.dtype);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  random_bits.seed(std::strtoull(argv[1], nullptr, 10));
  const int64_t rounds = std::strtoll(argv[2], nullptr, 10);
  const bool too_short = argc > 3 && std::strcmp(argv[3], "short") == 0;
  for (int64_t k = 0; k < rounds; ++k) run_once(dcnv3::NAME(DCNV3_LEVEL), k % 3 == 2, too_short);
  std::printf("%s: %ld rounds\n", dcnv3::NAME(DCNV3_LEVEL).level, long(rounds));
  return 0;
}
