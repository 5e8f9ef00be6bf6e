// How the work is shared out among blocks: computed on the host, read by the kernels.
//
// A cell is one output pixel of one group. A tile is a rectangle of output pixels times some
// neighbouring groups, all of one image.
#pragma once

#include "../dcnv3_geometry.h"

namespace dcnv3 {

constexpr int kWarp = 32;

// What the plans need to know of a GPU.
struct Device {
  int index;
  int multiprocessors;
  int64_t shared_bytes;  // dynamic shared memory that one block can have
  bool matrices;         // tensor cores with products of 16 x 8 x 16, also in bfloat16
};

DCNV3_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
DCNV3_HOST_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DCNV3_HOST_DEVICE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

DCNV3_HOST_DEVICE int bytes_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

inline bool is_aligned(const void* pointer, int bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// The kernels count pixels of an image, points of a cell and blocks in 32 bits, and elements of a
// tensor in 64. Returns null, or what is too large for that.
inline const char* why_too_large(const Params& p) {
  constexpr int64_t kMost = int64_t{1} << 30;
  // one by one first, so that no product below overflows
  const int64_t sizes[] = {p.batch,      p.height,    p.width,     p.groups,     p.depth,
                           p.out_height, p.out_width, p.kernel_h,  p.kernel_w,   p.stride_h,
                           p.stride_w,   p.padding_h, p.padding_w, p.dilation_h, p.dilation_w};
  for (const int64_t size : sizes)
    if (size > kMost)
      return "images, pixels of a side, groups, channels or settings number more than 2^30";
  const int64_t last_y = p.out_height * p.stride_h + p.padding_h + p.kernel_h * p.dilation_h;
  const int64_t last_x = p.out_width * p.stride_w + p.padding_w + p.kernel_w * p.dilation_w;
  if (last_y > kMost || last_x > kMost)
    return "the padded image or the dilated kernel has a side of more than 2^30 pixels";
  if (p.num_points() > kMost || p.groups * p.num_points() > kMost)
    return "there are more than 2^30 sampling points a pixel";
  if (p.batch * p.out_height > kMost || p.num_pixels() > kMost ||
      p.num_pixels() * p.groups > 8 * kMost / ceil_div(p.depth, 8))
    return "the output has more than 2^30 pixels or 2^36 elements";
  if (p.offset_stride > kMost || p.mask_stride > kMost)
    return "two pixels of the offsets or weights lie more than 2^30 elements apart";
  return nullptr;
}

// Division of numbers below 2^16 by a divisor below 2^16, by one multiplication: n (d m - 2^32) <
// 2^32 with m = ceil(2^32 / d), so that the high half of n m is the quotient.
struct Divisor {
  uint32_t multiplier;  // 0: the divisor is 1

  static Divisor of(int64_t divisor) {
    return {divisor == 1 ? 0u : static_cast<uint32_t>(ceil_div(int64_t{1} << 32, divisor))};
  }
  DCNV3_HOST_DEVICE int divide(int number) const {
    const uint64_t product = static_cast<uint64_t>(static_cast<uint32_t>(number)) * multiplier;
    return multiplier == 0 ? number : static_cast<int>(product >> 32);
  }
};

struct Tile {
  int image;
  int y, x;   // the first output pixel
  int group;  // the first group
};

// The number of threads that takes turns at `work` items with the fewest of them idle in the end:
// `most`, or down to half as many, in whole warps.
inline int fewest_idle(int64_t work, int most) {
  if (work <= most) return static_cast<int>(ceil_div(work, kWarp) * kWarp);
  int best = most;
  for (int threads = most; 2 * threads >= most; threads -= kWarp)
    if (ceil_div(work, threads) * threads < ceil_div(work, best) * best) best = threads;
  return best;
}

struct TilePlan {
  int height, width, groups;              // of a tile; those at the border may reach beyond it
  int tiles_y, tiles_x, tiles_of_groups;  // a block handles one tile
  int64_t blocks;
  int threads;  // of a block
  Divisor by_groups, by_width;

  // `height`, `width`, `groups`: of a tile at most. Tiles are of even size, so that none is nearly
  // empty.
  static TilePlan of(const Params& params, int64_t height, int64_t width, int64_t groups, int lanes,
                     int most_threads) {
    TilePlan plan{};
    plan.tiles_y = static_cast<int>(ceil_div(params.out_height, height));
    plan.tiles_x = static_cast<int>(ceil_div(params.out_width, width));
    plan.tiles_of_groups = static_cast<int>(ceil_div(params.groups, groups));
    plan.height = static_cast<int>(ceil_div(params.out_height, plan.tiles_y));
    plan.width = static_cast<int>(ceil_div(params.out_width, plan.tiles_x));
    plan.groups = static_cast<int>(ceil_div(params.groups, plan.tiles_of_groups));
    plan.blocks = params.batch * plan.tiles_y * plan.tiles_x * plan.tiles_of_groups;
    plan.threads = fewest_idle(int64_t{plan.cells()} * lanes, most_threads);
    plan.by_groups = Divisor::of(plan.groups);
    plan.by_width = Divisor::of(plan.width);
    return plan;
  }
  static TilePlan of(const Params& params, int64_t side, int64_t groups, int lanes,
                     int most_threads) {
    return of(params, side, side, groups, lanes, most_threads);
  }

  // Threads times their turns at the cells, idle ones included.
  int64_t turns(int lanes) const {
    return blocks * threads * ceil_div(int64_t{cells()} * lanes, threads);
  }

  DCNV3_HOST_DEVICE int cells() const { return height * width * groups; }

  // Neighbouring blocks have neighbouring groups, then neighbouring pixels.
  DCNV3_HOST_DEVICE Tile tile(int64_t block) const {
    uint32_t rest = static_cast<uint32_t>(block);
    Tile tile;
    tile.group = static_cast<int>(rest % tiles_of_groups) * groups;
    rest /= tiles_of_groups;
    tile.x = static_cast<int>(rest % tiles_x) * width;
    rest /= tiles_x;
    tile.y = static_cast<int>(rest % tiles_y) * height;
    tile.image = static_cast<int>(rest / tiles_y);
    return tile;
  }
};

struct Cell {
  int y, x, group;
  int pixel;    // number of the output pixel in the batch
  bool active;  // false for one beyond the tile or the output, which repeats another one
};

// Cell number `index` of a tile: groups fastest, then columns.
DCNV3_HOST_DEVICE Cell cell_of(const TilePlan& plan, const Tile& tile, int index,
                               const Params& params) {
  const int last = plan.cells() - 1;
  const int number = index < last ? index : last;
  const int pixel = plan.by_groups.divide(number);
  const int row = plan.by_width.divide(pixel);
  const int group = tile.group + number - pixel * plan.groups;
  const int y = tile.y + row;
  const int x = tile.x + pixel - row * plan.width;
  const int last_y = static_cast<int>(params.out_height) - 1;
  const int last_x = static_cast<int>(params.out_width) - 1;
  const int last_group = static_cast<int>(params.groups) - 1;
  Cell cell;
  cell.active = index <= last && y <= last_y && x <= last_x && group <= last_group;
  cell.y = y < last_y ? y : last_y;
  cell.x = x < last_x ? x : last_x;
  cell.group = group < last_group ? group : last_group;
  cell.pixel = (tile.image * (last_y + 1) + cell.y) * (last_x + 1) + cell.x;
  return cell;
}

// ------------------------------------------------------------------------- forward, and the
// gradients of offsets and weights

// The kernel that serves a call.
struct Route {
  int lanes;    // threads that share a cell
  bool vector;  // 16 or 32 channels a group, 16 bytes a thread, 3 x 3 points; else one number at a
                // time and any kernel
};

constexpr int kPlainLanes = 8;

inline bool has_nine_points(const Params& params) {
  return params.kernel_h == 3 && params.kernel_w == 3 && !params.remove_center;
}

// `other`: the second tensor of the input's dtype, output or grad_output.
inline Route choose_route(const ForwardArgs& args, const void* other) {
  const Params& p = args.params;
  const int64_t group_bytes = p.depth * bytes_of(args.dtype);
  const int64_t image_bytes = (p.height + 2) * (p.width + 2) * p.channels() * bytes_of(args.dtype);
  const bool vector = args.dtype != DType::kFloat64 && has_nine_points(p) &&
                      (p.depth == 16 || p.depth == 32) && image_bytes < (int64_t{1} << 31) &&
                      is_aligned(args.input, 16) && is_aligned(other, 16);
  return vector ? Route{static_cast<int>(group_bytes / 16), true} : Route{kPlainLanes, false};
}

constexpr int kTileThreads = 128;

// Tiles of 8 x 8 pixels keep the image's rows in the L1 cache, and 128 bytes of channels fill its
// lines. Tiles of 4 x 16 are nearly as good, and are taken where they leave fewer threads idle.
// Tiles shrink where they would leave multiprocessors without work.
inline TilePlan plan_tiles(const ForwardArgs& args, const Route& route, const Device& device) {
  const Params& p = args.params;
  const int64_t groups = larger(1, 128 / (p.depth * bytes_of(args.dtype)));
  TilePlan plan = TilePlan::of(p, 8, groups, route.lanes, kTileThreads);
  const TilePlan flat = TilePlan::of(p, 4, 16, groups, route.lanes, kTileThreads);
  if (flat.turns(route.lanes) < plan.turns(route.lanes)) plan = flat;
  for (int64_t side = 4; side >= 2 && plan.blocks < 2 * device.multiprocessors; side /= 2)
    plan = TilePlan::of(p, side, groups, route.lanes, kTileThreads);
  return plan;
}

// ------------------------------------------------------------------------- the gradient of the
// input

// A window is the rectangle of input pixels around a tile that a block sums up in shared memory.
// What falls outside is added to the sum in global memory, one number at a time.
struct WindowPlan {
  TilePlan tiles;       // of one group each
  int chunks_of_depth;  // blocks that share a group's channels
  int height, width;    // of the window before it is cut, input pixels; 0: no window
  int halo_y, halo_x;   // pixels that it reaches beyond the kernels' centres
  bool exclusive;       // the window is the whole image and nothing is added in global memory
  int64_t shared_bytes;
  int64_t blocks;
};

// As many as the registers allow.
constexpr int most_window_threads(bool is_double) { return is_double ? 512 : 1024; }

struct Window {
  int y, x;  // the first input pixel
  int height, width;

  DCNV3_HOST_DEVICE bool has_row(int row) const {
    return static_cast<uint32_t>(row) < static_cast<uint32_t>(height);
  }
  DCNV3_HOST_DEVICE bool has_column(int column) const {
    return static_cast<uint32_t>(column) < static_cast<uint32_t>(width);
  }
};

DCNV3_HOST_DEVICE int clamp(int64_t value, int64_t low, int64_t high) {
  return static_cast<int>(value < low ? low : value > high ? high : value);
}

// The window of a tile, cut at the image's borders.
template <class Plan>
DCNV3_HOST_DEVICE Window window_of(const Plan& plan, const Tile& tile, const Params& p) {
  if (plan.exclusive) return {0, 0, static_cast<int>(p.height), static_cast<int>(p.width)};
  const int64_t center_y = kernel_center(tile.y, p.stride_h, p.padding_h, p.kernel_h, p.dilation_h);
  const int64_t center_x = kernel_center(tile.x, p.stride_w, p.padding_w, p.kernel_w, p.dilation_w);
  const int top = clamp(center_y - plan.halo_y, 0, p.height);
  const int left = clamp(center_x - plan.halo_x, 0, p.width);
  const int bottom = clamp(center_y - plan.halo_y + plan.height, top, p.height);
  const int right = clamp(center_x - plan.halo_x + plan.width, left, p.width);
  return {top, left, bottom - top, right - left};
}

// Threads that share a cell where each has two channels.
inline int channel_lanes(const Params& params) { return params.depth <= 16 ? 8 : 16; }

inline int64_t window_pixel_bytes(const BackwardArgs& args) {
  const int64_t number = args.forward.dtype == DType::kFloat64 ? 8 : 4;
  return 2 * channel_lanes(args.forward.params) * number;
}

// A window with tiles of `side` x `side` pixels; without one (height 0) where the shared memory
// does not hold it.
inline WindowPlan plan_window(const BackwardArgs& args, const Device& device, int64_t side,
                              int64_t margin) {
  const Params& p = args.forward.params;
  WindowPlan plan{};
  const int lanes = channel_lanes(p);
  plan.chunks_of_depth = static_cast<int>(ceil_div(p.depth, 2 * lanes));
  plan.tiles = TilePlan::of(p, side, 1, lanes, 512);
  const double scale = p.offset_scale < 0 ? -p.offset_scale : p.offset_scale;
  const double reach_y = scale * (half_extent(p.kernel_h, p.dilation_h) + 1) + margin;
  const double reach_x = scale * (half_extent(p.kernel_w, p.dilation_w) + 1) + margin;
  plan.halo_y = static_cast<int>(reach_y < 1024 ? reach_y : 1024);
  plan.halo_x = static_cast<int>(reach_x < 1024 ? reach_x : 1024);
  // one pixel more below and to the right, for the second corner of a point
  plan.height = static_cast<int>((plan.tiles.height - 1) * p.stride_h + 2 + 2 * plan.halo_y);
  plan.width = static_cast<int>((plan.tiles.width - 1) * p.stride_w + 2 + 2 * plan.halo_x);
  plan.shared_bytes =
      smaller(plan.height, p.height) * smaller(plan.width, p.width) * window_pixel_bytes(args);
  plan.blocks = plan.tiles.blocks * plan.chunks_of_depth;
  if (plan.shared_bytes > device.shared_bytes) plan.height = plan.width = plan.shared_bytes = 0;
  return plan;
}

// Where one block can hold the whole image of a group and there are blocks enough, nothing has to
// be added in global memory. Otherwise tiles of 16 x 16 pixels, whose windows overlap.
inline WindowPlan plan_window(const BackwardArgs& args, const Device& device) {
  const Params& p = args.forward.params;
  const int64_t bytes = p.height * p.width * window_pixel_bytes(args);
  const int64_t blocks = p.batch * p.groups * ceil_div(p.depth, 2 * channel_lanes(p));
  const int64_t pixels = p.out_height * p.out_width;
  const bool enough = blocks >= device.multiprocessors || pixels <= 16 * 16;
  // the cells of a tile are counted in 16 bits, see Divisor
  if (bytes > device.shared_bytes || !enough || pixels >= (1 << 16))
    return plan_window(args, device, 16, 3);
  WindowPlan plan = plan_window(args, device, larger(p.out_height, p.out_width), 0);
  plan.exclusive = true;
  plan.height = static_cast<int>(p.height);
  plan.width = static_cast<int>(p.width);
  plan.shared_bytes = bytes;
  // alone on its multiprocessor, a block needs all the threads that it can have
  if (2 * bytes > device.shared_bytes)
    plan.tiles.threads = static_cast<int>(smaller(
        2 * plan.tiles.threads, most_window_threads(args.forward.dtype == DType::kFloat64)));
  return plan;
}

// The way over a product of matrices, see backward_matrix.h. Like windows, with a fixed number of
// cells and pixels; exclusive where a window holds the whole image.
constexpr int kMatrixCells = 64, kMatrixChannels = 16;
constexpr int kMatrixSide = 16, kMatrixPixels = kMatrixSide * kMatrixSide;

struct MatrixPlan {
  TilePlan tiles;  // of one group each
  int chunks_of_depth;
  int height, width, halo_y, halo_x;  // as in WindowPlan
  bool exclusive;
  bool fits;  // whether the way can be gone and is worth it
  int64_t shared_bytes;
  int64_t blocks;
};

inline MatrixPlan plan_matrix(const BackwardArgs& args, const Device& device) {
  const ForwardArgs& forward = args.forward;
  const Params& p = forward.params;
  MatrixPlan plan{};
  plan.exclusive = p.height * p.width <= kMatrixPixels &&  //
                   p.out_height * p.out_width < (1 << 16);
  const int64_t side = plan.exclusive ? larger(p.out_height, p.out_width) : 8;
  plan.tiles = TilePlan::of(p, side, 1, 1, kMatrixCells);
  plan.chunks_of_depth = static_cast<int>(ceil_div(p.depth, kMatrixChannels));
  plan.height = plan.exclusive ? static_cast<int>(p.height) : kMatrixSide;
  plan.width = plan.exclusive ? static_cast<int>(p.width) : kMatrixSide;
  // room for both corners of a point at either end
  plan.halo_y = static_cast<int>((kMatrixSide - 2 - (plan.tiles.height - 1) * p.stride_h) / 2);
  plan.halo_x = static_cast<int>((kMatrixSide - 2 - (plan.tiles.width - 1) * p.stride_w) / 2);
  plan.shared_bytes = kMatrixCells * (kMatrixPixels + 8 + kMatrixChannels + 8) * 2 + 16;
  plan.blocks = plan.tiles.blocks * plan.chunks_of_depth;
  // points of the regular grid, moved by one pixel, are to lie in the window
  const double scale = p.offset_scale < 0 ? -p.offset_scale : p.offset_scale;
  const bool reaches =
      scale * (p.dilation_h + 1) <= plan.halo_y && scale * (p.dilation_w + 1) <= plan.halo_x;
  // weights that are no softmax can leave the range of float16
  const bool in_range = p.softmax || forward.dtype == DType::kBFloat16;
  plan.fits = device.matrices && plan.shared_bytes <= device.shared_bytes &&
              bytes_of(forward.dtype) == 2 && in_range && has_nine_points(p) &&
              p.depth % kMatrixChannels == 0 && is_aligned(args.grad_output, 16) &&
              is_aligned(args.grad_input, 16) && (plan.exclusive || reaches);
  return plan;
}

// The deterministic way: a team of lanes owns a share of the output rows of one image and group,
// adds up alone in a copy of the gradient, and the copies are added in a fixed order. The number of
// shares depends on the shapes only.
struct OwnerPlan {
  int chunks_of_depth;
  int chunks;  // of rows, and copies of the gradient
  int rows;    // of a chunk; the last one may have fewer
  int64_t teams;
  int64_t blocks;
};

constexpr int kOwnerThreads = 64;

inline OwnerPlan plan_owners(const Params& p) {
  constexpr int64_t kMostChunks = 8, kTeams = 4096;
  OwnerPlan plan{};
  const int lanes = channel_lanes(p);
  plan.chunks_of_depth = static_cast<int>(ceil_div(p.depth, 2 * lanes));
  const int64_t owners = p.batch * p.groups * plan.chunks_of_depth;
  const int64_t wanted = smaller(kMostChunks, ceil_div(kTeams, larger(owners, 1)));
  plan.rows = static_cast<int>(ceil_div(p.out_height, larger(1, smaller(wanted, p.out_height))));
  plan.chunks = static_cast<int>(ceil_div(p.out_height, plan.rows));
  plan.teams = owners * plan.chunks;
  plan.blocks = ceil_div(plan.teams * lanes, kOwnerThreads);
  return plan;
}

// Numbers of the type of calculation that a backward pass needs in `BackwardArgs::partial`.
inline int64_t partial_numbers(const BackwardArgs& args, const Device& device, bool deterministic) {
  const Params& params = args.forward.params;
  const int64_t numbers = params.batch * params.height * params.width * params.channels();
  if (deterministic) return numbers * plan_owners(params).chunks;
  const MatrixPlan matrix = plan_matrix(args, device);
  if (matrix.fits ? matrix.exclusive : plan_window(args, device).exclusive) return 0;
  const bool in_place = args.forward.dtype == DType::kFloat32 ||
                        args.forward.dtype == DType::kFloat64;  // the result is the sum itself
  return in_place ? 0 : numbers;
}

}  // namespace dcnv3
