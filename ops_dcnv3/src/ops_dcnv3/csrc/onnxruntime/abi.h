// What this library uses of ONNX Runtime's C interface, declared by itself: no package of ONNX
// Runtime carries its headers, and an installation by pip must not need them.
//
// The interface is a table of functions, to which each release may only append; so an entry is a
// place in that table, and the places here hold for every ONNX Runtime from 1.17 on. Where the
// headers are at hand, header_check.cpp compares every place with them.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace dcnv3 {
namespace ort {

constexpr uint32_t kVersion = 17;  // of the interface: the first with KernelContext_ParallelFor

// Objects of ONNX Runtime, known by their addresses alone.
struct Status;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TypeAndShape;
struct ShapeInferContext;

constexpr int kFail = 1;  // OrtErrorCode
constexpr int kInvalidArgument = 2;
constexpr int kFloat = 1;  // ONNXTensorElementDataType
constexpr int kFloat16 = 10;

// The places of the functions in the table.
enum Place {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kGetAttributeFloat = 85,
  kGetAttributeInt = 86,
  kGetInput = 90,
  kGetOutput = 91,
  kReleaseStatus = 93,
  kReleaseTypeAndShape = 99,
  kParallelFor = 274,
  kPlaces,
};

// The table, and its functions with their types. Each returns null, or a status that says what
// went wrong and belongs to the caller.
struct Api {
  void (*functions[kPlaces])();

  template <typename Result = Status*, typename... Args>
  Result call(Place place, Args... args) const {
    return reinterpret_cast<Result (*)(Args...)>(functions[place])(args...);
  }

  Status* create_status(int code, const char* message) const {
    return call(kCreateStatus, code, message);
  }
  void release(Status* status) const { call<void>(kReleaseStatus, status); }
  void release(TypeAndShape* shape) const { call<void>(kReleaseTypeAndShape, shape); }

  Status* create_domain(const char* name, CustomOpDomain** domain) const {
    return call(kCreateCustomOpDomain, name, domain);
  }
  Status* add(CustomOpDomain* domain, const struct CustomOp* op) const {
    return call(kCustomOpDomainAdd, domain, op);
  }
  Status* add(SessionOptions* options, CustomOpDomain* domain) const {
    return call(kAddCustomOpDomain, options, domain);
  }

  Status* attribute(const KernelInfo* info, const char* name, int64_t* value) const {
    return call(kGetAttributeInt, info, name, value);
  }
  Status* attribute(const KernelInfo* info, const char* name, float* value) const {
    return call(kGetAttributeFloat, info, name, value);
  }

  Status* input(const KernelContext* context, size_t index, const Value** value) const {
    return call(kGetInput, context, index, value);
  }
  Status* output(KernelContext* context, size_t index, const int64_t* sizes, size_t dims,
                 Value** value) const {
    return call(kGetOutput, context, index, sizes, dims, value);
  }
  Status* type_and_shape(const Value* value, TypeAndShape** shape) const {
    return call(kGetTensorTypeAndShape, value, shape);
  }
  Status* num_dims(const TypeAndShape* shape, size_t* count) const {
    return call(kGetDimensionsCount, shape, count);
  }
  Status* dims(const TypeAndShape* shape, int64_t* sizes, size_t count) const {
    return call(kGetDimensions, shape, sizes, count);
  }
  Status* data(Value* value, void** data) const { return call(kGetTensorMutableData, value, data); }

  // Calls function(user, 0 ... total - 1) in the session's own threads.
  Status* parallel_for(const KernelContext* context, void (*function)(void*, size_t), size_t total,
                       void* user) const {
    return call(kParallelFor, context, function, total, size_t(0), user);
  }
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);  // null if the runtime is older
  const char* (*version_string)();
};

// An operator as ONNX Runtime asks for it; entries that are null are not used.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*execution_provider)(const CustomOp*);
  int (*input_type)(const CustomOp*, size_t);
  size_t (*num_inputs)(const CustomOp*);
  int (*output_type)(const CustomOp*, size_t);
  size_t (*num_outputs)(const CustomOp*);
  void (*compute)(void*, KernelContext*);
  void (*destroy_kernel)(void*);
  int (*input_characteristic)(const CustomOp*, size_t);
  int (*output_characteristic)(const CustomOp*, size_t);
  int (*input_memory)(const CustomOp*, size_t);
  int (*variadic_input_minimum)(const CustomOp*);
  int (*variadic_input_same_type)(const CustomOp*);
  int (*variadic_output_minimum)(const CustomOp*);
  int (*variadic_output_same_type)(const CustomOp*);
  Status* (*create_kernel_checked)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*compute_checked)(void*, KernelContext*);
  Status* (*infer_shape)(const CustomOp*, ShapeInferContext*);
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
};

}  // namespace ort
}  // namespace dcnv3
