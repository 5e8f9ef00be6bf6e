#include "plugin.h"

#include <new>

#include "logging.h"

namespace dcnv3 {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IDimensionExpr;
using nvinfer1::IExprBuilder;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginTensorDesc;

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kSeparate:
      return "DCNv3";
    case Kind::kPacked:
      return "DCNv3Packed";
    default:
      return "TRTDCNv3";
  }
}

namespace {

constexpr int32_t kSuccess = 0, kFailure = -1;  // TensorRT: 0, or anything else

// Expressions over the sizes of dynamic shapes.
struct Expressions {
  IExprBuilder& builder;

  // floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1
  const IDimensionExpr* out_size(const IDimensionExpr* size, int64_t kernel, int64_t stride,
                                 int64_t padding, int64_t dilation) const {
    const int64_t added = 2 * padding - dilation * (kernel - 1) - 1;
    const IDimensionExpr* room = operation(DimensionOperation::kSUM, size, added);
    const IDimensionExpr* steps = operation(DimensionOperation::kFLOOR_DIV, room, stride);
    return operation(DimensionOperation::kSUM, steps, 1);
  }

 private:
  const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr* first,
                                  int64_t second) const {
    const IDimensionExpr* constant = builder.constant(second);
    if (first == nullptr || constant == nullptr) return nullptr;
    return builder.operation(operation, *first, *constant);
  }
};

}  // namespace

// IPluginCapability is a base three times over: the casts say which one is meant.
nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(PluginCapabilityType type) noexcept {
  switch (type) {
    case PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

// Without exceptions, as nothing may be thrown through TensorRT: null says that memory is out.
nvinfer1::IPluginV3* Plugin::clone() noexcept { return new (std::nothrow) Plugin(*this); }

int32_t Plugin::finish(const char* failure) const noexcept {
  if (failure == nullptr) return kSuccess;
  log_error(name_of(kind_), failure);
  return kFailure;
}

const char* Plugin::check_counts(int32_t num_inputs, int32_t num_outputs) noexcept {
  if (num_inputs == this->num_inputs() && num_outputs == 1) return nullptr;
  return message_.set("expected %d inputs and 1 output, got %d and %d", this->num_inputs(),
                      num_inputs, num_outputs);
}

const char* Plugin::check_group_channels(int64_t channels) noexcept {
  const Attributes& a = attributes_;
  if (a.group_channels == 0 || channels == int64_t{a.group} * a.group_channels) return nullptr;
  return message_.set("expected group x group_channels = %d x %d channels, got %lld", a.group,
                      a.group_channels, static_cast<long long>(channels));
}

int32_t Plugin::getOutputDataTypes(DataType* outputs, int32_t num_outputs, const DataType* inputs,
                                   int32_t num_inputs) const noexcept {
  if (num_inputs != this->num_inputs() || num_outputs != 1) return kFailure;
  outputs[0] = inputs[0];
  return kSuccess;
}

int32_t Plugin::getOutputShapes(const DimsExprs* inputs, int32_t num_inputs, const DimsExprs*,
                                int32_t, DimsExprs* outputs, int32_t num_outputs,
                                IExprBuilder& builder) noexcept {
  if (const char* failure = check_counts(num_inputs, num_outputs)) return finish(failure);
  for (int32_t k = 0; k < num_inputs; ++k)
    if (inputs[k].nbDims != 4)
      return finish(message_.set("expected inputs of 4 dimensions (N, H, W, channels), got %d",
                                 inputs[k].nbDims));
  const Attributes& a = attributes_;
  const IDimensionExpr* channels = inputs[0].d[3];
  // An open number of channels is checked at run time, by call_of() and entry.cpp.
  if (channels->isConstant()) {
    const long long number = channels->getConstantValue();
    if (number % a.group != 0)
      return finish(
          message_.set("expected channels that group = %d divides, got %lld", a.group, number));
    if (const char* failure = check_group_channels(number)) return finish(failure);
  }
  const Expressions expressions{builder};
  outputs[0].nbDims = 4;
  outputs[0].d[0] = inputs[0].d[0];
  outputs[0].d[1] =
      expressions.out_size(inputs[0].d[1], a.kernel_h, a.stride_h, a.pad_h, a.dilation_h);
  outputs[0].d[2] =
      expressions.out_size(inputs[0].d[2], a.kernel_w, a.stride_w, a.pad_w, a.dilation_w);
  outputs[0].d[3] = channels;
  if (outputs[0].d[1] == nullptr || outputs[0].d[2] == nullptr)
    return finish(message_.set("the size of the output cannot be expressed"));
  return kSuccess;
}

// Channels last as the ONNX node has them, without TensorRT's own blocks of channels. Offsets and
// weights have one type: the input's, or float32 beside float16, since a float16 of some pixels has
// a step of several thousandths of a pixel.
bool Plugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                       int32_t num_inputs, int32_t num_outputs) noexcept {
  if (num_inputs != this->num_inputs() || num_outputs != 1) return false;
  const PluginTensorDesc& desc = tensors[position].desc;
  if (desc.format != nvinfer1::TensorFormat::kLINEAR) return false;
  const DataType type = desc.type, input = tensors[0].desc.type;
  if (position == 0) return type == DataType::kFLOAT || type == DataType::kHALF;
  if (position == num_inputs) return type == input;
  if (position == 2) return type == tensors[1].desc.type;
  return type == input || type == DataType::kFLOAT;
}

int32_t Plugin::configurePlugin(const DynamicPluginTensorDesc*, int32_t num_inputs,
                                const DynamicPluginTensorDesc*, int32_t num_outputs) noexcept {
  return finish(check_counts(num_inputs, num_outputs));
}

const char* Plugin::call_of(const PluginTensorDesc* inputs, const PluginTensorDesc& output,
                            Dcnv3Call* call) noexcept {
  const bool packed = kind_ == Kind::kPacked;
  for (int32_t k = 0; k < num_inputs(); ++k)
    if (inputs[k].dims.nbDims != 4)
      return message_.set("expected inputs of 4 dimensions, got %d", inputs[k].dims.nbDims);
  if (output.dims.nbDims != 4)
    return message_.set("expected an output of 4 dimensions, got %d", output.dims.nbDims);
  for (int32_t k = 1; k < num_inputs(); ++k)
    for (int32_t axis = 0; axis < 3; ++axis)
      if (inputs[k].dims.d[axis] != output.dims.d[axis])
        return message_.set(
            "expected offsets and weights of as many images and pixels as the "
            "output has, (%lld, %lld, %lld), got %lld on axis %d",
            static_cast<long long>(output.dims.d[0]), static_cast<long long>(output.dims.d[1]),
            static_cast<long long>(output.dims.d[2]),
            static_cast<long long>(inputs[k].dims.d[axis]), axis);
  const auto dtype_of = [](DataType type) {
    return type == DataType::kHALF ? DCNV3_FLOAT16 : DCNV3_FLOAT32;
  };
  const nvinfer1::Dims& size = inputs[0].dims;
  if (const char* failure = check_group_channels(size.d[3])) return failure;
  const Attributes& a = attributes_;
  *call = {};
  call->batch = size.d[0];
  call->height = size.d[1];
  call->width = size.d[2];
  call->channels = size.d[3];
  call->out_height = output.dims.d[1];
  call->out_width = output.dims.d[2];
  call->kernel_h = a.kernel_h;
  call->kernel_w = a.kernel_w;
  call->stride_h = a.stride_h;
  call->stride_w = a.stride_w;
  call->pad_h = a.pad_h;
  call->pad_w = a.pad_w;
  call->dilation_h = a.dilation_h;
  call->dilation_w = a.dilation_w;
  call->group = a.group;
  call->offset_scale = static_cast<double>(a.offset_scale);
  call->remove_center = a.remove_center;
  call->softmax = a.softmax;
  call->dtype = dtype_of(inputs[0].type);
  call->point_dtype = dtype_of(inputs[1].type);
  call->offset_channels = inputs[1].dims.d[3];
  call->mask_channels = packed ? 0 : inputs[2].dims.d[3];
  return nullptr;
}

int32_t Plugin::onShapeChange(const PluginTensorDesc* inputs, int32_t num_inputs,
                              const PluginTensorDesc* outputs, int32_t num_outputs) noexcept {
  Dcnv3Call call;
  if (const char* failure = check_counts(num_inputs, num_outputs)) return finish(failure);
  if (const char* failure = call_of(inputs, outputs[0], &call)) return finish(failure);
  return finish(dcnv3_check(&call));
}

int32_t Plugin::enqueue(const PluginTensorDesc* input_descs, const PluginTensorDesc* output_descs,
                        const void* const* inputs, void* const* outputs, void*,
                        cudaStream_t stream) noexcept {
  Dcnv3Call call;
  if (const char* failure = call_of(input_descs, output_descs[0], &call)) return finish(failure);
  call.input = inputs[0];
  call.offset = inputs[1];
  call.mask = kind_ == Kind::kPacked ? nullptr : inputs[2];
  call.output = outputs[0];
  call.stream = stream;
  return finish(dcnv3_forward(&call));
}

const nvinfer1::PluginFieldCollection* Plugin::getFieldsToSerialize() noexcept {
  collection_ = {describe_fields(&attributes_, kind_ == Kind::kOriginal, fields_), fields_};
  return &collection_;
}

}  // namespace dcnv3
