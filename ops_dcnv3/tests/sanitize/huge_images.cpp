// Runs the branches that only images of 2^29 and more elements take, without such an image: finding
// the corners of points reads points alone. Built by test_sanitizers.py like driver.cpp, for one
// instruction-set level.
//
//   huge_images SEED ROUNDS
//
// Offsets are multiples of 1/64, so that all positions are exact and both branches must agree on
// every corner.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "cpu/backward.h"
#include "cpu/forward.h"

namespace {

using namespace dcnv3;
using namespace dcnv3::DCNV3_LEVEL;

constexpr int64_t kZeros = int64_t(1) << 60;  // stands for the address of the row of zeros

std::mt19937_64 random_bits;

int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_bits);
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

template <typename acc_t>
bool same(acc_t a, acc_t b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

// Corner weights: the branches multiply in another order. Weights that are not finite may become
// infinity in one and NaN in the other.
bool close(float a, float b, float weight) {
  return !std::isfinite(weight) || std::fabs(a - b) <= 1e-5f * std::fabs(weight);
}

template <typename acc_t>
acc_t random_offset(int64_t size) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double values[] = {std::nan(""), infinity, -infinity, 1e30, -1e30, 2147483648.0, -9.3e18};
  switch (between(0, 5)) {
    case 0:
      return static_cast<acc_t>(values[between(0, 6)]);
    case 1:  // around the far border
      return static_cast<acc_t>(size + between(-2, 2));
    case 2:  // around the near border, the lattice included
      return static_cast<acc_t>(between(-2, 2));
    default:
      return static_cast<acc_t>(between(-256, 256)) / 64;
  }
}

// A batch in heap blocks of exactly its size.
template <typename acc_t>
struct Points {
  std::vector<acc_t> offset, weight, grid_x, grid_y;
  Batch<acc_t> batch{};

  Points(int64_t count, int64_t room, int64_t height, int64_t width)
      : offset(2 * room), weight(room), grid_x(room), grid_y(room) {
    for (int64_t k = 0; k < count; ++k) {
      offset[2 * k] = random_offset<acc_t>(width);
      offset[2 * k + 1] = random_offset<acc_t>(height);
      weight[k] = static_cast<acc_t>(std::normal_distribution<double>()(random_bits));
      if (between(0, 15) == 0) weight[k] = between(0, 1) ? acc_t(NAN) : acc_t(INFINITY);
      grid_x[k] = static_cast<acc_t>(between(-2, 2));
      grid_y[k] = static_cast<acc_t>(between(-2, 2));
    }
    batch.offset = offset.data();
    batch.weight = weight.data();
    batch.grid_x = grid_x.data();
    batch.grid_y = grid_y.data();
    batch.base_y = static_cast<acc_t>(between(0, 4));
    batch.base_x = static_cast<acc_t>(between(0, 4));
    batch.scale = between(0, 1) ? acc_t(1) : acc_t(0.5);
    batch.height = static_cast<acc_t>(height);
    batch.width = static_cast<acc_t>(width);
  }
};

template <typename acc_t>
struct CornerArrays {
  std::vector<acc_t> weight;
  std::vector<int32_t> index;
  std::vector<int64_t> offset;
  Corners<acc_t> corners;

  CornerArrays()
      : weight(4 * kBatchPoints),
        index(4 * kBatchPoints),
        offset(4 * kBatchPoints),
        corners{weight.data(), index.data(), offset.data(), kBatchPoints} {}
};

// Forward: a small image by both ways.
void compare_corners(int64_t count) {
  const int64_t height = between(1, 40), width = between(1, 40), channels = between(1, 64);
  const Image image{height, width, width * channels, channels, kZeros};
  const Points<float> points(count, count, height, width);
  const CornerArrays<float> usual, scalar;
  find_corners(points.batch, image, count, usual.corners);
  for (int64_t k = 0; k < count; ++k) find_corners_one(points.batch, image, k, scalar.corners);
  for (int64_t corner = 0; corner < 4; ++corner)
    for (int64_t k = 0; k < count; ++k) {
      const int64_t at = corner * kBatchPoints + k;
      require(usual.offset[at] == scalar.offset[at], "the branches find other corners");
      require(usual.offset[at] == kZeros ||
                  close(usual.weight[at], scalar.weight[at], points.weight[k]),
              "the branches weigh corners differently");
    }
}

// Forward: an image of 2^29 elements or more, whose corners must be inside it or the zeros.
template <typename acc_t>
void find_huge_corners(int64_t count) {
  const int64_t channels = int64_t(64) << between(0, 4);
  const int64_t height = int64_t(1) << between(12, 16), width = (int64_t(1) << between(12, 16)) - 1;
  const Image image{height, width, width * channels, channels, kZeros};
  require(image.rows * image.row_stride >= int64_t(kOutside), "the image is not huge");
  const Points<acc_t> points(count, count, height, width);
  const CornerArrays<acc_t> found;
  find_corners(points.batch, image, count, found.corners);
  for (int64_t k = 0; k < count; ++k) {
    const Batch<acc_t>& batch = points.batch;
    const acc_t px = batch.base_x + (points.grid_x[k] + batch.scale * points.offset[2 * k]);
    const acc_t py = batch.base_y + (points.grid_y[k] + batch.scale * points.offset[2 * k + 1]);
    for (int corner = 0; corner < 4; ++corner) {
      const double x = std::floor(double(px)) + corner % 2, y = std::floor(double(py)) + corner / 2;
      const bool inside = px > -1 && py > -1 && x >= 0 && x < width && y >= 0 && y < height;
      const int64_t expected =
          inside ? int64_t(y) * image.row_stride + int64_t(x) * image.pixel_stride : kZeros;
      require(found.offset[corner * kBatchPoints + k] == expected, "a corner of a huge image");
    }
  }
}

// Backward: the same small plane, once said to be of 2^31 elements.
void compare_points(int64_t count) {
  Params params{};
  params.height = between(1, 20);
  params.width = between(1, 20);
  params.groups = 1;
  params.depth = between(1, 40);
  params.kernel_h = params.kernel_w = 3;
  Arena measured(nullptr);
  BackwardScratch<float>(params, measured);
  const auto allocate = [&] {
    const uintptr_t bytes = (measured.size() + 63) / 64 * 64;
    return std::aligned_alloc(64, bytes);
  };
  void* memory[2] = {allocate(), allocate()};
  Arena first(memory[0]), second(memory[1]);
  const BackwardScratch<float> usual(params, first);
  BackwardScratch<float> scalar(params, second);
  scalar.plane_size = int64_t(1) << 31;
  const int64_t room = round_up(count, kPointAlignment);
  const Points<float> points(count, room, params.height, params.width);
  find_points(points.batch, count, usual);
  find_points(points.batch, count, scalar);
  for (int64_t k = 0; k < count; ++k) {
    require(usual.index[k] == scalar.index[k], "the branches find other corners backward");
    require(usual.frac_y[k] == scalar.frac_y[k] && usual.frac_x[k] == scalar.frac_x[k],
            "the branches find other fractions");
    require(same(usual.point_weight[k], scalar.point_weight[k]), "other weights of points");
    require(usual.contributes[k] == scalar.contributes[k], "other points contribute");
    for (int corner = 0; corner < 4; ++corner)
      require(close(usual.corner_weight[corner][k], scalar.corner_weight[corner][k],
                    usual.point_weight[k]),
              "the branches weigh corners differently backward");
  }
  for (void* block : memory) std::free(block);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  random_bits.seed(std::strtoull(argv[1], nullptr, 10));
  const int64_t rounds = std::strtoll(argv[2], nullptr, 10);
  for (int64_t k = 0; k < rounds; ++k) {
    compare_corners(between(1, kBatchPoints));
    find_huge_corners<float>(between(1, kBatchPoints));
    find_huge_corners<double>(between(1, kBatchPoints));
    compare_points(between(1, 90));  // ten cells of nine points
  }
  std::printf("%ld rounds\n", long(rounds));
  return 0;
}
