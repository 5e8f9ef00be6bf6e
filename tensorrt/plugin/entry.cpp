// From a Dcnv3Call to the arguments of the operator's kernel, every number of it checked: a
// plugin's node may say anything.
#include "entry.h"

#include <initializer_list>

#include "cuda/launch.h"
#include "message.h"

namespace {

using dcnv3::DType;
using dcnv3::ForwardArgs;
using dcnv3::Params;

// What the last call of this thread returned. A thread's own: TensorRT runs several contexts at a
// time, and the text must stay until the caller has read it.
thread_local dcnv3::Message message;

struct Rule {
  const char* name;
  int64_t value, least;
};

const char* check_numbers(const Dcnv3Call& call) {
  // offset_scale and the product of all sizes are checked elsewhere, see why_too_large()
  // The product of any two then fits into 64 bits.
  constexpr int64_t kMost = int64_t{1} << 30;
  const Rule rules[] = {
      {"batch", call.batch, 0},           {"height", call.height, 1},
      {"width", call.width, 1},           {"channels", call.channels, 1},
      {"out_height", call.out_height, 1}, {"out_width", call.out_width, 1},
      {"kernel_h", call.kernel_h, 1},     {"kernel_w", call.kernel_w, 1},
      {"stride_h", call.stride_h, 1},     {"stride_w", call.stride_w, 1},
      {"pad_h", call.pad_h, 0},           {"pad_w", call.pad_w, 0},
      {"dilation_h", call.dilation_h, 1}, {"dilation_w", call.dilation_w, 1},
      {"group", call.group, 1},
  };
  for (const Rule& rule : rules)
    if (rule.value < rule.least || rule.value > kMost)
      return message.set("expected %s from %lld to 2^30, got %lld", rule.name,
                         static_cast<long long>(rule.least), static_cast<long long>(rule.value));
  if (call.channels % call.group != 0)
    return message.set("expected channels that group = %lld divides, got %lld",
                       static_cast<long long>(call.group), static_cast<long long>(call.channels));
  for (const int32_t dtype : {call.dtype, call.point_dtype})
    if (dtype != DCNV3_FLOAT32 && dtype != DCNV3_FLOAT16)
      return message.set("expected a dtype of 0 (float32) or 1 (float16), got %d", dtype);
  if (call.dtype == DCNV3_FLOAT32 && call.point_dtype != DCNV3_FLOAT32)
    return message.set("expected offsets and weights of float32 beside a float32 input");
  if (call.remove_center && (call.kernel_h % 2 == 0 || call.kernel_w % 2 == 0))
    return message.set("expected an odd kernel with remove_center, got %lld x %lld",
                       static_cast<long long>(call.kernel_h),
                       static_cast<long long>(call.kernel_w));
  return nullptr;
}

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

const char* check_shapes(const Dcnv3Call& call, const Params& params) {
  const int64_t height =
      out_size(call.height, call.kernel_h, call.stride_h, call.pad_h, call.dilation_h);
  const int64_t width =
      out_size(call.width, call.kernel_w, call.stride_w, call.pad_w, call.dilation_w);
  if (height != call.out_height || width != call.out_width)
    return message.set("expected an output of %lld x %lld pixels, got %lld x %lld",
                       static_cast<long long>(height), static_cast<long long>(width),
                       static_cast<long long>(call.out_height),
                       static_cast<long long>(call.out_width));
  const int64_t points = call.group * params.num_points();
  if (points == 0) return message.set("expected a sampling point, got a 1 x 1 kernel without one");
  const bool packed = call.mask_channels == 0;
  if (packed ? call.offset_channels < 3 * points : call.offset_channels != 2 * points)
    return message.set("expected %s%lld numbers a pixel of offsets, got %lld",
                       packed ? "at least " : "", static_cast<long long>((packed ? 3 : 2) * points),
                       static_cast<long long>(call.offset_channels));
  if (!packed && call.mask_channels != points)
    return message.set("expected %lld numbers a pixel of weights, got %lld",
                       static_cast<long long>(points), static_cast<long long>(call.mask_channels));
  return nullptr;
}

Params params_of(const Dcnv3Call& call) {
  Params params{};
  params.batch = call.batch;
  params.height = call.height;
  params.width = call.width;
  params.groups = call.group;
  params.depth = call.channels / call.group;
  params.out_height = call.out_height;
  params.out_width = call.out_width;
  params.kernel_h = call.kernel_h;
  params.kernel_w = call.kernel_w;
  params.stride_h = call.stride_h;
  params.stride_w = call.stride_w;
  params.padding_h = call.pad_h;
  params.padding_w = call.pad_w;
  params.dilation_h = call.dilation_h;
  params.dilation_w = call.dilation_w;
  params.offset_scale = call.offset_scale;
  params.remove_center = call.remove_center != 0;
  params.softmax = call.softmax != 0;
  params.offset_stride = call.offset_channels;
  params.mask_stride = call.mask_channels == 0 ? call.offset_channels : call.mask_channels;
  return params;
}

DType dtype_of(int32_t dtype) { return dtype == DCNV3_FLOAT16 ? DType::kFloat16 : DType::kFloat32; }

const char* check(const Dcnv3Call& call) {
  if (const char* failure = check_numbers(call)) return failure;
  const Params params = params_of(call);
  // before anything is multiplied
  if (const char* failure = dcnv3::why_too_large(params)) return failure;
  return check_shapes(call, params);
}

}  // namespace

const char* dcnv3_check(const Dcnv3Call* call) {
  return call == nullptr ? message.set("expected a call, got null") : check(*call);
}

const char* dcnv3_forward(const Dcnv3Call* call) {
  if (const char* failure = dcnv3_check(call)) return failure;
  if (call->batch == 0) return nullptr;  // whose tensors may be null
  if (call->input == nullptr || call->offset == nullptr || call->output == nullptr ||
      (call->mask_channels != 0 && call->mask == nullptr))
    return message.set("expected pointers to all tensors, got null");
  ForwardArgs args{};
  args.params = params_of(*call);
  args.dtype = dtype_of(call->dtype);
  args.offset_dtype = args.mask_dtype = dtype_of(call->point_dtype);
  args.input = call->input;
  args.offset = call->offset;
  args.mask = call->mask;
  // Packed: a pixel's weights follow its offsets, in rows that are as long as both and padding.
  if (call->mask_channels == 0) {
    const int64_t offsets = 2 * call->group * args.params.num_points();
    args.mask = static_cast<const char*>(call->offset) + offsets * dcnv3::bytes_of(args.mask_dtype);
  }
  args.output = call->output;
  dcnv3::Device device{};
  if (const char* failure = dcnv3::query_current_device(&device))
    return message.set("no CUDA device can be used: %s", failure);
  if (const char* failure = dcnv3::launch_forward(args, device, call->stream))
    return message.set("the CUDA kernel cannot be started: %s", failure);
  return nullptr;
}
