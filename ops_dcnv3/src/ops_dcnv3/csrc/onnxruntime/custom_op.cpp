// DCNv3 for ONNX Runtime on CPUs: the nodes dcnv3::DCNv3 and dcnv3::DCNv3Packed, version 1, whose
// schema stands in ops_dcnv3/onnx.py. They work on ONNX Runtime's own memory and in the threads of
// the session. Nothing of PyTorch is needed.
#include <atomic>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <mutex>
#include <new>

#include "../cpu/dispatch.h"
#include "../dcnv3_geometry.h"
#include "abi.h"

namespace dcnv3 {
namespace ort {
namespace {

// No attribute is larger, so that no product of four of them overflows.
constexpr int64_t kLargest = int64_t(1) << 15;
// The points that one call of the kernels gets: some microseconds' work.
constexpr int64_t kPointsAShare = 2048;
constexpr int64_t kMostShares = 512;

__attribute__((format(printf, 3, 4))) Status* fail(const Api& api, const char* name,
                                                   const char* format, ...) {
  char message[400];
  const int length = std::snprintf(message, sizeof(message), "dcnv3::%s: ", name);
  va_list args;
  va_start(args, format);
  std::vsnprintf(message + length, sizeof(message) - static_cast<size_t>(length), format, args);
  va_end(args);
  return api.create_status(kInvalidArgument, message);
}

// One node of a graph.
struct Kernel {
  const Api* api;
  const char* name;
  bool packed;
  DType dtype;
  Params params;  // the attributes; the sizes follow with each call
};

Status* read_attributes(const Api& api, const KernelInfo* info, Kernel* kernel) {
  Params& params = kernel->params;
  int64_t remove_center = 0, softmax = 0;
  const struct {
    const char* name;
    int64_t* value;
    int64_t lowest, highest;
  } numbers[] = {
      {"kernel_h", &params.kernel_h, 1, kLargest},
      {"kernel_w", &params.kernel_w, 1, kLargest},
      {"stride_h", &params.stride_h, 1, kLargest},
      {"stride_w", &params.stride_w, 1, kLargest},
      {"pad_h", &params.padding_h, 0, kLargest},
      {"pad_w", &params.padding_w, 0, kLargest},
      {"dilation_h", &params.dilation_h, 1, kLargest},
      {"dilation_w", &params.dilation_w, 1, kLargest},
      {"group", &params.groups, 1, kLargest},
      {"remove_center", &remove_center, 0, 1},
      {"softmax", &softmax, 0, 1},
  };
  for (const auto& number : numbers) {
    if (Status* status = api.attribute(info, number.name, number.value)) {
      api.release(status);
      return fail(api, kernel->name, "expected the attribute %s, an int", number.name);
    }
    if (*number.value < number.lowest || *number.value > number.highest)
      return fail(api, kernel->name, "expected %lld <= %s <= %lld, got %lld",
                  static_cast<long long>(number.lowest), number.name,
                  static_cast<long long>(number.highest), static_cast<long long>(*number.value));
  }
  float offset_scale = 0;
  if (Status* status = api.attribute(info, "offset_scale", &offset_scale)) {
    api.release(status);
    return fail(api, kernel->name, "expected the attribute offset_scale, a float");
  }
  if (!std::isfinite(offset_scale))
    return fail(api, kernel->name, "expected offset_scale = a finite number, got %g",
                static_cast<double>(offset_scale));
  const bool is_odd = params.kernel_h % 2 == 1 && params.kernel_w % 2 == 1;
  if (remove_center && (!is_odd || params.kernel_h * params.kernel_w == 1))
    return fail(api, kernel->name,
                "expected an odd kernel of more than one point with remove_center, got %lld x %lld",
                static_cast<long long>(params.kernel_h), static_cast<long long>(params.kernel_w));
  params.offset_scale = offset_scale;
  params.remove_center = remove_center != 0;
  params.softmax = softmax != 0;
  return nullptr;
}

// Four sizes and the numbers of an input.
struct Tensor {
  int64_t sizes[4];
  const void* data;
};

Status* read_input(const Kernel& kernel, const KernelContext* context, size_t index,
                   const char* title, Tensor* tensor) {
  const Api& api = *kernel.api;
  const Value* value = nullptr;
  if (Status* status = api.input(context, index, &value)) return status;
  TypeAndShape* shape = nullptr;
  if (Status* status = api.type_and_shape(value, &shape)) return status;
  size_t dims = 0;
  Status* status = api.num_dims(shape, &dims);
  if (status == nullptr)
    status = dims == 4
                 ? api.dims(shape, tensor->sizes, 4)
                 : fail(api, kernel.name,
                        "expected %s of 4 dimensions (N, H, W, channels), got %zu", title, dims);
  api.release(shape);
  if (status != nullptr) return status;
  void* data = nullptr;
  status = api.data(const_cast<Value*>(value), &data);  // which is only read
  tensor->data = data;
  return status;
}

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                    int64_t dilation) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

// Takes the sizes from the input.
Status* fit_input(const Kernel& kernel, const Tensor& input, Params* params) {
  const int64_t* sizes = input.sizes;
  if (sizes[3] < 1 || sizes[3] % params->groups != 0)
    return fail(*kernel.api, kernel.name,
                "expected channels %% group = 0 with group = %lld, got %lld channels",
                static_cast<long long>(params->groups), static_cast<long long>(sizes[3]));
  params->batch = sizes[0];
  params->height = sizes[1];
  params->width = sizes[2];
  params->depth = sizes[3] / params->groups;
  params->out_height = output_size(sizes[1], params->kernel_h, params->stride_h, params->padding_h,
                                   params->dilation_h);
  params->out_width = output_size(sizes[2], params->kernel_w, params->stride_w, params->padding_w,
                                  params->dilation_w);
  if (sizes[1] < 1 || sizes[2] < 1 || params->out_height < 1 || params->out_width < 1)
    return fail(*kernel.api, kernel.name,
                "expected an output of at least 1 x 1, got %lld x %lld from input %lld x %lld",
                static_cast<long long>(params->out_height),
                static_cast<long long>(params->out_width), static_cast<long long>(sizes[1]),
                static_cast<long long>(sizes[2]));
  return nullptr;
}

// `at_least`: more numbers a pixel than `width` are padding.
Status* fit_points(const Kernel& kernel, const Params& params, const Tensor& points,
                   const char* title, int64_t width, bool at_least) {
  const int64_t* sizes = points.sizes;
  const bool fits = sizes[0] == params.batch && sizes[1] == params.out_height &&
                    sizes[2] == params.out_width &&
                    (at_least ? sizes[3] >= width : sizes[3] == width);
  if (fits) return nullptr;
  return fail(*kernel.api, kernel.name,
              "expected %s of shape (%lld, %lld, %lld, %s%lld), got (%lld, %lld, %lld, %lld)",
              title, static_cast<long long>(params.batch),
              static_cast<long long>(params.out_height), static_cast<long long>(params.out_width),
              at_least ? ">= " : "", static_cast<long long>(width),
              static_cast<long long>(sizes[0]), static_cast<long long>(sizes[1]),
              static_cast<long long>(sizes[2]), static_cast<long long>(sizes[3]));
}

Status* read_points(const Kernel& kernel, const KernelContext* context, ForwardArgs* args) {
  Params& params = args->params;
  const int64_t points = params.groups * params.num_points();
  Tensor first{}, second{};
  if (kernel.packed) {
    if (Status* status = read_input(kernel, context, 1, "offset_mask", &first)) return status;
    if (Status* status = fit_points(kernel, params, first, "offset_mask", 3 * points, true))
      return status;
    const int64_t bytes = kernel.dtype == DType::kFloat32 ? 4 : 2;
    args->offset = first.data;
    args->mask = static_cast<const char*>(first.data) + 2 * points * bytes;
    params.offset_stride = params.mask_stride = first.sizes[3];
    return nullptr;
  }
  if (Status* status = read_input(kernel, context, 1, "offset", &first)) return status;
  if (Status* status = fit_points(kernel, params, first, "offset", 2 * points, false))
    return status;
  if (Status* status = read_input(kernel, context, 2, "mask", &second)) return status;
  if (Status* status = fit_points(kernel, params, second, "mask", points, false)) return status;
  args->offset = first.data;
  args->mask = second.data;
  params.offset_stride = 2 * points;
  params.mask_stride = points;
  return nullptr;
}

// The output pixels in shares, each with scratch memory of its own.
struct Work {
  const ForwardArgs& args;
  int64_t shares;
  uintptr_t scratch_bytes;
  std::atomic<bool> out_of_memory{false};

  void run(int64_t share) {
    const int64_t pixels = args.params.num_pixels();
    const int64_t begin = share_begin(pixels, share), end = share_begin(pixels, share + 1);
    void* scratch = std::aligned_alloc(64, (scratch_bytes + 63) / 64 * 64);
    if (scratch == nullptr) {
      out_of_memory = true;
      return;
    }
    kernels().forward(args, begin, end, scratch);
    std::free(scratch);
  }
  int64_t share_begin(int64_t pixels, int64_t share) const {
    return pixels / shares * share + (share < pixels % shares ? share : pixels % shares);
  }
};

Status* compute(void* state, KernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(state);
  const Api& api = *kernel.api;
  ForwardArgs args{};
  args.params = kernel.params;
  args.dtype = args.offset_dtype = args.mask_dtype = kernel.dtype;
  Tensor input{};
  if (Status* status = read_input(kernel, context, 0, "input", &input)) return status;
  if (Status* status = fit_input(kernel, input, &args.params)) return status;
  if (Status* status = read_points(kernel, context, &args)) return status;
  args.input = input.data;

  const Params& params = args.params;
  const int64_t sizes[] = {params.batch, params.out_height, params.out_width, params.channels()};
  Value* value = nullptr;
  if (Status* status = api.output(context, 0, sizes, 4, &value)) return status;
  if (Status* status = api.data(value, &args.output)) return status;
  const int64_t pixels = params.num_pixels();
  if (pixels == 0) return nullptr;

  const int64_t pixels_a_share =
      (kPointsAShare - 1) / (params.groups * params.num_points()) + 1;  // rounded up
  const int64_t shares = (pixels - 1) / pixels_a_share + 1;
  Work work{args, shares < kMostShares ? shares : kMostShares, kernels().forward_scratch(args)};
  const auto run = [](void* user, size_t share) {
    static_cast<Work*>(user)->run(static_cast<int64_t>(share));
  };
  if (Status* status = api.parallel_for(context, run, static_cast<size_t>(work.shares), &work))
    return status;
  if (work.out_of_memory)
    return api.create_status(kFail, "dcnv3: out of memory for the scratch of a thread");
  return nullptr;
}

// An operator for one type of number; several of one name make one operator of several types.
struct Operator : CustomOp {
  const char* title;
  bool packed;
  int type;

  Operator(const char* title_, bool packed_, int type_)
      : CustomOp{}, title(title_), packed(packed_), type(type_) {
    version = kVersion;
    name = [](const CustomOp* op) { return of(op).title; };
    execution_provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
    input_type = output_type = [](const CustomOp* op, size_t) { return of(op).type; };
    num_inputs = [](const CustomOp* op) { return size_t(of(op).packed ? 2 : 3); };
    num_outputs = [](const CustomOp*) { return size_t(1); };
    // all required, of one size, in the provider's own memory
    input_characteristic = output_characteristic =
        input_memory = [](const CustomOp*, size_t) { return 0; };
    start_version = end_version = [](const CustomOp*) { return 1; };
    create_kernel_checked = &create;
    compute_checked = &dcnv3::ort::compute;
    destroy_kernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  }

  static const Operator& of(const CustomOp* op) { return *static_cast<const Operator*>(op); }

  static Status* create(const CustomOp* op, const Api* api, const KernelInfo* info, void** result) {
    const Operator& self = of(op);
    const DType dtype = self.type == kFloat ? DType::kFloat32 : DType::kFloat16;
    Kernel* kernel = new (std::nothrow) Kernel{api, self.title, self.packed, dtype, Params{}};
    if (kernel == nullptr) return api->create_status(kFail, "dcnv3: out of memory");
    Status* status = read_attributes(*api, info, kernel);
    if (status != nullptr) {
      delete kernel;
      return status;
    }
    *result = kernel;
    return nullptr;
  }
};

// The domain of one ONNX Runtime in the process. It must outlive every session, so it stays.
Status* domain_of(const Api& api, CustomOpDomain** result) {
  static const Operator operators[] = {
      {"DCNv3", false, kFloat},
      {"DCNv3", false, kFloat16},
      {"DCNv3Packed", true, kFloat},
      {"DCNv3Packed", true, kFloat16},
  };
  static std::mutex mutex;
  static std::map<const Api*, CustomOpDomain*> domains;
  const std::lock_guard<std::mutex> lock(mutex);
  CustomOpDomain*& domain = domains[&api];
  if (domain == nullptr) {
    CustomOpDomain* created = nullptr;
    if (Status* status = api.create_domain("dcnv3", &created)) return status;
    for (const Operator& op : operators)
      if (Status* status = api.add(created, &op)) return status;
    domain = created;
  }
  *result = domain;
  return nullptr;
}

Status* register_domain(SessionOptions* options, const ApiBase* base) {
  const Api* api = base->get_api(kVersion);
  if (api == nullptr)
    return base->get_api(1)->create_status(kInvalidArgument,
                                           "ops_dcnv3: expected ONNX Runtime 1.17 or later");
  try {
    CustomOpDomain* domain = nullptr;
    if (Status* status = domain_of(*api, &domain)) return status;
    return api->add(options, domain);
  } catch (const std::exception& error) {
    return api->create_status(kFail, error.what());
  }
}

}  // namespace
}  // namespace ort
}  // namespace dcnv3

// What ONNX Runtime calls for each SessionOptions that the library is registered with.
extern "C" __attribute__((visibility("default"))) dcnv3::ort::Status* RegisterCustomOps(
    dcnv3::ort::SessionOptions* options, const dcnv3::ort::ApiBase* base) {
  return dcnv3::ort::register_domain(options, base);
}
