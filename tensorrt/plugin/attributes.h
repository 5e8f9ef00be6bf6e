// What a DCNv3 node says of itself, read from TensorRT's plugin fields and written to them.
#pragma once

#include <NvInferRuntime.h>

#include "message.h"

namespace dcnv3 {

struct Attributes {
  int32_t kernel_h = 3, kernel_w = 3;
  int32_t stride_h = 1, stride_w = 1;
  int32_t pad_h = 1, pad_w = 1;
  int32_t dilation_h = 1, dilation_w = 1;
  int32_t group = 0;  // has to be given
  float offset_scale = 1.0f;
  int32_t remove_center = 0;
  int32_t softmax = 0;
  // Of the original's TRTDCNv3 alone; 0: not given, the channels follow from the input.
  int32_t group_channels = 0;
  int32_t im2col_step = 0;  // the original's, without meaning here
};

// The names of the fields, or with `attributes` their values too: those that ONNX nodes have for
// the operator, and with `original` the two of TRTDCNv3 besides. `fields` has room for kMostFields;
// returns how many there are. The data are those of `attributes`, which must outlive them.
constexpr int32_t kMostFields = 14;
int32_t describe_fields(const Attributes* attributes, bool original, nvinfer1::PluginField* fields);

// Returns null, or what is wrong, written to `message`. Fields that are not ours are left alone.
const char* read_fields(const nvinfer1::PluginFieldCollection* collection, Attributes* attributes,
                        Message& message);

}  // namespace dcnv3
