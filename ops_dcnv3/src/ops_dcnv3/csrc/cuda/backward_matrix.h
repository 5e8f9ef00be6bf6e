// The gradient of the input as a product of matrices, for 16-bit numbers on tensor cores.
//
// Note [Reading matrix]: a cell adds its gradient to the corners of its points, each with a weight:
// grad_input[q] = sum over cells c of S[c][q] grad_output[c]. S has at most 36 numbers in a row
// that are not zero, and one row is the same for all channels: a block builds the rows of 64
// neighbouring cells for a window of at most 256 input pixels in shared memory, one thread a row,
// and leaves the sums over the cells, 16 channels at a time, to the tensor cores. Weights are
// rounded to the 16-bit format, again where a second point of the cell adds to one; products are
// exact, sums in float32.
//
// What S cannot hold is added number by number: corners beyond the window, and gradients that are
// not finite, which a product with zero would spread over the whole window.
#pragma once

#include "backward_input.h"

namespace dcnv3 {

struct MatrixArguments {
  BackwardArgs args;
  Sampling<float> sampling;
  MatrixPlan plan;
  float* sum;  // (N, H, W, C), zero at the start; unused with an exclusive window
};

template <typename scalar_t>
struct MatrixInput {
  using Arguments = MatrixArguments;
  using Points = CellPoints<scalar_t>;
  static constexpr int kPoints = 9;
  static constexpr int kThreads = kMatrixCells;
  static constexpr int kBlocks = 6;
  static constexpr int kWarps = kMatrixCells / kWarp;
  static constexpr int kTilesOfWarp = kMatrixPixels / 16 / kWarps;

  // Shared memory: the reading matrix, the gradients, and for each warp whether one of them is not
  // finite. The result takes the place of the matrix. Rows are padded so that eight of them meet no
  // bank twice.
  static constexpr int kRow = kMatrixPixels + 8;
  static constexpr int kGradRow = kMatrixChannels + 8;

  struct Memory {
    scalar_t* matrix;  // (kMatrixCells, kRow)
    scalar_t* grad;    // (kMatrixCells, kGradRow)
    int* strange;      // (kWarps)
    float* result;     // (kMatrixPixels, kMatrixChannels)

    explicit DCNV3_HOST_DEVICE Memory(char* shared)
        : matrix(reinterpret_cast<scalar_t*>(shared)),
          grad(matrix + kMatrixCells * kRow),
          strange(reinterpret_cast<int*>(grad + kMatrixCells * kGradRow)),
          result(reinterpret_cast<float*>(shared)) {}
  };

  // What a block works on.
  struct Job {
    Tile tile;
    Window window;
    int window_row;       // columns of the matrix from one row of the window to the next
    int64_t in_pixel;     // the first of its channels
    int64_t image_start;  // the same channel of the image's first pixel

    DCNV3_HOST_DEVICE Job(const Arguments& arguments, int64_t block) {
      const Params& params = arguments.args.forward.params;
      const MatrixPlan& plan = arguments.plan;
      const int chunk = static_cast<int>(block % plan.chunks_of_depth);
      tile = plan.tiles.tile(block / plan.chunks_of_depth);
      window = window_of(plan, tile, params);
      window_row = plan.exclusive ? window.width : kMatrixSide;
      in_pixel = tile.group * params.depth + chunk * kMatrixChannels;
      image_start = tile.image * params.height * params.width * params.channels() + in_pixel;
    }
  };

  // Calls `add(y, x, channel, value)` for what the matrix leaves out of one cell. It is rare: short
  // code, which works out the points anew.
  template <class Lanes, class Add>
  static DCNV3_KERNEL void add_rest(const Job& job, const Points& points, const Cell& cell,
                                    const scalar_t* grad, const Sampling<float>& sampling,
                                    const Lanes& lanes, const Add& add) {
    const AnyPoints<1, scalar_t> any(points, cell, 0, sampling, lanes);
#pragma unroll 1
    for (int p = 0; p < kPoints; ++p) {
      const PointLocation<float> at = any.at(p);
#pragma unroll 1
      for (int k = 0; k < 4; ++k) {
        const int y = at.y + k / 2, x = at.x + k % 2;
        if (!sampling.has_row(y) || !sampling.has_column(x)) continue;
        const bool in_window =
            job.window.has_row(y - job.window.y) && job.window.has_column(x - job.window.x);
        const float share = at.weight * corner_share(at, k);
#pragma unroll 1
        for (int c = 0; c < kMatrixChannels; ++c) {
          const float value = to_compute(load_scalar(grad + c));
          if (!in_window || !is_finite(value)) add(y, x, c, share * value);
        }
      }
    }
  }

  // Fills this thread's row of the gradients. Returns whether it leaves out a number.
  static DCNV3_KERNEL bool fill_gradient(const Memory& memory, int row, const scalar_t* grad,
                                         bool active) {
    constexpr int kNumbers = kPerWords<scalar_t>;
    bool rest = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Words words = {{0, 0, 0, 0}};
      if (active) words = load_words(grad + half * kNumbers);
      float values[kNumbers];
      unpack<scalar_t>(words, values);
#pragma unroll
      for (int c = 0; c < kNumbers; ++c) {
        rest = rest || !is_finite(values[c]);
        values[c] = is_finite(values[c]) ? values[c] : 0.0f;
      }
      store_words(memory.grad + row * kGradRow + half * kNumbers, pack<scalar_t>(values));
    }
    return rest;
  }

  // Fills this thread's row of the matrix. Returns whether it leaves out a corner.
  template <class Lanes>
  static DCNV3_KERNEL bool fill_matrix(const Memory& memory, int row, const Job& job,
                                       const Points& points, const Cell& cell,
                                       const Sampling<float>& sampling, const Lanes& lanes) {
    scalar_t* matrix = memory.matrix + row * kRow;
    float weight[kPoints], dx[kPoints], dy[kPoints];
    points.weights(0, 1, kPoints, weight);
    points.offsets(0, 1, kPoints, dx, dy);
    for (int q = 0; q < kRow; q += kPerWords<scalar_t>) store_words(matrix + q, {{0, 0, 0, 0}});
    if (sampling.softmax) softmax_own<1, scalar_t>(weight, 0, kPoints, lanes);
    const Center<float> center(cell, sampling);
    bool rest = false;
#pragma unroll
    for (int p = 0; p < kPoints; ++p) {
      float grid_x, grid_y;
      grid_of<true>(p, sampling, grid_x, grid_y);
      const PointLocation<float> at =
          locate_at(center, grid_x, grid_y, dx[p], dy[p], weight[p], sampling);
      const int y = at.y - job.window.y, x = at.x - job.window.x;
      const int first = y * job.window_row + x;
      bool there[4];
      float share[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {  // all reads of a point before its writes: its corners differ
        there[k] = job.window.has_row(y + k / 2) && job.window.has_column(x + k % 2);
        share[k] = at.weight * corner_share(at, k);
        if (there[k]) share[k] += to_compute(matrix[first + k / 2 * job.window_row + k % 2]);
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (there[k])
          matrix[first + k / 2 * job.window_row + k % 2] = from_compute<scalar_t>(share[k]);
        rest = rest ||
               (!there[k] && sampling.has_row(at.y + k / 2) && sampling.has_column(at.x + k % 2));
      }
    }
    return rest;
  }

  // Adds the products of 64 cells to this warp's share of the result: rows of 16 pixels, two times
  // 8 channels.
  template <class Lanes>
  static DCNV3_KERNEL void multiply(const Memory& memory, int pixels,
                                    float (&sums)[kTilesOfWarp][2][4], const Lanes& lanes) {
    const int warp = lanes.thread() / kWarp, lane = lanes.thread() % kWarp;
    // Each lane names a row of one of four 8 x 8 blocks: the gradients' blocks lie below each other
    // first, the matrix' blocks beside each other.
    const int block = lane / 8, block_row = lane % 8;
    for (int cell = 0; cell < kMatrixCells; cell += 16) {
      uint32_t grad[4];
      lanes.load_matrices_transposed(
          grad, memory.grad + (cell + block % 2 * 8 + block_row) * kGradRow + block / 2 * 8);
      const uint32_t left[2] = {grad[0], grad[1]}, right[2] = {grad[2], grad[3]};
      const scalar_t* row =
          memory.matrix + (cell + block / 2 * 8 + block_row) * kRow + block % 2 * 8;
#pragma unroll
      for (int i = 0; i < kTilesOfWarp; ++i) {
        const int first = (i * kWarps + warp) * 16;
        if (first >= pixels) continue;
        uint32_t weights[4];
        lanes.load_matrices_transposed(weights, row + first);
        lanes.template multiply_add<scalar_t>(sums[i][0], weights, left);
        lanes.template multiply_add<scalar_t>(sums[i][1], weights, right);
      }
    }
  }

  // Calls `put(pixel, channel, values)` for the two neighbouring channels of each pixel that this
  // thread has the sums of.
  template <class Put>
  static DCNV3_KERNEL void for_sums(int thread, int pixels, const float (&sums)[kTilesOfWarp][2][4],
                                    const Put& put) {
    const int warp = thread / kWarp, lane = thread % kWarp;
#pragma unroll
    for (int i = 0; i < kTilesOfWarp; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int pixel = (i * kWarps + warp) * 16 + k % 2 * 8 + lane / 4;
        const float values[2] = {sums[i][k / 2][k % 2 * 2], sums[i][k / 2][k % 2 * 2 + 1]};
        if (pixel < pixels) put(pixel, k / 2 * 8 + lane % 4 * 2, values);
      }
    }
  }

  template <class Lanes>
  static DCNV3_KERNEL void run(const Arguments& arguments, const Lanes& lanes) {
    const BackwardArgs& args = arguments.args;
    const Params& params = args.forward.params;
    const Sampling<float>& sampling = arguments.sampling;
    const MatrixPlan& plan = arguments.plan;
    const Job job(arguments, lanes.block());
    const Memory memory(lanes.shared());
    const int64_t channels = params.channels();
    const int pixels = job.window.height * job.window_row;
    const int row = lanes.thread();
    float* global = arguments.sum + job.image_start;
    const auto add_global = [&](int y, int x, int c, float value) {
      lanes.add_global(global + (int64_t{y} * sampling.width + x) * channels + c, value);
    };
    const auto gradient_of = [&](const Cell& cell) {
      return static_cast<const scalar_t*>(args.grad_output) + int64_t{cell.pixel} * channels +
             job.in_pixel;
    };

    if (row < kWarps) memory.strange[row] = 0;
    float sums[kTilesOfWarp][2][4] = {};
    for (int first = 0; first < plan.tiles.cells(); first += kMatrixCells) {
      lanes.sync();  // all have read the matrix of the cells before
      const Cell cell = cell_of(plan.tiles, job.tile, first + row, params);
      const Points points(args.forward, sampling, cell);
      const scalar_t* grad = gradient_of(cell);
      bool rest = fill_gradient(memory, row, grad, cell.active);
      // the row of a cell that is none stays, its gradient is zero
      rest = fill_matrix(memory, row, job, points, cell, sampling, lanes) || rest;
      rest = rest && cell.active;
      const bool any_rest = !lanes.all(!rest);
      if (plan.exclusive) {
        if (any_rest && row % kWarp == 0) memory.strange[row / kWarp] = 1;
      } else if (rest) {
        add_rest(job, points, cell, grad, sampling, lanes, add_global);
      }
      lanes.sync();
      multiply(memory, pixels, sums, lanes);
    }
    if (!plan.exclusive) {
      for_sums(row, pixels, sums, [&](int pixel, int channel, const float (&values)[2]) {
        const int y = pixel / kMatrixSide, x = pixel % kMatrixSide;
        const int at = (job.window.y + y) * sampling.width + job.window.x + x;
        float* to = global + int64_t{at} * static_cast<int>(channels) + channel;
        // zero is also what stands beyond the window; NaN is not zero
        if (values[0] != 0.0f || values[1] != 0.0f) lanes.add_global_two(to, values);
      });
      return;
    }

    lanes.sync();  // the result takes the place of the matrix
    for_sums(row, pixels, sums, [&](int pixel, int channel, const float (&values)[2]) {
      float* to = memory.result + pixel * kMatrixChannels + channel;
      to[0] = values[0];
      to[1] = values[1];
    });
    lanes.sync();
    int strange = 0;
    for (int warp = 0; warp < kWarps; ++warp) strange |= memory.strange[warp];
    if (strange != 0) {
      for (int first = 0; first < plan.tiles.cells(); first += kMatrixCells) {
        const Cell cell = cell_of(plan.tiles, job.tile, first + row, params);
        const Points points(args.forward, sampling, cell);
        const auto add = [&](int y, int x, int c, float value) {
          lanes.add_shared(memory.result + (y * sampling.width + x) * kMatrixChannels + c, value);
        };
        if (cell.active) add_rest(job, points, cell, gradient_of(cell), sampling, lanes, add);
      }
      lanes.sync();
    }
    scalar_t* result = static_cast<scalar_t*>(args.grad_input) + job.image_start;
    for (int index = row; index < 2 * pixels; index += kMatrixCells) {
      const int half = index % 2 * kPerWords<scalar_t>;
      float values[kPerWords<scalar_t>];
#pragma unroll
      for (int c = 0; c < kPerWords<scalar_t>; ++c)
        values[c] = memory.result[index / 2 * kMatrixChannels + half + c];
      store_words(result + index / 2 * channels + half, pack<scalar_t>(values));
    }
  }
};

}  // namespace dcnv3
