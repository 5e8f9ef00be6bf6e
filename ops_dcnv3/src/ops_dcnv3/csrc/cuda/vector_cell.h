// What the fast kernels share: 3 x 3 points, and as many lanes a cell as a group has times sixteen
// bytes. Each lane owns some of the points and sixteen bytes of the channels. What a point's owner
// knows of it reaches the others by shuffles.
#pragma once

#include "points.h"

namespace dcnv3 {

// Distances in bytes.
struct VectorLayout {
  int pixel_bytes, row_bytes;
  int64_t image;  // from the input's start to the image of the tile

  DCNV3_HOST_DEVICE VectorLayout(const Params& params, int64_t size, int number)
      : pixel_bytes(static_cast<int>(params.channels() * size)),
        row_bytes(static_cast<int>(params.width) * pixel_bytes),
        image(number * params.height * row_bytes) {}

  // From the start of the output to one of its pixels.
  DCNV3_HOST_DEVICE int64_t pixel(int number) const { return int64_t{number} * pixel_bytes; }
};

// Note [Places]: where a point reads, in one word: the offset in bytes of its upper left corner in
// the image, a multiple of 16, and in the low bits which of its rows and columns lie inside. With
// `kInside`, all corners of all points of the warp lie inside and the bits are left out.
constexpr int kUpper = 1, kLower = 2, kLeft = 4, kRight = 8, kWholly = 15;

template <bool kInside>
DCNV3_HOST_DEVICE int place_of(const PointLocation<float>& at, const VectorLayout& layout,
                               const Sampling<float>& sampling) {
  const int offset = (at.y * sampling.width + at.x) * layout.pixel_bytes;
  if (kInside) return offset;
  const int upper = sampling.has_row(at.y) ? kUpper : 0;
  const int lower = sampling.has_row(at.y + 1) ? kLower : 0;
  const int left = sampling.has_column(at.x) ? kLeft : 0;
  const int right = sampling.has_column(at.x + 1) ? kRight : 0;
  return offset | upper | lower | left | right;
}

// The sixteen bytes of a corner; zeros where it lies outside.
template <bool kInside>
DCNV3_HOST_DEVICE Words load_corner(const char* at, int place, int corner) {
  if (kInside || (place & corner) == corner) return load_words(at);
  return {{0, 0, 0, 0}};
}

template <bool kInside>
DCNV3_HOST_DEVICE void load_corners(const char* image, int place, const VectorLayout& layout,
                                    Words (&corners)[4]) {
  const int64_t pixel_bytes = layout.pixel_bytes, row_bytes = layout.row_bytes;
  // not one expression: its type would be unsigned, and a place may lie before the image
  const int64_t inside = static_cast<uint32_t>(place), anywhere = place & ~kWholly;
  const char* upper_left = image + (kInside ? inside : anywhere);
  const char* lower_left = upper_left + row_bytes;
  corners[0] = load_corner<kInside>(upper_left, place, kUpper | kLeft);
  corners[1] = load_corner<kInside>(upper_left + pixel_bytes, place, kUpper | kRight);
  corners[2] = load_corner<kInside>(lower_left, place, kLower | kLeft);
  corners[3] = load_corner<kInside>(lower_left + pixel_bytes, place, kLower | kRight);
}

// The points that one lane owns.
template <typename scalar_t, int kLanes>
struct OwnPoints {
  static constexpr int kPoints = 9;
  static constexpr int kOwn = (kPoints + kLanes - 1) / kLanes;

  float grid_x[kOwn], grid_y[kOwn];
  PointLocation<float> at[kOwn];
  float weight[kOwn];  // also of the points that contribute nothing

  DCNV3_HOST_DEVICE OwnPoints(int lane, const Sampling<float>& sampling) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int number = CellPoints<scalar_t>::index_of(i * kLanes + lane, kPoints);
      grid_of<true>(number, sampling, grid_x[i], grid_y[i]);
    }
  }

  static DCNV3_HOST_DEVICE bool exists(int i, int lane) { return i * kLanes + lane < kPoints; }

  // Works out the points of one cell. Returns whether all their corners lie inside. All lanes.
  template <class Lanes>
  DCNV3_KERNEL bool locate(const CellPoints<scalar_t>& points, const Cell& cell, int lane,
                           const Sampling<float>& sampling, const Lanes& lanes) {
    float dx[kOwn], dy[kOwn];
    points.weights(lane, kLanes, kPoints, weight);
    points.offsets(lane, kLanes, kPoints, dx, dy);
    if (sampling.softmax) softmax_own<kLanes, scalar_t>(weight, lane, kPoints, lanes);
    const Center<float> center(cell, sampling);
    bool inside = true;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      at[i] = locate_at(center, grid_x[i], grid_y[i], dx[i], dy[i], weight[i], sampling);
      // unsigned, so that -1 and -2 are large
      inside = inside &&
               static_cast<uint32_t>(at[i].y) < static_cast<uint32_t>(sampling.height - 1) &&
               static_cast<uint32_t>(at[i].x) < static_cast<uint32_t>(sampling.width - 1);
    }
    return inside;
  }
};

}  // namespace dcnv3
