// The gradient of the input on a GPU. Here the lanes that share a cell have two neighbouring
// channels each, so that what they add to a pixel lies side by side.
#pragma once

#include "vector_cell.h"

namespace dcnv3 {

// The channels of one lane in its group.
struct ChannelPair {
  int first;
  bool has_first, has_second;

  DCNV3_HOST_DEVICE ChannelPair(int first_channel, int64_t depth)
      : first(first_channel), has_first(first < depth), has_second(first + 1 < depth) {}

  template <typename scalar_t, typename acc_t>
  DCNV3_HOST_DEVICE void load(const scalar_t* from, acc_t (&values)[2]) const {
    values[0] = has_first ? to_compute(load_scalar(from)) : acc_t(0);
    values[1] = has_second ? to_compute(load_scalar(from + 1)) : acc_t(0);
  }
  template <typename scalar_t, typename acc_t>
  DCNV3_HOST_DEVICE void store(const acc_t* values, scalar_t* to) const {
    if (has_second && reinterpret_cast<uintptr_t>(to) % (2 * sizeof(scalar_t)) == 0) {
      store_two(values[0], values[1], to);
    } else {
      if (has_first) to[0] = from_compute<scalar_t>(values[0]);
      if (has_second) to[1] = from_compute<scalar_t>(values[1]);
    }
  }
};

// Spreads the gradient of two channels of a cell over the corners of its points. All lanes.
//
// `Places` is a policy. Called with a point's location by its owner, it gives what the owner knows
// of where the point lies, in a type with `from(owner)`, which hands it to the other lanes, and
// `add(corner, values)`, which adds to one of the corners upper left, upper right, lower left,
// lower right if it is there. A lane with nothing to add, `used` false, works out its points for
// the others all the same.
template <int kLanes, typename acc_t, class Lanes, class Place>
DCNV3_KERNEL void scatter_point(const PointLocation<acc_t>& own, const Place& own_place, int owner,
                                const acc_t (&grad)[2], bool used, const Lanes& lanes) {
  const Place there = own_place.from(owner);
  const acc_t frac_y = lanes.shuffle(own.frac_y, owner, kLanes);
  const acc_t frac_x = lanes.shuffle(own.frac_x, owner, kLanes);
  const acc_t weight = lanes.shuffle(own.weight, owner, kLanes);
  if (!used) return;
  const acc_t lower = weight * frac_y, upper = weight * (acc_t(1) - frac_y);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const acc_t share = (k / 2 ? lower : upper) * (k % 2 ? frac_x : acc_t(1) - frac_x);
    const acc_t values[2] = {share * grad[0], share * grad[1]};
    there.add(k, values);
  }
}

template <bool kNinePoints, int kLanes, typename scalar_t, typename acc_t, class Lanes,
          class Places>
DCNV3_KERNEL void scatter_cell(const CellPoints<scalar_t>& points, const Cell& cell,
                               const acc_t (&grad)[2], bool used, int lane,
                               const Sampling<acc_t>& sampling, const Lanes& lanes,
                               const Places& places) {
  if constexpr (kNinePoints) {
    using Own = OwnPoints<scalar_t, kLanes>;
    Own own(lane, sampling);
    own.locate(points, cell, lane, sampling, lanes);
#pragma unroll
    for (int i = 0; i < Own::kOwn; ++i) {
      const auto place = places(own.at[i]);
#pragma unroll
      for (int q = 0; q < kLanes; ++q)
        if (Own::exists(i, q)) scatter_point<kLanes>(own.at[i], place, q, grad, used, lanes);
    }
  } else {
    const int num_points = sampling.points;
    const AnyPoints<kLanes, scalar_t> any(points, cell, lane, sampling, lanes);
    for (int batch = 0; batch < num_points; batch += kLanes) {
      const int p = batch + lane < num_points ? batch + lane : 0;
      const PointLocation<acc_t> at = any.at(p);
      const auto place = places(at);
      const int left = num_points - batch;
      for (int q = 0; q < (left < kLanes ? left : kLanes); ++q)
        scatter_point<kLanes>(at, place, q, grad, used, lanes);
    }
  }
}

template <typename acc_t>
struct WindowArguments {
  BackwardArgs args;
  Sampling<acc_t> sampling;
  WindowPlan plan;
  void* sum;  // (N, H, W, C) of acc_t, zero at the start; unused with an exclusive window
};

// The corners of a point in a window of shared memory, those in the image but beyond the window in
// global memory.
template <int kLanes, typename acc_t, class Lanes>
struct WindowPlaces {
  const Lanes& lanes;
  const Sampling<acc_t>& sampling;
  Window window;
  ChannelPair pair;
  acc_t* shared;  // (height, width, kLanes, 2) from this lane's first number on
  acc_t* global;  // (H, W, C) likewise
  int64_t channels;

  static constexpr int kPixel = 2 * kLanes;  // numbers

  struct Place {
    const WindowPlaces& places;
    int first;  // the upper left corner's first number, a multiple of 16; bit k: corner k is there
    int y, x;   // the upper left corner in the image
    bool beyond;  // whether any lane of the warp has a corner beyond the window

    DCNV3_KERNEL Place from(int owner) const {
      const Lanes& lanes = places.lanes;
      Place there{places, lanes.shuffle(first, owner, kLanes), 0, 0, beyond};
      if (beyond) {
        there.y = lanes.shuffle(y, owner, kLanes);
        there.x = lanes.shuffle(x, owner, kLanes);
      }
      return there;
    }

    DCNV3_KERNEL void add(int corner, const acc_t (&values)[2]) const {
      if ((first & 1 << corner) != 0) {
        const int row = corner / 2 ? places.window.width * kPixel : 0;
        acc_t* to = places.shared + ((first & ~15) + row) + corner % 2 * kPixel;
        places.lanes.add_shared_two(to, values);
      } else if (beyond) {
        const int row = y + corner / 2, column = x + corner % 2;
        if (!places.sampling.has_row(row) || !places.sampling.has_column(column)) return;
        places.add_global(int64_t{row} * places.sampling.width + column, values);
      }
    }
  };

  DCNV3_KERNEL void add_global(int64_t pixel, const acc_t* values) const {
    acc_t* to = global + pixel * channels;
    if (pair.has_first) lanes.add_global(to, values[0]);
    if (pair.has_second) lanes.add_global(to + 1, values[1]);
  }

  // All lanes.
  DCNV3_KERNEL Place operator()(const PointLocation<acc_t>& at) const {
    const int row = at.y - window.y, column = at.x - window.x;
    int inside = 0;
    bool beyond = false;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const bool in_window = window.has_row(row + k / 2) && window.has_column(column + k % 2);
      const bool in_image = sampling.has_row(at.y + k / 2) && sampling.has_column(at.x + k % 2);
      inside |= in_window ? 1 << k : 0;
      beyond = beyond || (in_image && !in_window);
    }
    const int number = inside != 0 ? (row * window.width + column) * kPixel : 0;
    return {*this, number + inside, at.y, at.x, !lanes.all(!beyond)};
  }
};

// Sums up a window in shared memory, see WindowPlan.
template <typename scalar_t, int kLanes, bool kNinePoints>
struct WindowInput {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = WindowArguments<acc_t>;
  static constexpr int kThreads = most_window_threads(sizeof(acc_t) == sizeof(double));
  static constexpr int kBlocks = 1;
  static constexpr int kPixel = 2 * kLanes;

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const BackwardArgs& args = arguments.args;
    const Params& params = args.forward.params;
    const Sampling<acc_t>& sampling = arguments.sampling;
    const WindowPlan& plan = arguments.plan;
    const int chunk = static_cast<int>(lanes.block() % plan.chunks_of_depth);
    const Tile tile = plan.tiles.tile(lanes.block() / plan.chunks_of_depth);
    const Window window = window_of(plan, tile, params);
    const int lane = lanes.thread() % kLanes;
    const ChannelPair pair(chunk * kPixel + 2 * lane, params.depth);
    const int64_t channels = params.channels();
    const int64_t in_pixel = tile.group * params.depth + pair.first;
    const int64_t image_start = tile.image * params.height * params.width * channels + in_pixel;
    const int at_once = lanes.block_size() / kLanes;
    const int first = lanes.thread() / kLanes;

    acc_t* sums = reinterpret_cast<acc_t*>(lanes.shared()) + 2 * lane;
    const int pixels = window.height * window.width;
    for (int pixel = first; pixel < pixels; pixel += at_once)
      sums[pixel * kPixel] = sums[pixel * kPixel + 1] = acc_t(0);
    lanes.sync();

    const WindowPlaces<kLanes, acc_t, Lanes> places{
        lanes,   sampling, window, pair, sums, static_cast<acc_t*>(arguments.sum) + image_start,
        channels};
    for (int index = 0; index < plan.tiles.cells(); index += at_once) {
      const Cell cell = cell_of(plan.tiles, tile, index + first, params);
      const CellPoints<scalar_t> points(args.forward, sampling, cell);
      acc_t grad[2];
      pair.load(static_cast<const scalar_t*>(args.grad_output) + int64_t{cell.pixel} * channels +
                    in_pixel,
                grad);
      const bool used = cell.active && pair.has_first;
      scatter_cell<kNinePoints, kLanes>(points, cell, grad, used, lane, sampling, lanes, places);
    }
    lanes.sync();

    if (!pair.has_first) return;
    scalar_t* result = static_cast<scalar_t*>(args.grad_input) + image_start;
    for (int pixel = first; pixel < pixels; pixel += at_once) {
      const int row = pixel / window.width;
      const int column = pixel - row * window.width;
      const int64_t at = int64_t{window.y + row} * sampling.width + window.x + column;
      const acc_t* values = sums + pixel * kPixel;
      if (plan.exclusive)
        pair.store(values, result + at * channels);
      else if (values[0] != acc_t(0) || values[1] != acc_t(0))  // also for NaN
        places.add_global(at, values);
    }
  }
};

template <typename acc_t>
struct OwnerArguments {
  BackwardArgs args;
  Sampling<acc_t> sampling;
  OwnerPlan plan;
};

// The corners of a point in global memory that belongs to this lane alone.
template <int kLanes, typename acc_t, class Lanes>
struct OwnedPlaces {
  const Lanes& lanes;
  const Sampling<acc_t>& sampling;
  ChannelPair pair;
  acc_t* sums;  // (H, W, C) from this lane's first number on
  int64_t channels;

  struct Place {
    const OwnedPlaces& places;
    int y, x;

    DCNV3_KERNEL Place from(int owner) const {
      return {places, places.lanes.shuffle(y, owner, kLanes),
              places.lanes.shuffle(x, owner, kLanes)};
    }
    DCNV3_KERNEL void add(int corner, const acc_t (&values)[2]) const {
      const int row = y + corner / 2, column = x + corner % 2;
      if (!places.sampling.has_row(row) || !places.sampling.has_column(column)) return;
      acc_t* to = places.sums + (int64_t{row} * places.sampling.width + column) * places.channels;
      if (places.pair.has_first) to[0] += values[0];
      if (places.pair.has_second) to[1] += values[1];
    }
  };

  DCNV3_KERNEL Place operator()(const PointLocation<acc_t>& at) const {
    return {*this, at.y, at.x};
  }
};

// The deterministic way, see OwnerPlan: each number has one thread that adds to it.
template <typename scalar_t, int kLanes, bool kNinePoints>
struct OwnedInput {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = OwnerArguments<acc_t>;
  static constexpr int kThreads = kOwnerThreads;
  static constexpr int kBlocks = 1;

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const BackwardArgs& args = arguments.args;
    const Params& params = args.forward.params;
    const Sampling<acc_t>& sampling = arguments.sampling;
    const OwnerPlan& plan = arguments.plan;
    const int lane = lanes.thread() % kLanes;
    const int64_t number = lanes.block() * (lanes.block_size() / kLanes) + lanes.thread() / kLanes;
    // a team without work repeats the last one's for the shuffles
    int64_t rest = smaller(number, plan.teams - 1);
    const int depth_chunk = static_cast<int>(rest % plan.chunks_of_depth);
    rest /= plan.chunks_of_depth;
    const int group = static_cast<int>(rest % params.groups);
    rest /= params.groups;
    const int chunk = static_cast<int>(rest % plan.chunks);
    const int image = static_cast<int>(rest / plan.chunks);
    const ChannelPair pair(2 * (depth_chunk * kLanes + lane), params.depth);
    const int64_t channels = params.channels();
    const int64_t in_pixel = group * params.depth + pair.first;
    const int out_height = static_cast<int>(params.out_height);
    const int out_width = static_cast<int>(params.out_width);

    // (chunks, N, H, W, C)
    acc_t* sums = static_cast<acc_t*>(args.partial) + in_pixel +
                  (chunk * params.batch + image) * params.height * params.width * channels;
    const OwnedPlaces<kLanes, acc_t, Lanes> places{lanes, sampling, pair, sums, channels};
    for (int row = 0; row < plan.rows; ++row) {
      const int y = chunk * plan.rows + row;
      Cell cell;
      cell.group = group;
      cell.active = y < out_height && number < plan.teams;
      cell.y = y < out_height ? y : out_height - 1;
      for (cell.x = 0; cell.x < out_width; ++cell.x) {
        cell.pixel = (image * out_height + cell.y) * out_width + cell.x;
        const CellPoints<scalar_t> points(args.forward, sampling, cell);
        acc_t grad[2];
        pair.load(static_cast<const scalar_t*>(args.grad_output) + int64_t{cell.pixel} * channels +
                      in_pixel,
                  grad);
        scatter_cell<kNinePoints, kLanes>(points, cell, grad, cell.active, lane, sampling, lanes,
                                          places);
      }
    }
  }
};

}  // namespace dcnv3
