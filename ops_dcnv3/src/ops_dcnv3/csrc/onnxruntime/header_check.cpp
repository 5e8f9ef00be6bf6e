// Compares abi.h with ONNX Runtime's own header, at compile time. CMake adds this file where the
// header is at hand. It compares places and sizes, not the types of the functions' parameters,
// which are of opaque kinds on both sides: those are checked by calling every function, in the
// tests.
#include <onnxruntime_c_api.h>

#include "abi.h"

namespace dcnv3 {
namespace ort {
namespace {

static_assert(ORT_API_VERSION >= kVersion, "expected the header of ONNX Runtime 1.17 or later");
static_assert(ORT_INVALID_ARGUMENT == kInvalidArgument && ORT_FAIL == kFail);
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT == kFloat);
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 == kFloat16);
static_assert(INPUT_OUTPUT_REQUIRED == 0 && OrtMemTypeDefault == 0);
static_assert(offsetof(OrtApiBase, GetApi) == offsetof(ApiBase, get_api));

#define CHECK_PLACE(theirs, ours) \
  static_assert(offsetof(OrtApi, theirs) == (ours) * sizeof(void (*)()), #theirs)
CHECK_PLACE(CreateStatus, kCreateStatus);
CHECK_PLACE(CreateCustomOpDomain, kCreateCustomOpDomain);
CHECK_PLACE(CustomOpDomain_Add, kCustomOpDomainAdd);
CHECK_PLACE(AddCustomOpDomain, kAddCustomOpDomain);
CHECK_PLACE(GetTensorMutableData, kGetTensorMutableData);
CHECK_PLACE(GetDimensionsCount, kGetDimensionsCount);
CHECK_PLACE(GetDimensions, kGetDimensions);
CHECK_PLACE(GetTensorTypeAndShape, kGetTensorTypeAndShape);
CHECK_PLACE(KernelInfoGetAttribute_float, kGetAttributeFloat);
CHECK_PLACE(KernelInfoGetAttribute_int64, kGetAttributeInt);
CHECK_PLACE(KernelContext_GetInput, kGetInput);
CHECK_PLACE(KernelContext_GetOutput, kGetOutput);
CHECK_PLACE(ReleaseStatus, kReleaseStatus);
CHECK_PLACE(ReleaseTensorTypeAndShapeInfo, kReleaseTypeAndShape);
CHECK_PLACE(KernelContext_ParallelFor, kParallelFor);

#define CHECK_FIELD(theirs, ours) \
  static_assert(offsetof(OrtCustomOp, theirs) == offsetof(CustomOp, ours), #theirs)
CHECK_FIELD(version, version);
CHECK_FIELD(CreateKernel, create_kernel);
CHECK_FIELD(GetName, name);
CHECK_FIELD(GetExecutionProviderType, execution_provider);
CHECK_FIELD(GetInputType, input_type);
CHECK_FIELD(GetInputTypeCount, num_inputs);
CHECK_FIELD(GetOutputType, output_type);
CHECK_FIELD(GetOutputTypeCount, num_outputs);
CHECK_FIELD(KernelCompute, compute);
CHECK_FIELD(KernelDestroy, destroy_kernel);
CHECK_FIELD(GetInputCharacteristic, input_characteristic);
CHECK_FIELD(GetOutputCharacteristic, output_characteristic);
CHECK_FIELD(GetInputMemoryType, input_memory);
CHECK_FIELD(GetVariadicInputMinArity, variadic_input_minimum);
CHECK_FIELD(GetVariadicInputHomogeneity, variadic_input_same_type);
CHECK_FIELD(GetVariadicOutputMinArity, variadic_output_minimum);
CHECK_FIELD(GetVariadicOutputHomogeneity, variadic_output_same_type);
CHECK_FIELD(CreateKernelV2, create_kernel_checked);
CHECK_FIELD(KernelComputeV2, compute_checked);
CHECK_FIELD(InferOutputShapeFn, infer_shape);
CHECK_FIELD(GetStartVersion, start_version);
CHECK_FIELD(GetEndVersion, end_version);

}  // namespace
}  // namespace ort
}  // namespace dcnv3
