// The gradient of the input on a GPU. Here the lanes that share a cell have one channel each, so
// that what they add to a pixel lies side by side.
#pragma once

#include "points.h"

namespace dcnv3 {

// Adds the gradient of one channel of a cell to the corners of all its points: `add(y, x, value)`
// is called for corners inside the image. `used` is false for a lane without a channel or a cell;
// it works out its points for the others all the same. All lanes.
template <int kLanes, typename scalar_t, typename acc_t, class Lanes, class Add>
DCNV3_KERNEL void scatter_cell(const CellPoints<scalar_t>& points, const Cell& cell, acc_t grad,
                               bool used, int lane, const Sampling<acc_t>& sampling,
                               const Lanes& lanes, const Add& add) {
  const int num_points = sampling.points;
  const Center<acc_t> center(cell, sampling);
  Softmax<acc_t> normalise{};
  if (sampling.softmax) normalise = softmax_of<kLanes>(points, num_points, lane, lanes);
  for (int batch = 0; batch < num_points; batch += kLanes) {
    const int p = batch + lane < num_points ? batch + lane : 0;
    const acc_t number = points.weight(p);
    const acc_t own_weight = sampling.softmax ? normalise(number) : number;
    const PointLocation<acc_t> own = locate_point(points, center, p, own_weight, sampling);
    const int left = num_points - batch;
    for (int q = 0; q < (left < kLanes ? left : kLanes); ++q) {
      const int y = lanes.shuffle(own.y, q, kLanes);
      const int x = lanes.shuffle(own.x, q, kLanes);
      const acc_t frac_y = lanes.shuffle(own.frac_y, q, kLanes);
      const acc_t frac_x = lanes.shuffle(own.frac_x, q, kLanes);
      const acc_t weighted = lanes.shuffle(own.weight, q, kLanes) * grad;
      if (!used || y <= kNowhere) continue;
      const acc_t upper = (acc_t(1) - frac_y) * weighted, lower = frac_y * weighted;
      const bool has_left = sampling.has_column(x), has_right = sampling.has_column(x + 1);
      if (sampling.has_row(y)) {
        if (has_left) add(y, x, (acc_t(1) - frac_x) * upper);
        if (has_right) add(y, x + 1, frac_x * upper);
      }
      if (sampling.has_row(y + 1)) {
        if (has_left) add(y + 1, x, (acc_t(1) - frac_x) * lower);
        if (has_right) add(y + 1, x + 1, frac_x * lower);
      }
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

// Sums up a window in shared memory, see WindowPlan.
template <typename scalar_t, int kLanes>
struct WindowInput {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = WindowArguments<acc_t>;
  static constexpr int kThreads = most_window_threads(sizeof(acc_t) == sizeof(double));

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const BackwardArgs& args = arguments.args;
    const Params& params = args.forward.params;
    const Sampling<acc_t>& sampling = arguments.sampling;
    const WindowPlan& plan = arguments.plan;
    const int64_t chunk = lanes.block() % plan.chunks_of_depth;
    const Tile tile = plan.tiles.tile(lanes.block() / plan.chunks_of_depth);
    const Window window = window_of(plan, tile, params);
    const int lane = lanes.thread() % kLanes;
    const int channel = static_cast<int>(chunk) * kLanes + lane;
    const bool has_channel = channel < params.depth;
    const int64_t channels = params.channels();
    const int64_t in_pixel = tile.group * params.depth + channel;
    const int64_t image_start = tile.image * params.height * params.width * channels + in_pixel;
    const int at_once = lanes.block_size() / kLanes;
    const int first = lanes.thread() / kLanes;

    // (height, width, kLanes)
    acc_t* sums = reinterpret_cast<acc_t*>(lanes.shared()) + lane;
    const int pixels = window.height * window.width;
    for (int pixel = first; pixel < pixels; pixel += at_once) sums[pixel * kLanes] = acc_t(0);
    lanes.sync();

    acc_t* global = static_cast<acc_t*>(arguments.sum) + image_start;
    const auto add = [&](int y, int x, acc_t value) {
      const int row = y - window.y, column = x - window.x;
      if (static_cast<uint32_t>(row) < static_cast<uint32_t>(window.height) &&
          static_cast<uint32_t>(column) < static_cast<uint32_t>(window.width))
        lanes.add_shared(sums + (row * window.width + column) * kLanes, value);
      else
        lanes.add_global(global + (int64_t{y} * sampling.width + x) * channels, value);
    };
    for (int index = 0; index < plan.tiles.cells(); index += at_once) {
      const Cell cell = cell_of(plan.tiles, tile, index + first, params);
      const CellPoints<scalar_t> points(args.forward, sampling, cell);
      const bool used = cell.active && has_channel;
      const scalar_t* upstream = static_cast<const scalar_t*>(args.grad_output) +
                                 int64_t{cell.pixel} * channels + in_pixel;
      const acc_t grad = used ? to_compute(load_scalar(upstream)) : acc_t(0);
      scatter_cell<kLanes>(points, cell, grad, used, lane, sampling, lanes, add);
    }
    lanes.sync();

    if (!has_channel) return;
    scalar_t* result = static_cast<scalar_t*>(args.grad_input) + image_start;
    for (int pixel = first; pixel < pixels; pixel += at_once) {
      const int row = pixel / window.width;
      const int column = pixel - row * window.width;
      const int64_t at = (int64_t{window.y + row} * sampling.width + window.x + column) * channels;
      const acc_t value = sums[pixel * kLanes];
      if (plan.exclusive)
        result[at] = from_compute<scalar_t>(value);
      else if (value != acc_t(0))  // also for NaN
        lanes.add_global(global + at, value);
    }
  }
};

template <typename acc_t>
struct OwnerArguments {
  BackwardArgs args;
  Sampling<acc_t> sampling;
  OwnerPlan plan;
};

// The deterministic way, see OwnerPlan: each number has one thread that adds to it.
template <typename scalar_t, int kLanes>
struct OwnedInput {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = OwnerArguments<acc_t>;
  static constexpr int kThreads = kOwnerThreads;

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
    const int channel = depth_chunk * kLanes + lane;
    const bool has_channel = number < plan.teams && channel < params.depth;
    const int64_t channels = params.channels();
    const int64_t in_pixel = group * params.depth + channel;
    const int out_height = static_cast<int>(params.out_height);
    const int out_width = static_cast<int>(params.out_width);

    // (chunks, N, H, W, C)
    acc_t* sums = static_cast<acc_t*>(args.partial) + in_pixel +
                  (chunk * params.batch + image) * params.height * params.width * channels;
    const auto add = [&](int y, int x, acc_t value) {
      sums[(int64_t{y} * sampling.width + x) * channels] += value;
    };
    for (int row = 0; row < plan.rows; ++row) {
      const int y = chunk * plan.rows + row;
      Cell cell;
      cell.group = group;
      cell.active = y < out_height;
      cell.y = cell.active ? y : out_height - 1;
      for (cell.x = 0; cell.x < out_width; ++cell.x) {
        cell.pixel = (image * out_height + cell.y) * out_width + cell.x;
        const CellPoints<scalar_t> points(args.forward, sampling, cell);
        const bool used = cell.active && has_channel;
        const scalar_t* upstream = static_cast<const scalar_t*>(args.grad_output) +
                                   int64_t{cell.pixel} * channels + in_pixel;
        const acc_t grad = used ? to_compute(load_scalar(upstream)) : acc_t(0);
        scatter_cell<kLanes>(points, cell, grad, used, lane, sampling, lanes, add);
      }
    }
  }
};

struct FinishArguments {
  const void* partial;  // (copies, numbers)
  void* grad_input;     // (numbers)
  int64_t numbers;
  int64_t copies;
  int64_t threads;  // of the whole grid
};

// Adds the copies of the gradient in their order and rounds the sum.
template <typename scalar_t>
struct FinishInput {
  using acc_t = typename Compute<scalar_t>::type;
  using Arguments = FinishArguments;
  static constexpr int kThreads = 256;

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const acc_t* partial = static_cast<const acc_t*>(arguments.partial);
    scalar_t* result = static_cast<scalar_t*>(arguments.grad_input);
    const int64_t first = lanes.block() * lanes.block_size() + lanes.thread();
    for (int64_t k = first; k < arguments.numbers; k += arguments.threads) {
      acc_t sum = partial[k];
      for (int64_t copy = 1; copy < arguments.copies; ++copy)
        sum += partial[copy * arguments.numbers + k];
      result[k] = from_compute<scalar_t>(sum);
    }
  }
};

}  // namespace dcnv3
