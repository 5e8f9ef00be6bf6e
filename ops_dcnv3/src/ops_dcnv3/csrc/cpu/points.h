// The part of a kernel that works on points alone: weights, positions, corners. Plain loops over
// arrays of points that the compiler turns into vector code; no channel is touched here.
#pragma once

#include "../dcnv3_geometry.h"
#include "scratch.h"
#include "vector.h"

namespace dcnv3 {
namespace DCNV3_LEVEL {

// A cell is one output pixel of one group, and owns P consecutive points in every array below.
// Cells are handled in batches of about this many points: enough to fill vectors, few enough to
// stay in the L1 cache.
constexpr int64_t kBatchPoints = 96;
constexpr int64_t kPointAlignment = 16;  // arrays of points hold a multiple of this

DCNV3_HOST_DEVICE int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

DCNV3_HOST_DEVICE int64_t cells_per_batch(int64_t num_points) {
  return num_points >= kBatchPoints ? 1 : kBatchPoints / num_points;
}

// Returns `count` values from element `first` on as acc_t: in place if they are stored so, else
// converted.
template <typename acc_t>
const acc_t* widen(const void* base, DType dtype, int64_t first, int64_t count, acc_t* converted) {
  switch (dtype) {
    case DType::kBFloat16: {
      const BFloat16* from = static_cast<const BFloat16*>(base) + first;
      for (int64_t k = 0; k < count; ++k) converted[k] = to_compute(from[k]);
      return converted;
    }
    case DType::kFloat16: {
      const Float16* from = static_cast<const Float16*>(base) + first;
      for (int64_t k = 0; k < count; ++k) converted[k] = to_compute(from[k]);
      return converted;
    }
    default:  // float64 beside float64, float32 beside all others
      return static_cast<const acc_t*>(base) + first;
  }
}

template <typename scalar_t, typename acc_t>
void round_to(const acc_t* from, int64_t count, scalar_t* to) {
  for (int64_t k = 0; k < count; ++k) to[k] = from_compute<scalar_t>(static_cast<float>(from[k]));
}

// Collects the points of `cells` cells that lie `stride` elements apart: `count` values each, a
// constant if kCount is positive.
template <int kCount, typename acc_t>
void collect(const void* base, DType dtype, int64_t first, int64_t stride, int64_t cells,
             int64_t count, acc_t* to) {
  const int64_t values = kCount > 0 ? kCount : count;
  if (dtype == DType::kBFloat16 || dtype == DType::kFloat16) {
    for (int64_t cell = 0; cell < cells; ++cell)
      widen(base, dtype, first + cell * stride, values, to + cell * values);
  } else {
    const acc_t* from = static_cast<const acc_t*>(base) + first;
    for (int64_t cell = 0; cell < cells; ++cell)
      __builtin_memcpy(to + cell * values, from + cell * stride, values * sizeof(acc_t));
  }
}

// The way back, rounding to the type that the tensor has.
template <int kCount, typename acc_t>
void distribute(const acc_t* from, int64_t cells, int64_t count, DType dtype, int64_t first,
                int64_t stride, void* base) {
  const int64_t values = kCount > 0 ? kCount : count;
  if (dtype == DType::kBFloat16) {
    for (int64_t cell = 0; cell < cells; ++cell)
      round_to(from + cell * values, values, static_cast<BFloat16*>(base) + first + cell * stride);
  } else if (dtype == DType::kFloat16) {
    for (int64_t cell = 0; cell < cells; ++cell)
      round_to(from + cell * values, values, static_cast<Float16*>(base) + first + cell * stride);
  } else {
    acc_t* to = static_cast<acc_t*>(base) + first;
    for (int64_t cell = 0; cell < cells; ++cell)
      __builtin_memcpy(to + cell * stride, from + cell * values, values * sizeof(acc_t));
  }
}

// The regular grid of a batch whose cells lie `step` input columns apart, times offset_scale.
template <typename acc_t>
void fill_grid(const Params& params, int64_t cells, int64_t step, acc_t* grid_x, acc_t* grid_y) {
  const int64_t points = params.num_points();
  const acc_t scale = static_cast<acc_t>(params.offset_scale);
  for (int64_t k = 0; k < cells * points; ++k) {
    const GridPoint grid = grid_point(params, k % points);
    grid_x[k] = scale * static_cast<acc_t>(grid.x) + static_cast<acc_t>(k / points * step);
    grid_y[k] = scale * static_cast<acc_t>(grid.y);
  }
}

// A batch of points and the image that they read.
template <typename acc_t>
struct Batch {
  const acc_t* offset;  // (points, 2)
  const acc_t* weight;  // (points)
  const acc_t* grid_x;  // (points), from fill_grid()
  const acc_t* grid_y;
  acc_t base_y, base_x;  // the middle of the kernel at the first cell
  acc_t scale;
  acc_t height, width;
};

// Locates the kLanes points from number k on.
template <int kLanes>
DCNV3_HOST_DEVICE Location<VectorLane<kLanes>> locate_lanes(const Batch<float>& batch, int64_t k) {
  Vector<float, kLanes> dx, dy;
  deinterleave<kLanes>(batch.offset + 2 * k, &dx, &dy);
  return locate<VectorLane<kLanes>>(
      batch.base_y + (load<kLanes>(batch.grid_y + k) + batch.scale * dy),
      batch.base_x + (load<kLanes>(batch.grid_x + k) + batch.scale * dx),
      load<kLanes>(batch.weight + k), batch.height, batch.width);
}

template <typename acc_t>
DCNV3_HOST_DEVICE Location<ScalarLane<acc_t, int64_t>> locate_one(const Batch<acc_t>& batch,
                                                                  int64_t k) {
  return locate<ScalarLane<acc_t, int64_t>>(
      batch.base_y + (batch.grid_y[k] + batch.scale * batch.offset[2 * k + 1]),
      batch.base_x + (batch.grid_x[k] + batch.scale * batch.offset[2 * k]), batch.weight[k],
      batch.height, batch.width);
}

// Softmax over the points of each cell, short of the division: exponentials, and 1 / their sum.
// Where the sum is NaN all weights of the cell become NaN, so that the points that contribute show
// it and no others.
template <int kPoints, typename acc_t>
void exponentials(const acc_t* __restrict logit, int64_t num_points, int64_t cells,
                  acc_t* __restrict weight, acc_t* __restrict inverse_sum) {
  const int64_t points = kPoints > 0 ? kPoints : num_points;
  for (int64_t cell = 0; cell < cells; ++cell) {
    const acc_t* row = logit + cell * points;
    acc_t largest = row[0];
    for (int64_t p = 1; p < points; ++p) largest = row[p] > largest ? row[p] : largest;
    for (int64_t p = 0; p < points; ++p) weight[cell * points + p] = row[p] - largest;
  }
  const int64_t count = cells * points;
  for (int64_t k = 0; k < count; ++k) weight[k] = exp_nonpositive(weight[k]);
  for (int64_t cell = 0; cell < cells; ++cell) {
    acc_t* row = weight + cell * points;
    acc_t sum = row[0];
    for (int64_t p = 1; p < points; ++p) sum += row[p];
    inverse_sum[cell] = acc_t(1) / sum;
    if (sum != sum) {
      for (int64_t p = 0; p < points; ++p) row[p] = sum;
      inverse_sum[cell] = 1;
    }
  }
}

}  // namespace DCNV3_LEVEL
}  // namespace dcnv3
