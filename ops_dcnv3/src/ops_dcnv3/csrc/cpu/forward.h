// Forward pass on the CPU: a thread takes a run of output pixels and, for each, all groups.
#pragma once

#include "points.h"

namespace dcnv3 {
namespace DCNV3_LEVEL {

// What the geometry leaves for the sums: four weights and four addresses a point, one array after
// another for the four corners. The distance between those arrays is a constant for the usual
// kernels, so that one register addresses all of them.
template <typename acc_t>
struct Corners {
  acc_t* weight;    // bilinear weight times the point's weight
  int32_t* index;   // elements from the image's start, see Note [Outside corners]
  int64_t* offset;  // elements from the image's start; outside corners lead to a row of zeros
  int64_t pitch;    // points from the array of one corner to that of the next
};

DCNV3_HOST_DEVICE int64_t corner_pitch(int64_t num_points) {
  return num_points > kBatchPoints ? round_up(num_points, kPointAlignment) : kBatchPoints;
}

template <typename acc_t>
struct ForwardScratch {
  acc_t* grid_x;  // offset_scale times the regular grid, for every point of a batch
  acc_t* grid_y;
  acc_t* offsets;  // converted from 16 bits
  acc_t* logits;   // converted from 16 bits
  acc_t* weights;  // exponentials
  acc_t* inverse_sum;
  acc_t* zeros;  // C zeros
  Corners<acc_t> corners;

  ForwardScratch(const Params& params, Arena& arena) {
    const int64_t cells = cells_per_batch(params.num_points());
    const int64_t points = cells * params.num_points();
    grid_x = arena.array<acc_t>(points);
    grid_y = arena.array<acc_t>(points);
    offsets = arena.array<acc_t>(2 * points);
    logits = arena.array<acc_t>(points);
    weights = arena.array<acc_t>(points);
    inverse_sum = arena.array<acc_t>(cells);
    zeros = arena.array<acc_t>(params.channels());
    corners.pitch = corner_pitch(params.num_points());
    corners.weight = arena.array<acc_t>(4 * corners.pitch);
    corners.index = arena.array<int32_t>(4 * corners.pitch);
    corners.offset = arena.array<int64_t>(4 * corners.pitch);
  }
};

// Strides of one image, elements.
struct Image {
  int64_t rows, columns;
  int64_t row_stride, pixel_stride;
  int64_t zeros;  // from the image's start to the row of zeros
};

// Note [Outside corners]: a row or column outside adds 2 * kOutside to the index. Then any corner
// outside has an index of at least kOutside, negative ones included as they wrap, and no other has.
// A second loop widens the indices and leads those corners to the zeros.
constexpr uint32_t kOutside = uint32_t(1) << 29;

// Finds the corners of the kLanes points from number k on; for images of less than kOutside
// elements.
template <int kLanes>
DCNV3_HOST_DEVICE void find_corners_lanes(const Batch<float>& batch, const Image& image, int64_t k,
                                          const Corners<float>& corners) {
  using I = Vector<int32_t, kLanes>;
  const auto at = locate_lanes<kLanes>(batch, k);
  const auto lower = at.weight * at.frac_y, upper = at.weight - lower;
  const auto lower_right = lower * at.frac_x, upper_right = upper * at.frac_x;
  float* weight = corners.weight + k;
  store<kLanes>(weight, upper - upper_right);
  store<kLanes>(weight + corners.pitch, upper_right);
  store<kLanes>(weight + 2 * corners.pitch, lower - lower_right);
  store<kLanes>(weight + 3 * corners.pitch, lower_right);
  const int32_t row_stride = static_cast<int32_t>(image.row_stride);
  const int32_t pixel_stride = static_cast<int32_t>(image.pixel_stride);
  const I outside = I{} + static_cast<int32_t>(2 * kOutside);
  const I column = at.x * pixel_stride, row = at.y * row_stride;
  using U = Vector<uint32_t, kLanes>;  // the sums wrap
  const U left = bit_cast<U>(at.x >= 0 ? column : outside);
  const U right =
      bit_cast<U>(at.x < static_cast<int32_t>(image.columns) - 1 ? column + pixel_stride : outside);
  const U top = bit_cast<U>(at.y >= 0 ? row : outside);
  const U bottom =
      bit_cast<U>(at.y < static_cast<int32_t>(image.rows) - 1 ? row + row_stride : outside);
  int32_t* index = corners.index + k;
  store<kLanes>(index, bit_cast<I>(top + left));
  store<kLanes>(index + corners.pitch, bit_cast<I>(top + right));
  store<kLanes>(index + 2 * corners.pitch, bit_cast<I>(bottom + left));
  store<kLanes>(index + 3 * corners.pitch, bit_cast<I>(bottom + right));
}

// The same for one point, any type and any size of image.
template <typename acc_t>
void find_corners_one(const Batch<acc_t>& batch, const Image& image, int64_t k,
                      const Corners<acc_t>& corners) {
  const auto at = locate_one(batch, k);
  for (int corner = 0; corner < 4; ++corner) {
    const int64_t y = at.y + corner / 2, x = at.x + corner % 2;
    const bool inside = y >= 0 && y < image.rows && x >= 0 && x < image.columns;
    const acc_t weight_y = corner / 2 ? at.frac_y : 1 - at.frac_y;
    const acc_t weight_x = corner % 2 ? at.frac_x : 1 - at.frac_x;
    corners.weight[corner * corners.pitch + k] = at.weight * weight_y * weight_x;
    corners.offset[corner * corners.pitch + k] =
        inside ? y * image.row_stride + x * image.pixel_stride : image.zeros;
  }
}

template <typename acc_t>
void find_corners(const Batch<acc_t>& batch, const Image& image, int64_t count,
                  const Corners<acc_t>& corners) {
  if constexpr (sizeof(acc_t) == 4) {
    constexpr int kLanes = kMaxLanes<acc_t>;
    if (count >= kLanes && image.rows * image.row_stride < static_cast<int64_t>(kOutside)) {
      for (int64_t k = 0; k < count;
           k += kLanes)  // the last vector overlaps the one before: no read past the end
        find_corners_lanes<kLanes>(batch, image, k + kLanes <= count ? k : count - kLanes, corners);
      for (int corner = 0; corner < 4; ++corner) {
        const int32_t* __restrict index = corners.index + corner * corners.pitch;
        int64_t* __restrict to = corners.offset + corner * corners.pitch;
        const int64_t zeros = image.zeros;
        const int64_t whole =
            round_up(count, kPointAlignment);  // what lies behind `count` is never used
        for (int64_t k = 0; k < whole; ++k)
          to[k] =
              static_cast<uint32_t>(index[k]) >= kOutside ? zeros : static_cast<int64_t>(index[k]);
      }
      return;
    }
  }
  for (int64_t k = 0; k < count; ++k) find_corners_one(batch, image, k, corners);
}

// `zeros` may lie anywhere, so the address is computed as a number.
template <typename scalar_t>
DCNV3_HOST_DEVICE const scalar_t* at_offset(const scalar_t* base, int64_t elements) {
  return reinterpret_cast<const scalar_t*>(reinterpret_cast<uintptr_t>(base) +
                                           static_cast<uintptr_t>(elements) * sizeof(scalar_t));
}

// Sums kVectors * kLanes channels of one cell, whose points `weight` and `offset` begin with.
template <int kLanes, int kVectors, int kPoints, typename scalar_t, typename acc_t>
DCNV3_HOST_DEVICE void sum_channels(const scalar_t* image, const acc_t* weight,
                                    const int64_t* offset, int64_t pitch, int64_t num_points,
                                    acc_t factor, scalar_t* output) {
  using V = Vector<acc_t, kLanes>;
  const int64_t points = kPoints > 0 ? kPoints : num_points;
  const int64_t stride = kPoints > 0 ? kBatchPoints : pitch;
  V even[kVectors], odd[kVectors];  // two chains hide the latency of the additions
  for (int v = 0; v < kVectors; ++v) even[v] = odd[v] = V{};
#pragma GCC unroll 16
  for (int64_t p = 0; p < points; ++p) {
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const scalar_t* from = at_offset(image, offset[corner * stride + p]);
      const acc_t w = weight[corner * stride + p];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        V& sum = corner % 2 ? odd[v] : even[v];
        sum += w * load<kLanes>(from + v * kLanes);
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v)
    store<kLanes>(output + v * kLanes, (even[v] + odd[v]) * factor);
}

// Sums the channels from `c` on with vectors of kLanes, then of half of that, then one by one.
template <int kLanes, int kPoints, typename scalar_t, typename acc_t>
DCNV3_HOST_DEVICE void sum_rest(int64_t c, const scalar_t* image, const acc_t* weight,
                                const int64_t* offset, int64_t pitch, int64_t num_points,
                                int64_t depth, acc_t factor, scalar_t* output) {
  for (; c + kLanes <= depth; c += kLanes)
    sum_channels<kLanes, 1, kPoints>(image + c, weight, offset, pitch, num_points, factor,
                                     output + c);
  if constexpr (kLanes > kMinLanes<acc_t>) {
    sum_rest<kLanes / 2, kPoints>(c, image, weight, offset, pitch, num_points, depth, factor,
                                  output);
  } else {
    for (; c < depth; ++c) {
      acc_t sum = 0;
      for (int64_t p = 0; p < num_points; ++p)
        for (int corner = 0; corner < 4; ++corner)
          sum += weight[corner * pitch + p] *
                 to_compute(*at_offset(image + c, offset[corner * pitch + p]));
      output[c] = from_compute<scalar_t>(sum * factor);
    }
  }
}

template <int kPoints, typename scalar_t, typename acc_t>
DCNV3_HOST_DEVICE void sum_cell(const scalar_t* image, const acc_t* weight, const int64_t* offset,
                                int64_t pitch, int64_t num_points, int64_t depth, acc_t factor,
                                scalar_t* output) {
  constexpr int kLanes = kMaxLanes<acc_t>;
  int64_t c = 0;
  for (; c + 4 * kLanes <= depth; c += 4 * kLanes)
    sum_channels<kLanes, 4, kPoints>(image + c, weight, offset, pitch, num_points, factor,
                                     output + c);
  for (; c + 2 * kLanes <= depth; c += 2 * kLanes)
    sum_channels<kLanes, 2, kPoints>(image + c, weight, offset, pitch, num_points, factor,
                                     output + c);
  sum_rest<kLanes, kPoints>(c, image, weight, offset, pitch, num_points, depth, factor, output);
}

template <int kPoints, typename scalar_t>
void forward_pixels(const ForwardArgs& args, int64_t begin, int64_t end, Arena arena) {
  using acc_t = typename Compute<scalar_t>::type;
  const Params& params = args.params;
  const int64_t points = params.num_points(), channels = params.channels();
  const int64_t image_size = params.height * params.width * channels;
  ForwardScratch<acc_t> scratch(params, arena);
  const Corners<acc_t>& corners = scratch.corners;
  for (int64_t c = 0; c < channels; ++c) scratch.zeros[c] = 0;
  const int64_t batch_cells = cells_per_batch(points);  // groups of one pixel
  fill_grid(params, batch_cells, 0, scratch.grid_x, scratch.grid_y);
  Batch<acc_t> batch{};
  batch.grid_x = scratch.grid_x;
  batch.grid_y = scratch.grid_y;
  batch.scale = static_cast<acc_t>(params.offset_scale);
  batch.height = static_cast<acc_t>(params.height);
  batch.width = static_cast<acc_t>(params.width);
  Image image{params.height, params.width, params.width * channels, channels, 0};

  int64_t x = begin % params.out_width;
  int64_t y = begin / params.out_width % params.out_height;
  int64_t n = begin / params.out_width / params.out_height;
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const scalar_t* input = static_cast<const scalar_t*>(args.input) + n * image_size;
    scalar_t* output = static_cast<scalar_t*>(args.output) + pixel * channels;
    image.zeros = static_cast<int64_t>(reinterpret_cast<uintptr_t>(scratch.zeros) -
                                       reinterpret_cast<uintptr_t>(input)) /
                  static_cast<int64_t>(sizeof(scalar_t));
    batch.base_y = static_cast<acc_t>(
        kernel_center(y, params.stride_h, params.padding_h, params.kernel_h, params.dilation_h));
    batch.base_x = static_cast<acc_t>(
        kernel_center(x, params.stride_w, params.padding_w, params.kernel_w, params.dilation_w));
    for (int64_t g = 0; g < params.groups; g += batch_cells) {
      const int64_t cells = params.groups - g < batch_cells ? params.groups - g : batch_cells;
      const int64_t count = cells * points;
      batch.offset =
          widen(args.offset, args.offset_dtype, pixel * params.offset_stride + g * points * 2,
                2 * count, scratch.offsets);
      batch.weight = widen(args.mask, args.mask_dtype, pixel * params.mask_stride + g * points,
                           count, scratch.logits);
      if (params.softmax) {
        exponentials<kPoints>(batch.weight, points, cells, scratch.weights, scratch.inverse_sum);
        batch.weight = scratch.weights;
      }
      find_corners(batch, image, count, corners);
      for (int64_t cell = 0; cell < cells; ++cell) {
        const int64_t channel = (g + cell) * params.depth;
        const acc_t factor = params.softmax ? scratch.inverse_sum[cell] : acc_t(1);
        sum_cell<kPoints>(input + channel, corners.weight + cell * points,
                          corners.offset + cell * points, corners.pitch, points, params.depth,
                          factor, output + channel);
      }
    }
    if (++x == params.out_width) {
      x = 0;
      if (++y == params.out_height) {
        y = 0;
        ++n;
      }
    }
  }
}

}  // namespace DCNV3_LEVEL
}  // namespace dcnv3
