// Where a sampling point reads: the maths of ops_dcnv3/reference.py for one point. See
// dcnv3_params.h.
#pragma once

#include "dcnv3_scalar.h"

namespace dcnv3 {

// The regular grid. Points run column by column, see "Definition" in reference.py.
struct GridPoint {
  int64_t x, y;  // relative to the middle of the kernel, input pixels before offset_scale
};

DCNV3_HOST_DEVICE int64_t half_extent(int64_t kernel, int64_t dilation) {
  return dilation * (kernel - 1) / 2;
}

DCNV3_HOST_DEVICE GridPoint grid_point(const Params& params, int64_t point) {
  const int64_t center = (params.kernel_w / 2) * params.kernel_h + params.kernel_h / 2;
  const int64_t index = point + (params.remove_center && point >= center ? 1 : 0);
  return {(index / params.kernel_h) * params.dilation_w -
              half_extent(params.kernel_w, params.dilation_w),
          (index % params.kernel_h) * params.dilation_h -
              half_extent(params.kernel_h, params.dilation_h)};
}

// The middle of the kernel for output column or row `index`, in input pixels.
DCNV3_HOST_DEVICE int64_t kernel_center(int64_t index, int64_t stride, int64_t padding,
                                        int64_t kernel, int64_t dilation) {
  return index * stride - padding + half_extent(kernel, dilation);
}

// One point at a time. The CPU kernels have a twin of this in vector.h, one point a lane.
template <typename acc_t, typename index_type>
struct ScalarLane {
  using float_t = acc_t;
  using limit_t = acc_t;
  using index_t = index_type;
  // The largest integer not above x, which must fit index_t.
  static DCNV3_HOST_DEVICE index_t floor(acc_t x) {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(index_t) == 4) return round_down(x);
#endif
    const index_t truncated = static_cast<index_t>(x);
    return truncated - (static_cast<acc_t>(truncated) > x ? 1 : 0);
  }
#if defined(__CUDA_ARCH__)
  static __device__ __forceinline__ int round_down(float x) { return __float2int_rd(x); }
  static __device__ __forceinline__ int round_down(double x) { return __double2int_rd(x); }
#endif
  static DCNV3_HOST_DEVICE acc_t to_float(index_t index) { return static_cast<acc_t>(index); }
};

constexpr int kNowhere = -2;

template <typename Lane>
struct Location {
  typename Lane::index_t y, x;  // upper left corner; kNowhere, both, if the point adds nothing
  typename Lane::float_t frac_y, frac_x;  // distance from it, 0-1
  typename Lane::float_t weight;  // the point's weight; 0 for a point that contributes nothing
};

// Note [Borders] in reference.py: NaN fails every comparison and so contributes nothing.
template <typename Lane>
DCNV3_HOST_DEVICE Location<Lane> locate(typename Lane::float_t py, typename Lane::float_t px,
                                        typename Lane::float_t weight,
                                        typename Lane::limit_t height,
                                        typename Lane::limit_t width) {
  using float_t = typename Lane::float_t;
  using limit_t = typename Lane::limit_t;
  const auto contributes = (py > limit_t(-1)) & (px > limit_t(-1)) & (py < height) & (px < width);
  const float_t outside = float_t{} + limit_t(kNowhere);
  const float_t y = contributes ? py : outside;
  const float_t x = contributes ? px : outside;
  const auto y0 = Lane::floor(y);
  const auto x0 = Lane::floor(x);
  return {y0, x0, y - Lane::to_float(y0), x - Lane::to_float(x0), contributes ? weight : float_t{}};
}

// The bilinear weight of a corner: 0 upper left, 1 upper right, 2 lower left, 3 lower right.
template <typename acc_t, typename index_t>
DCNV3_HOST_DEVICE acc_t corner_share(const Location<ScalarLane<acc_t, index_t>>& at, int corner) {
  const acc_t along_y = corner / 2 == 0 ? acc_t(1) - at.frac_y : at.frac_y;
  const acc_t along_x = corner % 2 == 0 ? acc_t(1) - at.frac_x : at.frac_x;
  return along_y * along_x;
}

}  // namespace dcnv3
