// The gradients of offsets and weights on a GPU. Lanes share a cell as in forward.h: each reads its
// channels of every point's corners, and what they add up goes to the point's owner. No atomics.
#pragma once

#include "forward.h"

namespace dcnv3 {

template <typename acc_t>
struct PointsArguments {
  BackwardArgs args;
  Sampling<acc_t> sampling;
  TilePlan plan;
};

// Products of grad_output with the four corners of a point, summed over the channels.
template <typename acc_t>
struct CornerDots {
  acc_t at[4];  // upper left, upper right, lower left, lower right
};

// Adds up what the lanes of a cell found for kLanes points; lane q gets the sums of point q, in the
// first place. Each step halves the points that a lane still works for. All lanes.
template <int kHalf, int kLanes, typename acc_t, class Lanes>
DCNV3_KERNEL void sum_for_owner(CornerDots<acc_t> (&dots)[kLanes], int lane, const Lanes& lanes) {
  if constexpr (kHalf > 0) {
    const bool upper = (lane & kHalf) != 0;  // this lane goes on with the upper half
#pragma unroll
    for (int q = 0; q < kHalf; ++q) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const acc_t kept = upper ? dots[q + kHalf].at[k] : dots[q].at[k];
        const acc_t given = upper ? dots[q].at[k] : dots[q + kHalf].at[k];
        dots[q].at[k] = kept + lanes.shuffle_xor(given, kHalf, kLanes);
      }
    }
    sum_for_owner<kHalf / 2>(dots, lane, lanes);
  }
}

template <typename acc_t>
struct PointGradient {
  acc_t dx, dy, weight;
};

// The gradients of one point, before the softmax: see docs/dcnv3.md, "Gradients".
template <typename acc_t>
DCNV3_HOST_DEVICE PointGradient<acc_t> point_gradient(const CornerDots<acc_t>& dots,
                                                      const PointLocation<acc_t>& at, acc_t weight,
                                                      acc_t scale) {
  // not a product with zero, which an infinite gradient would turn into NaN
  if (at.y <= kNowhere) return {acc_t(0), acc_t(0), acc_t(0)};
  const acc_t(&s)[4] = dots.at;
  const acc_t top = acc_t(1) - at.frac_y, left = acc_t(1) - at.frac_x;
  const acc_t along_x = top * (s[1] - s[0]) + at.frac_y * (s[3] - s[2]);
  const acc_t along_y = left * (s[2] - s[0]) + at.frac_x * (s[3] - s[1]);
  const acc_t value =
      top * (left * s[0] + at.frac_x * s[1]) + at.frac_y * (left * s[2] + at.frac_x * s[3]);
  return {scale * weight * along_x, scale * weight * along_y, value};
}

// Where the gradients of a cell go.
template <typename scalar_t>
struct CellGradients {
  using acc_t = typename Compute<scalar_t>::type;
  using Points = CellPoints<scalar_t>;

  void* offset;
  void* mask;
  bool wide_offset, wide_mask;

  DCNV3_HOST_DEVICE CellGradients(const BackwardArgs& args, const Points& points, const Cell& cell,
                                  int num_points)
      : wide_offset(points.wide_offset), wide_mask(points.wide_mask) {
    const int first = cell.group * num_points;
    const int64_t at_offset = int64_t{cell.pixel} * static_cast<int>(args.grad_offset_stride);
    const int64_t at_mask = int64_t{cell.pixel} * static_cast<int>(args.grad_mask_stride);
    offset =
        const_cast<void*>(Points::advance(args.grad_offset, wide_offset, at_offset + 2 * first));
    mask = const_cast<void*>(Points::advance(args.grad_mask, wide_mask, at_mask + first));
  }

  static DCNV3_HOST_DEVICE void put(void* base, bool wide, int index, acc_t value) {
    if (wide)
      static_cast<acc_t*>(base)[index] = value;
    else
      static_cast<scalar_t*>(base)[index] = from_compute<scalar_t>(value);
  }
  DCNV3_HOST_DEVICE void store(int point, const PointGradient<acc_t>& gradient) const {
    put(offset, wide_offset, 2 * point, gradient.dx);
    put(offset, wide_offset, 2 * point + 1, gradient.dy);
    put(mask, wide_mask, point, gradient.weight);
  }
};

template <typename scalar_t, int kLanes>
struct VectorPoints {
  using Arguments = PointsArguments<float>;
  using Own = OwnPoints<scalar_t, kLanes>;
  using Dots = CornerDots<float>;
  static constexpr int kThreads = kTileThreads;
  static constexpr int kBlocks = 0;
  static constexpr int kOwn = Own::kOwn;
  static constexpr int kNumbers = kPerWords<scalar_t>;

  // Products of this lane's channels with the corners of all points, added up for their owners.
  template <bool kInside, class Lanes>
  static DCNV3_KERNEL void multiply(const char* image, const VectorLayout& layout, const Own& own,
                                    const Sampling<float>& sampling, const float (&grad)[kNumbers],
                                    int lane, Dots (&dots)[kOwn], const Lanes& lanes) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int place = place_of<kInside>(own.at[i], layout, sampling);
      Dots of_lane[kLanes] = {};
#pragma unroll
      for (int q = 0; q < kLanes; ++q) {
        if (Own::exists(i, q)) {
          const int there = lanes.shuffle(place, q, kLanes);
          Words corners[4];
          load_corners<kInside>(image, there, layout, corners);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            float values[kNumbers];
            unpack<scalar_t>(corners[k], values);
#pragma unroll
            for (int c = 0; c < kNumbers; ++c) of_lane[q].at[k] += grad[c] * values[c];
          }
        }
      }
      sum_for_owner<kLanes / 2>(of_lane, lane, lanes);
      dots[i] = of_lane[0];
    }
  }

  // Turns the products into gradients and stores those of this lane's points.
  template <class Lanes>
  static DCNV3_KERNEL void finish(const CellGradients<scalar_t>& gradients, bool active, int lane,
                                  const Sampling<float>& sampling, const Own& own,
                                  const Dots (&dots)[kOwn], const Lanes& lanes) {
    PointGradient<float> gradient[kOwn];
    float mean = 0.0f;  // of the gradients, weighted
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      gradient[i] = point_gradient(dots[i], own.at[i], own.weight[i], sampling.scale);
      mean += Own::exists(i, lane) ? own.weight[i] * gradient[i].weight : 0.0f;
    }
    if (sampling.softmax) {
      mean = sum_of_lanes<kLanes>(mean, lanes);
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
        gradient[i].weight = own.weight[i] * (gradient[i].weight - mean);
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      if (active && Own::exists(i, lane)) gradients.store(i * kLanes + lane, gradient[i]);
  }

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const BackwardArgs& args = arguments.args;
    const Params& params = args.forward.params;
    const Sampling<float>& sampling = arguments.sampling;
    const TilePlan& plan = arguments.plan;
    const Tile tile = plan.tile(lanes.block());
    const VectorLayout layout(params, sizeof(scalar_t), tile.image);
    const int lane = lanes.thread() % kLanes;
    const int at_once = lanes.block_size() / kLanes;
    Own own(lane, sampling);
    for (int first = 0; first < plan.cells(); first += at_once) {
      const Cell cell = cell_of(plan, tile, first + lanes.thread() / kLanes, params);
      const int in_pixel = (cell.group * kLanes + lane) * 16;  // where this lane's bytes lie
      const CellPoints<scalar_t> points(args.forward, sampling, cell);
      const bool inside = own.locate(points, cell, lane, sampling, lanes);
      const char* image = static_cast<const char*>(args.forward.input) + layout.image + in_pixel;
      const char* output = static_cast<const char*>(args.grad_output) + layout.pixel(cell.pixel);
      float grad[kNumbers];
      unpack<scalar_t>(load_words(output + in_pixel), grad);
      Dots dots[kOwn];
      if (lanes.all(inside))
        multiply<true>(image, layout, own, sampling, grad, lane, dots, lanes);
      else
        multiply<false>(image, layout, own, sampling, grad, lane, dots, lanes);
      const CellGradients<scalar_t> gradients(args, points, cell, Own::kPoints);
      finish(gradients, cell.active, lane, sampling, own, dots, lanes);
    }
  }
};

// Any kernel and any number of channels, one number at a time.
template <typename scalar_t>
struct PlainPoints {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = PointsArguments<acc_t>;
  static constexpr int kThreads = kTileThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kLanes = kPlainLanes;

  // The products of the group's channels with the four corners of a point. All lanes.
  template <class Lanes>
  static DCNV3_KERNEL CornerDots<acc_t> multiply(const scalar_t* image, const scalar_t* grad, int y,
                                                 int x, int lane, int depth, int64_t channels,
                                                 const Sampling<acc_t>& sampling,
                                                 const Lanes& lanes) {
    CornerDots<acc_t> dots;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int row = y + k / 2, column = x + k % 2;
      acc_t sum = acc_t(0);
      if (sampling.has_row(row) && sampling.has_column(column)) {
        const scalar_t* corner = image + (int64_t{row} * sampling.width + column) * channels;
        for (int channel = lane; channel < depth; channel += kLanes)
          sum +=
              to_compute(load_scalar(grad + channel)) * to_compute(load_scalar(corner + channel));
      }
      dots.at[k] = sum_of_lanes<kLanes>(sum, lanes);
    }
    return dots;
  }

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const BackwardArgs& args = arguments.args;
    const Params& params = args.forward.params;
    const Sampling<acc_t>& sampling = arguments.sampling;
    const TilePlan& plan = arguments.plan;
    const int num_points = sampling.points;
    const int depth = static_cast<int>(params.depth);
    const int64_t channels = params.channels();
    const Tile tile = plan.tile(lanes.block());
    const int lane = lanes.thread() % kLanes;
    const int at_once = lanes.block_size() / kLanes;
    for (int first = 0; first < plan.cells(); first += at_once) {
      const Cell cell = cell_of(plan, tile, first + lanes.thread() / kLanes, params);
      const CellPoints<scalar_t> points(args.forward, sampling, cell);
      const CellGradients<scalar_t> gradients(args, points, cell, num_points);
      const AnyPoints<kLanes, scalar_t> any(points, cell, lane, sampling, lanes);
      const bool softmax = sampling.softmax;
      const int64_t group_channel = int64_t{cell.group} * depth;
      const scalar_t* image = static_cast<const scalar_t*>(args.forward.input) + group_channel +
                              tile.image * params.height * params.width * channels;
      const scalar_t* grad = static_cast<const scalar_t*>(args.grad_output) +
                             int64_t{cell.pixel} * channels + group_channel;
      // With a softmax twice: its gradient needs the mean over all points before any is stored.
      acc_t mean = acc_t(0);
      for (int pass = softmax ? 0 : 1; pass < 2; ++pass) {
        for (int batch = 0; batch < num_points; batch += kLanes) {
          const bool owns = batch + lane < num_points;
          const int p = owns ? batch + lane : 0;
          const acc_t weight = any.weight(p);
          const PointLocation<acc_t> at = any.at(p, weight);
          CornerDots<acc_t> own = {};
          const int left = num_points - batch;
          for (int q = 0; q < (left < kLanes ? left : kLanes); ++q) {
            const int y = lanes.shuffle(at.y, q, kLanes);
            const int x = lanes.shuffle(at.x, q, kLanes);
            const CornerDots<acc_t> dots =
                multiply(image, grad, y, x, lane, depth, channels, sampling, lanes);
            if (q == lane) own = dots;
          }
          PointGradient<acc_t> gradient = point_gradient(own, at, weight, sampling.scale);
          if (pass == 0) mean += owns ? weight * gradient.weight : acc_t(0);
          if (softmax) gradient.weight = weight * (gradient.weight - mean);
          if (pass == 1 && owns && cell.active) gradients.store(p, gradient);
        }
        if (pass == 0) mean = sum_of_lanes<kLanes>(mean, lanes);
      }
    }
  }
};

}  // namespace dcnv3
