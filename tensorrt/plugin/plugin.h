// DCNv3 as a TensorRT plugin, for TensorRT 10 and later: one class under three names.
#pragma once

#include <NvInferRuntime.h>

#include "attributes.h"
#include "entry.h"

namespace dcnv3 {

// The names that ONNX nodes have. A parser looks for a creator of the node's name in the empty
// namespace, whatever the node's ONNX domain is.
enum class Kind : int32_t {
  kSeparate,  // DCNv3: input, offset, mask
  kPacked,    // DCNv3Packed: input, offset_mask
  kOriginal,  // TRTDCNv3: as DCNv3, with the attributes of the original's exporter
};
const char* name_of(Kind kind);

constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "";

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  Plugin(Kind kind, const Attributes& attributes) : kind_(kind), attributes_(attributes) {}
  Plugin(const Plugin& other) : Plugin(other.kind_, other.attributes_) {}
  Plugin& operator=(const Plugin&) = delete;

  // IPluginV3; which interface's information is asked for, the capability says
  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  // core
  const char* getPluginName() const noexcept override { return name_of(kind_); }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // build
  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t num_outputs,
                             const nvinfer1::DataType* inputs,
                             int32_t num_inputs) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t num_inputs,
                          const nvinfer1::DimsExprs* shape_inputs, int32_t num_shape_inputs,
                          nvinfer1::DimsExprs* outputs, int32_t num_outputs,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t num_inputs, int32_t num_outputs) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t num_inputs,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t num_outputs) noexcept override;

  // runtime
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t num_inputs,
                        const nvinfer1::PluginTensorDesc* outputs,
                        int32_t num_outputs) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs,
                  const nvinfer1::PluginTensorDesc* output_descs, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 private:
  int32_t num_inputs() const { return kind_ == Kind::kPacked ? 2 : 3; }
  // Logs what is wrong; null is success. Returns TensorRT's word for either.
  int32_t finish(const char* failure) const noexcept;
  const char* check_counts(int32_t num_inputs, int32_t num_outputs) noexcept;
  // Of the original's nodes alone, which say how many channels a group has.
  const char* check_group_channels(int64_t channels) noexcept;
  const char* call_of(const nvinfer1::PluginTensorDesc* inputs,
                      const nvinfer1::PluginTensorDesc& output, Dcnv3Call* call) noexcept;

  Kind kind_;
  Attributes attributes_;
  Message message_;
  nvinfer1::PluginField fields_[kMostFields];
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace dcnv3
