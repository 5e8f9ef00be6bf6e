// The forward pass on a GPU.
#pragma once

#include "vector_cell.h"

namespace dcnv3 {

// What its owner keeps of a point and hands to the other lanes, and what these do with it.
//
// 16-bit numbers are interpolated in pairs, in their own format, and summed over the points in
// float32: an interpolation has the rounding of four products, the sum over the points none.
template <typename scalar_t>
struct SharedPoint {
  uint32_t upper, lower;  // bilinear weights of the left and right corner of each row
  float weight;

  DCNV3_HOST_DEVICE void set(const PointLocation<float>& at) {
    const float left = 1.0f - at.frac_x, top = 1.0f - at.frac_y;
    upper = Pair<scalar_t>::of(top * left, top * at.frac_x);
    lower = Pair<scalar_t>::of(at.frac_y * left, at.frac_y * at.frac_x);
    weight = at.weight;
  }

  template <int kLanes, class Lanes>
  DCNV3_KERNEL SharedPoint from(int owner, const Lanes& lanes) const {
    return {lanes.shuffle(upper, owner, kLanes), lanes.shuffle(lower, owner, kLanes),
            lanes.shuffle(weight, owner, kLanes)};
  }

  DCNV3_HOST_DEVICE void add(const Words (&corners)[4], float (&sums)[8]) const {
    using Two = Pair<scalar_t>;
    for (int w = 0; w < 4; ++w) {
      uint32_t value = Two::product(Two::both_low(upper), corners[0].word[w]);
      value = Two::product_sum(Two::both_high(upper), corners[1].word[w], value);
      value = Two::product_sum(Two::both_low(lower), corners[2].word[w], value);
      value = Two::product_sum(Two::both_high(lower), corners[3].word[w], value);
      sums[2 * w] += weight * Two::low(value);
      sums[2 * w + 1] += weight * Two::high(value);
    }
  }
};

template <>
struct SharedPoint<float> {
  float corner[4];  // bilinear weight times the point's weight

  DCNV3_HOST_DEVICE void set(const PointLocation<float>& at) {
    const float lower = at.weight * at.frac_y, upper = at.weight - lower;
    corner[1] = upper * at.frac_x;
    corner[0] = upper - corner[1];
    corner[3] = lower * at.frac_x;
    corner[2] = lower - corner[3];
  }

  template <int kLanes, class Lanes>
  DCNV3_KERNEL SharedPoint from(int owner, const Lanes& lanes) const {
    SharedPoint result;
#pragma unroll
    for (int k = 0; k < 4; ++k) result.corner[k] = lanes.shuffle(corner[k], owner, kLanes);
    return result;
  }

  DCNV3_HOST_DEVICE void add(const Words (&corners)[4], float (&sums)[4]) const {
    for (int w = 0; w < 4; ++w)
      for (int k = 0; k < 4; ++k) sums[w] += corner[k] * bit_cast<float>(corners[k].word[w]);
  }
};

template <typename acc_t>
struct ForwardArguments {
  ForwardArgs args;
  Sampling<acc_t> sampling;
  TilePlan plan;
};

template <typename scalar_t, int kLanes>
struct VectorForward {
  using Arguments = ForwardArguments<float>;
  using Own = OwnPoints<scalar_t, kLanes>;
  static constexpr int kThreads = kTileThreads;
  static constexpr int kBlocks = 0;
  static constexpr int kOwn = Own::kOwn;
  static constexpr int kNumbers = kPerWords<scalar_t>;

  // Sums this lane's channels over all points.
  template <bool kInside, class Lanes>
  static DCNV3_KERNEL void accumulate(const char* image, const VectorLayout& layout, const Own& own,
                                      const Sampling<float>& sampling, float (&sums)[kNumbers],
                                      const Lanes& lanes) {
    int place[kOwn];
    SharedPoint<scalar_t> point[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      place[i] = place_of<kInside>(own.at[i], layout, sampling);
      point[i].set(own.at[i]);
    }
#pragma unroll
    for (int p = 0; p < Own::kPoints; ++p) {
      const int there = lanes.shuffle(place[p / kLanes], p % kLanes, kLanes);
      const SharedPoint<scalar_t> shared =
          point[p / kLanes].template from<kLanes>(p % kLanes, lanes);
      Words corners[4];
      load_corners<kInside>(image, there, layout, corners);
      shared.add(corners, sums);
    }
  }

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const ForwardArgs& args = arguments.args;
    const Sampling<float>& sampling = arguments.sampling;
    const TilePlan& plan = arguments.plan;
    const Tile tile = plan.tile(lanes.block());
    const VectorLayout layout(args.params, sizeof(scalar_t), tile.image);
    const int lane = lanes.thread() % kLanes;
    const int at_once = lanes.block_size() / kLanes;
    Own own(lane, sampling);
    for (int first = 0; first < plan.cells(); first += at_once) {
      const Cell cell = cell_of(plan, tile, first + lanes.thread() / kLanes, args.params);
      const int in_pixel = (cell.group * kLanes + lane) * 16;  // where this lane's bytes lie
      const CellPoints<scalar_t> points(args, sampling, cell);
      const bool inside = own.locate(points, cell, lane, sampling, lanes);
      const char* image = static_cast<const char*>(args.input) + layout.image + in_pixel;
      float sums[kNumbers] = {};
      if (lanes.all(inside))
        accumulate<true>(image, layout, own, sampling, sums, lanes);
      else
        accumulate<false>(image, layout, own, sampling, sums, lanes);
      char* output = static_cast<char*>(args.output) + layout.pixel(cell.pixel) + in_pixel;
      if (cell.active) store_words(output, pack<scalar_t>(sums));
    }
  }
};

// Any kernel and any number of channels, one number at a time.
template <typename scalar_t>
struct PlainForward {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = ForwardArguments<acc_t>;
  static constexpr int kThreads = kTileThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kLanes = kPlainLanes;

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const ForwardArgs& args = arguments.args;
    const Params& params = args.params;
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
      const CellPoints<scalar_t> points(args, sampling, cell);
      const AnyPoints<kLanes, scalar_t> any(points, cell, lane, sampling, lanes);
      const int64_t group_channel = int64_t{cell.group} * depth;
      const scalar_t* image = static_cast<const scalar_t*>(args.input) + group_channel +
                              tile.image * params.height * params.width * channels;
      scalar_t* output =
          static_cast<scalar_t*>(args.output) + int64_t{cell.pixel} * channels + group_channel;
      for (int from = 0; from < depth; from += kLanes) {  // every lane as often, for the shuffles
        const int channel = from + lane;
        const bool used = cell.active && channel < depth;
        acc_t sum = acc_t(0);
        for (int batch = 0; batch < num_points; batch += kLanes) {
          const int p = batch + lane < num_points ? batch + lane : 0;
          const PointLocation<acc_t> own = any.at(p);
          const int left = num_points - batch;
          for (int q = 0; q < (left < kLanes ? left : kLanes); ++q) {
            const PointLocation<acc_t> at{
                lanes.shuffle(own.y, q, kLanes), lanes.shuffle(own.x, q, kLanes),
                lanes.shuffle(own.frac_y, q, kLanes), lanes.shuffle(own.frac_x, q, kLanes),
                lanes.shuffle(own.weight, q, kLanes)};
            for (int k = 0; used && k < 4; ++k) {
              const int row = at.y + k / 2, column = at.x + k % 2;
              if (!sampling.has_row(row) || !sampling.has_column(column)) continue;
              const int64_t pixel = int64_t{row} * sampling.width + column;
              const acc_t value = to_compute(load_scalar(image + pixel * channels + channel));
              sum += at.weight * corner_share(at, k) * value;
            }
          }
        }
        if (used) output[channel] = from_compute<scalar_t>(sum);
      }
    }
  }
};

}  // namespace dcnv3
