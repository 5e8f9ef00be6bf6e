// Backward pass on the CPU. A thread takes one group of one image at a time, and works on copies of
// its value and of its gradient: contiguous, in the type of calculation, with a border of zeros.
//
// Note [Border]: rows -2 to H and columns -2 to W. Contributing points have their upper left corner
// in
// [-1, H-1] x [-1, W-1], all others are put at (-2, -2), where all four corners are zeros. So the
// inner loop has neither branches nor masks, and what it adds to the border is dropped.
//
// Each (image, group) has one owner: no atomics, and the same result at every run. Where there are
// fewer of them than threads, output rows are split as well, and the partial gradients are added in
// a fixed order.
#pragma once

#include "points.h"

namespace dcnv3 {
namespace DCNV3_LEVEL {

constexpr int64_t kBorderBefore = 2;
constexpr int64_t kBorder = 3;  // before and after

// D rounded up to whole vectors, of the widest kind that D fills more than half of.
template <typename acc_t>
DCNV3_HOST_DEVICE int64_t padded_depth(int64_t depth) {
  int64_t lanes = kMinLanes<acc_t>;
  while (lanes < depth && lanes < kMaxLanes<acc_t>) lanes *= 2;
  return round_up(depth, lanes);
}

template <typename acc_t>
struct BackwardScratch {
  using bits_t = typename Bits<acc_t>::type;
  int64_t depth;       // padded
  int64_t row_stride;  // elements
  int64_t plane_size;  // elements
  acc_t* value;        // (H + 3, W + 3, depth)
  acc_t* grad_value;   // likewise

  // for the points of a batch
  acc_t* grid_x;
  acc_t* grid_y;
  acc_t* offset;  // (points, 2)
  acc_t* logit;
  acc_t* weight;
  acc_t* frac_y;
  acc_t* frac_x;
  acc_t* point_weight;  // weight, or 0 where the point contributes nothing
  bits_t* contributes;  // all bits set, or 0
  acc_t* corner_weight[4];
  int32_t* index32;
  int64_t* index;      // of the upper left corner in `value`, elements
  acc_t* dot;          // (points, 4): the gradient of the output times the value at each corner
  acc_t* grad_offset;  // (points, 2)
  acc_t* grad_weight;

  acc_t* inverse_sum;  // for the cells of a batch
  acc_t* grad_output;  // for one cell, padded

  BackwardScratch(const Params& params, Arena& arena) {
    depth = padded_depth<acc_t>(params.depth);
    row_stride = (params.width + kBorder) * depth;
    plane_size = (params.height + kBorder) * row_stride;
    value = arena.array<acc_t>(plane_size);
    grad_value = arena.array<acc_t>(plane_size);
    const int64_t cells = cells_per_batch(params.num_points());
    const int64_t points = round_up(cells * params.num_points(), kPointAlignment);
    grid_x = arena.array<acc_t>(points);
    grid_y = arena.array<acc_t>(points);
    logit = arena.array<acc_t>(points);
    weight = arena.array<acc_t>(points);
    frac_y = arena.array<acc_t>(points);
    frac_x = arena.array<acc_t>(points);
    point_weight = arena.array<acc_t>(points);
    contributes = arena.array<bits_t>(points);
    grad_weight = arena.array<acc_t>(points);
    for (int corner = 0; corner < 4; ++corner) corner_weight[corner] = arena.array<acc_t>(points);
    offset = arena.array<acc_t>(2 * points);
    grad_offset = arena.array<acc_t>(2 * points);
    dot = arena.array<acc_t>(4 * points);
    index32 = arena.array<int32_t>(points);
    index = arena.array<int64_t>(points);
    inverse_sum = arena.array<acc_t>(cells);
    grad_output = arena.array<acc_t>(depth);
  }
};

template <typename acc_t, typename scalar_t>
void read_plane(const scalar_t* input, const Params& params,
                const BackwardScratch<acc_t>& scratch) {
  for (int64_t y = 0; y < params.height; ++y) {
    acc_t* row =
        scratch.value + (y + kBorderBefore) * scratch.row_stride + kBorderBefore * scratch.depth;
    for (int64_t x = 0; x < params.width; ++x) {
      const scalar_t* pixel = input + (y * params.width + x) * params.channels();
      for (int64_t c = 0; c < params.depth; ++c) row[x * scratch.depth + c] = to_compute(pixel[c]);
    }
  }
}

template <typename scalar_t, typename acc_t>
void write_plane(const BackwardScratch<acc_t>& scratch, const Params& params,
                 scalar_t* grad_input) {
  for (int64_t y = 0; y < params.height; ++y) {
    const acc_t* row = scratch.grad_value + (y + kBorderBefore) * scratch.row_stride +
                       kBorderBefore * scratch.depth;
    for (int64_t x = 0; x < params.width; ++x) {
      scalar_t* pixel = grad_input + (y * params.width + x) * params.channels();
      for (int64_t c = 0; c < params.depth; ++c)
        pixel[c] = from_compute<scalar_t>(row[x * scratch.depth + c]);
    }
  }
}

// Fills frac_*, point_weight, corner_weight and index for `count` points.
template <typename acc_t>
void find_points(const Batch<acc_t>& batch, int64_t count, const BackwardScratch<acc_t>& scratch) {
  if constexpr (sizeof(acc_t) == 4) {
    if (scratch.plane_size < (int64_t(1) << 31)) {
      constexpr int kLanes = kMaxLanes<acc_t>;
      const int32_t row_stride = static_cast<int32_t>(scratch.row_stride);
      const int32_t depth = static_cast<int32_t>(scratch.depth);
      for (int64_t k = 0; k < count; k += kLanes) {  // arrays hold whole vectors
        const auto at = locate_lanes<kLanes>(batch, k);
        const auto lower = at.weight * at.frac_y, upper = at.weight - lower;
        const auto lower_right = lower * at.frac_x, upper_right = upper * at.frac_x;
        store<kLanes>(scratch.frac_y + k, at.frac_y);
        store<kLanes>(scratch.frac_x + k, at.frac_x);
        store<kLanes>(scratch.point_weight + k, at.weight);
        store<kLanes>(scratch.contributes + k, at.y >= -1);  // a true comparison is -1
        store<kLanes>(scratch.corner_weight[0] + k, upper - upper_right);
        store<kLanes>(scratch.corner_weight[1] + k, upper_right);
        store<kLanes>(scratch.corner_weight[2] + k, lower - lower_right);
        store<kLanes>(scratch.corner_weight[3] + k, lower_right);
        store<kLanes>(scratch.index32 + k, (at.y + int32_t(kBorderBefore)) * row_stride +
                                               (at.x + int32_t(kBorderBefore)) * depth);
      }
      for (int64_t k = 0; k < count; ++k) scratch.index[k] = scratch.index32[k];
      return;
    }
  }
  for (int64_t k = 0; k < count; ++k) {
    const auto at = locate_one(batch, k);
    const acc_t lower = at.weight * at.frac_y, upper = at.weight - lower;
    scratch.frac_y[k] = at.frac_y;
    scratch.frac_x[k] = at.frac_x;
    scratch.point_weight[k] = at.weight;
    scratch.contributes[k] = at.y >= -1 ? -1 : 0;
    scratch.corner_weight[0][k] = upper - upper * at.frac_x;
    scratch.corner_weight[1][k] = upper * at.frac_x;
    scratch.corner_weight[2][k] = lower - lower * at.frac_x;
    scratch.corner_weight[3][k] = lower * at.frac_x;
    scratch.index[k] =
        (at.y + kBorderBefore) * scratch.row_stride + (at.x + kBorderBefore) * scratch.depth;
  }
}

// The inner loop, for the points of one cell from `first` on: the four dot products of each, and
// its share of the gradient of the value. kVectors = 0 stands for any number.
template <int kLanes, int kVectors, int kPoints, typename acc_t>
DCNV3_HOST_DEVICE void accumulate_cell(const BackwardScratch<acc_t>& scratch, const acc_t* grad,
                                       int64_t first, int64_t num_points) {
  using V = Vector<acc_t, kLanes>;
  const int64_t points = kPoints > 0 ? kPoints : num_points;
  const int64_t vectors = kVectors > 0 ? kVectors : scratch.depth / kLanes;
  const int64_t depth = kVectors > 0 ? kVectors * kLanes : scratch.depth;
  const int64_t row_stride = scratch.row_stride;
  for (int64_t p = first; p < first + points; ++p) {
    const acc_t* value = scratch.value + scratch.index[p];
    acc_t* grad_value = scratch.grad_value + scratch.index[p];
    const int64_t corner_offset[4] = {0, depth, row_stride, row_stride + depth};
    V dot[4] = {};
    for (int64_t v = 0; v < vectors; ++v) {
      const V g = load<kLanes>(grad + v * kLanes);
#pragma GCC unroll 4
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t at = corner_offset[corner] + v * kLanes;
        dot[corner] += g * load<kLanes>(value + at);
        store<kLanes>(grad_value + at,
                      load<kLanes>(grad_value + at) + scratch.corner_weight[corner][p] * g);
      }
    }
    store_sums<kLanes>(scratch.dot + 4 * p, dot[0], dot[1], dot[2], dot[3]);
  }
}

template <int kPoints, typename acc_t>
DCNV3_HOST_DEVICE void accumulate(const BackwardScratch<acc_t>& scratch, const acc_t* grad,
                                  int64_t first, int64_t num_points) {
  constexpr int kWide = kMaxLanes<acc_t>;
  if (scratch.depth == kWide)
    accumulate_cell<kWide, 1, kPoints>(scratch, grad, first, num_points);
  else if (scratch.depth == 2 * kWide)
    accumulate_cell<kWide, 2, kPoints>(scratch, grad, first, num_points);
  else if (scratch.depth % kWide == 0)
    accumulate_cell<kWide, 0, kPoints>(scratch, grad, first, num_points);
  else
    accumulate_cell<kMinLanes<acc_t>, 0, kPoints>(scratch, grad, first, num_points);
}

// From the dot products to the gradients of offsets and weights. A point that contributes nothing
// gets zeros even where the gradient of the output is infinite, as it is after an overflow.
template <typename acc_t>
void finish_points(acc_t scale, int64_t count, const BackwardScratch<acc_t>& scratch) {
  const acc_t* __restrict dot = scratch.dot;
  const acc_t* __restrict frac_y = scratch.frac_y;
  const acc_t* __restrict frac_x = scratch.frac_x;
  const acc_t* __restrict point_weight = scratch.point_weight;
  const typename Bits<acc_t>::type* __restrict contributes = scratch.contributes;
  acc_t* __restrict grad_offset = scratch.grad_offset;
  acc_t* __restrict grad_weight = scratch.grad_weight;
  for (int64_t k = 0; k < count; ++k) {
    const acc_t upper_slope = dot[4 * k + 1] - dot[4 * k];
    const acc_t lower_slope = dot[4 * k + 3] - dot[4 * k + 2];
    const acc_t upper = dot[4 * k] + frac_x[k] * upper_slope;
    const acc_t lower = dot[4 * k + 2] + frac_x[k] * lower_slope;
    const acc_t factor = scale * point_weight[k];
    const acc_t along_weight = upper + frac_y[k] * (lower - upper);
    const acc_t along_x = factor * (upper_slope + frac_y[k] * (lower_slope - upper_slope));
    const acc_t along_y = factor * (lower - upper);
    grad_weight[k] = keep_bits(along_weight, contributes[k]);
    grad_offset[2 * k] = keep_bits(along_x, contributes[k]);
    grad_offset[2 * k + 1] = keep_bits(along_y, contributes[k]);
  }
}

// Turns gradients of normalised weights into those of the logits, for each cell.
template <int kPoints, typename acc_t>
void softmax_gradient(int64_t num_points, int64_t cells, const BackwardScratch<acc_t>& scratch) {
  const int64_t points = kPoints > 0 ? kPoints : num_points;
  for (int64_t cell = 0; cell < cells; ++cell) {
    const acc_t* weight = scratch.weight + cell * points;
    acc_t* grad = scratch.grad_weight + cell * points;
    acc_t mean = 0;
    for (int64_t p = 0; p < points; ++p) mean += weight[p] * grad[p];
    for (int64_t p = 0; p < points; ++p) grad[p] = weight[p] * (grad[p] - mean);
  }
}

// One cell's gradient in whole vectors of the type of calculation: in place if it is stored so,
// else copied.
template <typename scalar_t, typename acc_t>
DCNV3_HOST_DEVICE const acc_t* padded(const scalar_t* grad, int64_t depth,
                                      const BackwardScratch<acc_t>& scratch) {
  if constexpr (sizeof(scalar_t) == sizeof(acc_t)) {
    if (depth == scratch.depth) return grad;
  }
  for (int64_t c = 0; c < depth; ++c) scratch.grad_output[c] = to_compute(grad[c]);
  return scratch.grad_output;
}

// Output rows [first_row, last_row) of group g of image n; adds to scratch.grad_value.
template <int kPoints, typename scalar_t, typename acc_t>
void backward_rows(const BackwardArgs& args, int64_t n, int64_t g, int64_t first_row,
                   int64_t last_row, const BackwardScratch<acc_t>& scratch) {
  const ForwardArgs& forward = args.forward;
  const Params& params = forward.params;
  const int64_t points = kPoints > 0 ? kPoints : params.num_points();
  const int64_t batch_cells = cells_per_batch(points);  // output pixels of one row
  Batch<acc_t> batch{};
  batch.grid_x = scratch.grid_x;
  batch.grid_y = scratch.grid_y;
  batch.offset = scratch.offset;
  batch.weight = scratch.weight;
  batch.scale = static_cast<acc_t>(params.offset_scale);
  batch.height = static_cast<acc_t>(params.height);
  batch.width = static_cast<acc_t>(params.width);
  for (int64_t y = first_row; y < last_row; ++y) {
    batch.base_y = static_cast<acc_t>(
        kernel_center(y, params.stride_h, params.padding_h, params.kernel_h, params.dilation_h));
    for (int64_t x = 0; x < params.out_width; x += batch_cells) {
      const int64_t cells = params.out_width - x < batch_cells ? params.out_width - x : batch_cells;
      const int64_t count = cells * points;
      const int64_t pixel = (n * params.out_height + y) * params.out_width + x;
      batch.base_x = static_cast<acc_t>(
          kernel_center(x, params.stride_w, params.padding_w, params.kernel_w, params.dilation_w));
      collect<2 * kPoints>(forward.offset, forward.offset_dtype,
                           pixel * params.offset_stride + g * points * 2, params.offset_stride,
                           cells, 2 * points, scratch.offset);
      collect<kPoints>(forward.mask, forward.mask_dtype, pixel * params.mask_stride + g * points,
                       params.mask_stride, cells, points,
                       params.softmax ? scratch.logit : scratch.weight);
      if (params.softmax) {
        exponentials<kPoints>(scratch.logit, points, cells, scratch.weight, scratch.inverse_sum);
        for (int64_t cell = 0; cell < cells; ++cell)
          for (int64_t p = 0; p < points; ++p)
            scratch.weight[cell * points + p] *= scratch.inverse_sum[cell];
      }
      find_points(batch, count, scratch);
      for (int64_t cell = 0; cell < cells; ++cell) {
        const scalar_t* grad = static_cast<const scalar_t*>(args.grad_output) +
                               (pixel + cell) * params.channels() + g * params.depth;
        accumulate<kPoints>(scratch, padded(grad, params.depth, scratch), cell * points, points);
      }
      finish_points(batch.scale, count, scratch);
      if (params.softmax) softmax_gradient<kPoints>(points, cells, scratch);
      distribute<2 * kPoints>(scratch.grad_offset, cells, 2 * points, forward.offset_dtype,
                              pixel * args.grad_offset_stride + g * points * 2,
                              args.grad_offset_stride, args.grad_offset);
      distribute<kPoints>(scratch.grad_weight, cells, points, forward.mask_dtype,
                          pixel * args.grad_mask_stride + g * points, args.grad_mask_stride,
                          args.grad_mask);
    }
  }
}

// Work items [begin, end) of N * G * chunks: item = (n * G + g) * chunks + chunk.
template <int kPoints, typename scalar_t>
void backward_items(const BackwardArgs& args, int64_t begin, int64_t end, Arena arena) {
  using acc_t = typename Compute<scalar_t>::type;
  const Params& params = args.forward.params;
  const BackwardScratch<acc_t> scratch(params, arena);
  fill_grid(params, cells_per_batch(params.num_points()), params.stride_w, scratch.grid_x,
            scratch.grid_y);
  for (int64_t c = 0; c < scratch.depth; ++c) scratch.grad_output[c] = 0;
  for (int64_t k = 0; k < scratch.plane_size; ++k) scratch.value[k] = 0;  // the border stays so
  const int64_t image_size = params.height * params.width * params.channels();
  for (int64_t item = begin; item < end; ++item) {
    const int64_t chunk = item % args.chunks, g = item / args.chunks % params.groups;
    const int64_t n = item / args.chunks / params.groups;
    const int64_t plane = n * image_size + g * params.depth;
    for (int64_t k = 0; k < scratch.plane_size; ++k) scratch.grad_value[k] = 0;
    read_plane(static_cast<const scalar_t*>(args.forward.input) + plane, params, scratch);
    backward_rows<kPoints, scalar_t>(args, n, g, params.out_height * chunk / args.chunks,
                                     params.out_height * (chunk + 1) / args.chunks, scratch);
    if (args.chunks == 1)
      write_plane(scratch, params, static_cast<scalar_t*>(args.grad_input) + plane);
    else
      write_plane(scratch, params,
                  static_cast<acc_t*>(args.partial) + chunk * params.batch * image_size + plane);
  }
}

// Adds the partial gradients of elements [begin, end) of the input.
template <typename scalar_t>
void add_partial(const BackwardArgs& args, int64_t begin, int64_t end) {
  using acc_t = typename Compute<scalar_t>::type;
  const Params& params = args.forward.params;
  const int64_t size = params.batch * params.height * params.width * params.channels();
  const acc_t* partial = static_cast<const acc_t*>(args.partial);
  for (int64_t k = begin; k < end; ++k) {
    acc_t sum = partial[k];
    for (int64_t chunk = 1; chunk < args.chunks; ++chunk) sum += partial[chunk * size + k];
    static_cast<scalar_t*>(args.grad_input)[k] = from_compute<scalar_t>(sum);
  }
}

}  // namespace DCNV3_LEVEL
}  // namespace dcnv3
