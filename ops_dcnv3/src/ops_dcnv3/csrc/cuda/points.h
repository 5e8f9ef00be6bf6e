// The sampling points of a cell. The lanes that share a cell share its points too: lane q owns the
// points q, q + lanes, q + 2 lanes, ... and works out where they lie and what they weigh.
#pragma once

#include "lanes.h"
#include "plan.h"
#include "vector.h"

namespace dcnv3 {

// What every cell of a kernel has in common, computed on the host.
template <typename acc_t>
struct Sampling {
  int height, width;  // of the image
  int stride_y, stride_x;
  int first_y, first_x;  // the middle of the kernel at output pixel (0, 0)
  int dilation_y, dilation_x;
  int kernel_y, kernel_x;
  int points;
  int removed;  // the point of the regular grid that is left out; -1: none
  acc_t limit_y, limit_x;
  acc_t scale;
  bool paired;  // the two offsets of a point lie in one word that can be loaded at once
  bool softmax;

  explicit Sampling(const ForwardArgs& args) : Sampling(args.params) {
    paired = args.params.offset_stride % 2 == 0 &&
             is_aligned(args.offset, 2 * bytes_of(args.offset_dtype));
  }

 private:
  explicit Sampling(const Params& p)
      : height(static_cast<int>(p.height)),
        width(static_cast<int>(p.width)),
        stride_y(static_cast<int>(p.stride_h)),
        stride_x(static_cast<int>(p.stride_w)),
        first_y(
            static_cast<int>(kernel_center(0, p.stride_h, p.padding_h, p.kernel_h, p.dilation_h))),
        first_x(
            static_cast<int>(kernel_center(0, p.stride_w, p.padding_w, p.kernel_w, p.dilation_w))),
        dilation_y(static_cast<int>(p.dilation_h)),
        dilation_x(static_cast<int>(p.dilation_w)),
        kernel_y(static_cast<int>(p.kernel_h)),
        kernel_x(static_cast<int>(p.kernel_w)),
        points(static_cast<int>(p.num_points())),
        removed(p.remove_center ? kernel_x / 2 * kernel_y + kernel_y / 2 : -1),
        limit_y(static_cast<acc_t>(p.height)),
        limit_x(static_cast<acc_t>(p.width)),
        scale(static_cast<acc_t>(p.offset_scale)),
        paired(false),
        softmax(p.softmax) {}

 public:
  DCNV3_HOST_DEVICE bool has_row(int y) const {
    return static_cast<uint32_t>(y) < static_cast<uint32_t>(height);
  }
  DCNV3_HOST_DEVICE bool has_column(int x) const {
    return static_cast<uint32_t>(x) < static_cast<uint32_t>(width);
  }
};

// The offsets and weights of one cell.
template <typename scalar_t>
struct CellPoints {
  using acc_t = typename Compute<scalar_t>::type;
  static constexpr bool kOneType = sizeof(acc_t) == sizeof(scalar_t);

  const void* offset;  // (P, 2)
  const void* mask;    // (P)
  bool wide_offset;    // stored as acc_t, else as scalar_t
  bool wide_mask;
  bool paired;  // see Sampling

  DCNV3_HOST_DEVICE CellPoints(const ForwardArgs& args, const Sampling<acc_t>& sampling,
                               const Cell& cell)
      : wide_offset(kOneType || args.offset_dtype != args.dtype),
        wide_mask(kOneType || args.mask_dtype != args.dtype),
        paired(sampling.paired) {
    const int first = cell.group * sampling.points;
    const int offset_stride = static_cast<int>(args.params.offset_stride);
    const int mask_stride = static_cast<int>(args.params.mask_stride);
    offset = advance(args.offset, wide_offset, int64_t{cell.pixel} * offset_stride + 2 * first);
    mask = advance(args.mask, wide_mask, int64_t{cell.pixel} * mask_stride + first);
  }

  static DCNV3_HOST_DEVICE const void* advance(const void* base, bool wide, int64_t elements) {
    const int64_t bytes = elements * static_cast<int64_t>(sizeof(scalar_t));
    return static_cast<const char*>(base) + (!kOneType && wide ? 2 * bytes : bytes);
  }
  static DCNV3_HOST_DEVICE acc_t number(const void* base, bool wide, int index) {
    if (wide) return load_scalar(static_cast<const acc_t*>(base) + index);
    return to_compute(load_scalar(static_cast<const scalar_t*>(base) + index));
  }

  DCNV3_HOST_DEVICE acc_t weight(int point) const { return number(mask, wide_mask, point); }

  // The weights and offsets of the points first, first + step, ...; beyond the last one those of
  // point 0. How they are stored is asked once for all of them.
  template <int kCount>
  DCNV3_HOST_DEVICE void weights(int first, int step, int points, acc_t (&values)[kCount]) const {
    if (wide_mask) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        values[i] = number(mask, true, index_of(first + i * step, points));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        values[i] = number(mask, false, index_of(first + i * step, points));
    }
  }
  template <int kCount>
  DCNV3_HOST_DEVICE void offsets(int first, int step, int points, acc_t (&dx)[kCount],
                                 acc_t (&dy)[kCount]) const {
    if (!paired) {
      for (int i = 0; i < kCount; ++i) {
        const int point = index_of(first + i * step, points);
        dx[i] = number(offset, wide_offset, 2 * point);
        dy[i] = number(offset, wide_offset, 2 * point + 1);
      }
    } else if (wide_offset) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        load_two(static_cast<const acc_t*>(offset) + 2 * index_of(first + i * step, points), dx[i],
                 dy[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        load_two(static_cast<const scalar_t*>(offset) + 2 * index_of(first + i * step, points),
                 dx[i], dy[i]);
    }
  }
  static DCNV3_HOST_DEVICE int index_of(int point, int points) {
    return point < points ? point : 0;
  }
};

// The sums of a softmax over the points of a cell.
template <typename scalar_t>
struct Softmax {
  using acc_t = typename Compute<scalar_t>::type;

  acc_t largest, inverse_sum;

  DCNV3_HOST_DEVICE acc_t operator()(acc_t logit) const {
    return softmax_power<scalar_t>(logit - largest) * inverse_sum;
  }
};

template <int kLanes, typename acc_t, class Lanes>
DCNV3_KERNEL acc_t maximum_of_lanes(acc_t value, const Lanes& lanes) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2)
    value = maximum(value, lanes.shuffle_xor(value, mask, kLanes));
  return value;
}

template <int kLanes, typename acc_t, class Lanes>
DCNV3_KERNEL acc_t sum_of_lanes(acc_t value, const Lanes& lanes) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) value += lanes.shuffle_xor(value, mask, kLanes);
  return value;
}

// Replaces the logits of this lane's points by their weights. All lanes; each has kCount points or
// one less, of `points`.
template <int kLanes, typename scalar_t, int kCount, typename acc_t, class Lanes>
DCNV3_KERNEL void softmax_own(acc_t (&values)[kCount], int lane, int points, const Lanes& lanes) {
  acc_t largest = values[0];
#pragma unroll
  for (int i = 1; i < kCount; ++i) largest = maximum(largest, values[i]);
  largest = maximum_of_lanes<kLanes>(largest, lanes);
  acc_t sum = acc_t(0);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = softmax_power<scalar_t>(values[i] - largest);
    // beyond the last point stands a copy of point 0, which leaves the maximum as it is
    sum += i * kLanes + lane < points ? values[i] : acc_t(0);
  }
  const acc_t inverse_sum = reciprocal(sum_of_lanes<kLanes>(sum, lanes));
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] *= inverse_sum;
}

// The same for any number of points, which are read twice. All lanes.
template <int kLanes, typename scalar_t, class Lanes>
DCNV3_KERNEL Softmax<scalar_t> softmax_of(const CellPoints<scalar_t>& cell, int points, int lane,
                                          const Lanes& lanes) {
  using acc_t = typename Compute<scalar_t>::type;
  acc_t largest = cell.weight(lane < points ? lane : 0);
  for (int point = lane + kLanes; point < points; point += kLanes)
    largest = maximum(largest, cell.weight(point));
  largest = maximum_of_lanes<kLanes>(largest, lanes);
  acc_t sum = acc_t(0);
  for (int point = lane; point < points; point += kLanes)
    sum += softmax_power<scalar_t>(cell.weight(point) - largest);
  return {largest, reciprocal(sum_of_lanes<kLanes>(sum, lanes))};
}

template <typename acc_t>
using PointLocation = Location<ScalarLane<acc_t, int>>;

// A point of the regular grid, as grid_point() of dcnv3_geometry.h finds it, but in 32 bits: a
// division of 64 bits is a function call. None at all for the 3 x 3 kernel with all its points.
template <bool kNinePoints, typename acc_t>
DCNV3_HOST_DEVICE void grid_of(int point, const Sampling<acc_t>& sampling, acc_t& x, acc_t& y) {
  int column, row, half_x, half_y;
  if constexpr (kNinePoints) {
    column = point / 3;
    row = point - 3 * column;
    half_x = sampling.dilation_x;
    half_y = sampling.dilation_y;
  } else {
    const int index = point + (sampling.removed >= 0 && point >= sampling.removed ? 1 : 0);
    column = index / sampling.kernel_y;
    row = index - column * sampling.kernel_y;
    half_x = sampling.dilation_x * (sampling.kernel_x - 1) / 2;
    half_y = sampling.dilation_y * (sampling.kernel_y - 1) / 2;
  }
  x = static_cast<acc_t>(column * sampling.dilation_x - half_x);
  y = static_cast<acc_t>(row * sampling.dilation_y - half_y);
}

// The middle of the kernel at a cell.
template <typename acc_t>
struct Center {
  acc_t y, x;

  DCNV3_HOST_DEVICE Center(const Cell& cell, const Sampling<acc_t>& sampling)
      : y(static_cast<acc_t>(sampling.first_y + cell.y * sampling.stride_y)),
        x(static_cast<acc_t>(sampling.first_x + cell.x * sampling.stride_x)) {}
};

template <typename acc_t>
DCNV3_HOST_DEVICE PointLocation<acc_t> locate_at(const Center<acc_t>& center, acc_t grid_x,
                                                 acc_t grid_y, acc_t dx, acc_t dy, acc_t weight,
                                                 const Sampling<acc_t>& sampling) {
  const acc_t py = center.y + sampling.scale * (grid_y + dy);
  const acc_t px = center.x + sampling.scale * (grid_x + dx);
  return locate<ScalarLane<acc_t, int>>(py, px, weight, sampling.limit_y, sampling.limit_x);
}

// Where any one point of a cell reads.
template <typename scalar_t, typename acc_t>
DCNV3_HOST_DEVICE PointLocation<acc_t> locate_point(const CellPoints<scalar_t>& points,
                                                    const Center<acc_t>& center, int point,
                                                    acc_t weight, const Sampling<acc_t>& sampling) {
  acc_t grid_x, grid_y, dx[1], dy[1];
  grid_of<false>(point, sampling, grid_x, grid_y);
  points.template offsets<1>(point, 1, point + 1, dx, dy);
  return locate_at(center, grid_x, grid_y, dx[0], dy[0], weight, sampling);
}

// The points of a cell one by one, however many there are. All lanes construct it together.
template <int kLanes, typename scalar_t>
struct AnyPoints {
  using acc_t = typename Compute<scalar_t>::type;

  const CellPoints<scalar_t>& points;
  const Sampling<acc_t>& sampling;
  Center<acc_t> center;
  Softmax<scalar_t> normalise;

  template <class Lanes>
  DCNV3_KERNEL AnyPoints(const CellPoints<scalar_t>& cell_points, const Cell& cell, int lane,
                         const Sampling<acc_t>& of_all, const Lanes& lanes)
      : points(cell_points), sampling(of_all), center(cell, of_all), normalise{} {
    if (sampling.softmax) normalise = softmax_of<kLanes>(points, sampling.points, lane, lanes);
  }

  DCNV3_HOST_DEVICE acc_t weight(int point) const {
    const acc_t number = points.weight(point);
    return sampling.softmax ? normalise(number) : number;
  }
  DCNV3_HOST_DEVICE PointLocation<acc_t> at(int point, acc_t weight) const {
    return locate_point(points, center, point, weight, sampling);
  }
  DCNV3_HOST_DEVICE PointLocation<acc_t> at(int point) const { return at(point, weight(point)); }
};

}  // namespace dcnv3
