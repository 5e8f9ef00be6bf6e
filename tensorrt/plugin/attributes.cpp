#include "attributes.h"

#include <cmath>
#include <cstring>

namespace dcnv3 {

namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

struct IntegerField {
  const char* name;
  int32_t Attributes::* member;
  int32_t least, most;
};

// The product of any two, such as dilation x (kernel - 1), then fits into 64 bits.
constexpr int32_t kMost = 1 << 30;
constexpr IntegerField kIntegers[] = {
    {"kernel_h", &Attributes::kernel_h, 1, kMost},
    {"kernel_w", &Attributes::kernel_w, 1, kMost},
    {"stride_h", &Attributes::stride_h, 1, kMost},
    {"stride_w", &Attributes::stride_w, 1, kMost},
    {"pad_h", &Attributes::pad_h, 0, kMost},
    {"pad_w", &Attributes::pad_w, 0, kMost},
    {"dilation_h", &Attributes::dilation_h, 1, kMost},
    {"dilation_w", &Attributes::dilation_w, 1, kMost},
    {"group", &Attributes::group, 1, kMost},
    {"remove_center", &Attributes::remove_center, 0, 1},
    {"softmax", &Attributes::softmax, 0, 1},
    // behind all others: the original's alone
    {"group_channels", &Attributes::group_channels, 0, kMost},
    {"im2col_step", &Attributes::im2col_step, 0, kMost},
};
constexpr int32_t kOriginalFields = 2;
constexpr const char* kScale = "offset_scale";
constexpr int32_t kNumIntegers = static_cast<int32_t>(sizeof(kIntegers) / sizeof(kIntegers[0]));
static_assert(kNumIntegers + 1 == kMostFields, "all fields have room");

bool read_integer(const PluginField& field, int64_t* value) {
  if (field.data == nullptr || field.length != 1) return false;
  if (field.type == PluginFieldType::kINT32) {
    *value = *static_cast<const int32_t*>(field.data);
    return true;
  }
  if (static_cast<int32_t>(field.type) == 10) {  // kINT64, which the first headers of 10 lack
    std::memcpy(value, field.data, sizeof(*value));
    return true;
  }
  return false;
}

bool read_number(const PluginField& field, float* value) {
  if (field.data == nullptr || field.length != 1) return false;
  if (field.type == PluginFieldType::kFLOAT32)
    *value = *static_cast<const float*>(field.data);
  else if (field.type == PluginFieldType::kFLOAT64)
    *value = static_cast<float>(*static_cast<const double*>(field.data));
  else
    return false;
  return true;
}

const char* read_field(const PluginField& field, Attributes* attributes, Message& message) {
  if (std::strcmp(field.name, kScale) == 0) {
    if (!read_number(field, &attributes->offset_scale))
      return message.set("expected offset_scale = one float");
    if (!std::isfinite(attributes->offset_scale))
      return message.set("expected a finite offset_scale, got %g", attributes->offset_scale);
    return nullptr;
  }
  for (const IntegerField& known : kIntegers) {
    if (std::strcmp(field.name, known.name) != 0) continue;
    int64_t value = 0;
    if (!read_integer(field, &value)) return message.set("expected %s = one integer", known.name);
    if (value < known.least || value > known.most)
      return message.set("expected %s from %d to %d, got %lld", known.name, known.least, known.most,
                         static_cast<long long>(value));
    attributes->*known.member = static_cast<int32_t>(value);
    return nullptr;
  }
  return nullptr;
}

}  // namespace

int32_t describe_fields(const Attributes* attributes, bool original, PluginField* fields) {
  const void* scale = attributes == nullptr ? nullptr : &attributes->offset_scale;
  int32_t count = 0;
  fields[count++] = PluginField(kScale, scale, PluginFieldType::kFLOAT32, 1);
  const int32_t integers = original ? kNumIntegers : kNumIntegers - kOriginalFields;
  for (int32_t k = 0; k < integers; ++k) {
    const void* data = attributes == nullptr ? nullptr : &(attributes->*kIntegers[k].member);
    fields[count++] = PluginField(kIntegers[k].name, data, PluginFieldType::kINT32, 1);
  }
  return count;
}

const char* read_fields(const nvinfer1::PluginFieldCollection* collection, Attributes* attributes,
                        Message& message) {
  if (collection == nullptr || (collection->nbFields > 0 && collection->fields == nullptr))
    return message.set("expected plugin fields, got null");
  for (int32_t k = 0; k < collection->nbFields; ++k) {
    const PluginField& field = collection->fields[k];
    if (field.name == nullptr) return message.set("expected names of plugin fields, got null");
    if (const char* failure = read_field(field, attributes, message)) return failure;
  }
  if (attributes->group == 0) return message.set("expected a field group, got none");
  if (attributes->remove_center && (attributes->kernel_h % 2 == 0 || attributes->kernel_w % 2 == 0))
    return message.set("expected an odd kernel with remove_center, got %d x %d",
                       attributes->kernel_h, attributes->kernel_w);
  if (attributes->remove_center && attributes->kernel_h == 1 && attributes->kernel_w == 1)
    return message.set("expected a sampling point, got a 1 x 1 kernel with remove_center");
  return nullptr;
}

}  // namespace dcnv3
