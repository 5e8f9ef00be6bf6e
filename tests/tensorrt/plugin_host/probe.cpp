// Calls the plugin as TensorRT does, for tests through ctypes: a plugin is made from fields by its
// creator and handed out as an address. With sizes in place of a network's expressions.
#include <NvInfer.h>

#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "logging.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace {

using namespace nvinfer1;

// A size that is known, or only at run time: then isConstant() is false, as for a dynamic axis.
class Size final : public IDimensionExpr, public apiv::VDimensionExpr {
 public:
  Size(int64_t value, bool known) : value_(value), known_(known) { mImpl = this; }
  bool isConstant() const override { return known_; }
  int64_t getConstantValue() const override { return known_ ? value_ : INT64_MIN; }
  bool isSizeTensor() const override { return false; }
  int64_t value() const { return value_; }
  bool known() const { return known_; }

 private:
  int64_t value_;
  bool known_;
};

class Builder final : public IExprBuilder, public apiv::VExprBuilder {
 public:
  Builder() { mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override { return add(value, true); }
  const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr& first,
                                  const IDimensionExpr& second) override {
    const Size& a = static_cast<const Size&>(first);
    const Size& b = static_cast<const Size&>(second);
    const bool known = a.known() && b.known();
    switch (operation) {
      case DimensionOperation::kSUM:
        return add(a.value() + b.value(), known);
      case DimensionOperation::kFLOOR_DIV:
        return add(a.value() / b.value(), known);
      default:
        return nullptr;  // the plugin asks for no other
    }
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) override {
    return nullptr;
  }
  const Size* add(int64_t value, bool known) {
    sizes_.emplace_back(value, known);
    return &sizes_.back();
  }

 private:
  std::deque<Size> sizes_;
};

std::string logged;

class Log final : public ILogger {
 public:
  void log(Severity, const char* text) noexcept override { logged += std::string(text) + "\n"; }
};

class Finder final : public ILoggerFinder {
 public:
  explicit Finder(bool throws) : throws_(throws) {}
  ILogger* findLogger() override {
    static Log log;
    if (throws_) throw 1;
    return &log;
  }

 private:
  bool throws_;
};

template <class Capability>
Capability* capability(void* plugin, PluginCapabilityType type) {
  return static_cast<Capability*>(static_cast<IPluginV3*>(plugin)->getCapabilityInterface(type));
}
IPluginV3OneBuild* build_of(void* plugin) {
  return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}
IPluginV3OneRuntime* runtime_of(void* plugin) {
  return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}
IPluginV3OneCore* core_of(void* plugin) {
  return capability<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE);
}

IPluginCreatorV3One* creator_of(const char* name) {
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = getCreators(count);
  for (int32_t k = 0; k < count; ++k) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[k]);
    if (std::strcmp(creator->getPluginName(), name) == 0) return creator;
  }
  return nullptr;
}

// Four sizes of each tensor, inputs first.
std::vector<PluginTensorDesc> descs_of(const int64_t* sizes, const int32_t* types, int32_t count) {
  std::vector<PluginTensorDesc> descs(static_cast<size_t>(count));
  for (int32_t k = 0; k < count; ++k) {
    PluginTensorDesc& desc = descs[static_cast<size_t>(k)];
    desc.dims.nbDims = 4;
    for (int axis = 0; axis < 4; ++axis) desc.dims.d[axis] = sizes[4 * k + axis];
    desc.type = static_cast<DataType>(types[k]);
    desc.format = TensorFormat::kLINEAR;
  }
  return descs;
}

}  // namespace

extern "C" {

// 0: no finder, 1: a logger whose text logged_text() returns, 2: a finder that throws.
void use_logger(int kind) {
  static Finder finder(false), throwing(true);
  setLoggerFinder(kind == 0 ? nullptr : kind == 1 ? &finder : &throwing);
  logged.clear();
}
const char* logged_text() { return logged.c_str(); }

// One name a line.
const char* field_names(const char* creator_name) {
  static std::string names;
  names.clear();
  const PluginFieldCollection* fields = creator_of(creator_name)->getFieldNames();
  for (int32_t k = 0; k < fields->nbFields; ++k)
    names += std::string(fields->fields[k].name) + "\n";
  return names.c_str();
}

// `data[k]` holds one number of the PluginFieldType types[k].
void* create(const char* creator_name, const char* const* names, const void* const* data,
             const int32_t* types, int32_t count) {
  std::vector<PluginField> fields;
  for (int32_t k = 0; k < count; ++k)
    fields.emplace_back(names[k], data[k], static_cast<PluginFieldType>(types[k]), 1);
  const PluginFieldCollection collection{count, fields.data()};
  return creator_of(creator_name)->createPlugin("node", &collection, TensorRTPhase::kBUILD);
}
void* clone(void* plugin) { return static_cast<IPluginV3*>(plugin)->clone(); }
void* attach(void* plugin) { return runtime_of(plugin)->attachToContext(nullptr); }
// Through the fields that a plan would hold.
void* read_back(void* plugin) {
  const PluginFieldCollection* fields = runtime_of(plugin)->getFieldsToSerialize();
  return creator_of(core_of(plugin)->getPluginName())
      ->createPlugin("node", fields, TensorRTPhase::kRUNTIME);
}
void release(void* plugin) { delete static_cast<IPluginV3*>(plugin); }

// One "name=value" a line.
const char* serialized(void* plugin) {
  static std::string text;
  text.clear();
  const PluginFieldCollection* fields = runtime_of(plugin)->getFieldsToSerialize();
  for (int32_t k = 0; k < fields->nbFields; ++k) {
    const PluginField& field = fields->fields[k];
    const bool is_float = field.type == PluginFieldType::kFLOAT32;
    text += std::string(field.name) + "=" +
            (is_float ? std::to_string(*static_cast<const float*>(field.data))
                      : std::to_string(*static_cast<const int32_t*>(field.data))) +
            "\n";
  }
  return text.c_str();
}

int has_all_capabilities(void* plugin) {
  auto* core = core_of(plugin);
  return core != nullptr && build_of(plugin) != nullptr && runtime_of(plugin) != nullptr &&
         std::strcmp(core->getPluginVersion(), "1") == 0 && *core->getPluginNamespace() == '\0' &&
         build_of(plugin)->getNbOutputs() == 1;
}

// `ranks`: dimensions of each input, of which `sizes` holds four, with -1 - n for a size n that is
// known at run time only. Returns the plugin's word and writes the sizes of the output.
int output_shape(void* plugin, const int64_t* sizes, const int32_t* ranks, int32_t count,
                 int64_t* output) {
  Builder builder;
  std::vector<DimsExprs> inputs(static_cast<size_t>(count));
  for (int32_t k = 0; k < count; ++k) {
    inputs[static_cast<size_t>(k)].nbDims = ranks[k];
    for (int axis = 0; axis < 4; ++axis) {
      const int64_t size = sizes[4 * k + axis];
      inputs[static_cast<size_t>(k)].d[axis] = builder.add(size < 0 ? -1 - size : size, size >= 0);
    }
  }
  DimsExprs result{};
  const int status =
      build_of(plugin)->getOutputShapes(inputs.data(), count, nullptr, 0, &result, 1, builder);
  if (status != 0 || result.nbDims != 4) return status == 0 ? -2 : status;
  for (int axis = 0; axis < 4; ++axis)
    output[axis] = static_cast<const Size*>(result.d[axis])->value();
  return 0;
}

int output_type(void* plugin, const int32_t* types, int32_t count) {
  std::vector<DataType> inputs;
  for (int32_t k = 0; k < count; ++k) inputs.push_back(static_cast<DataType>(types[k]));
  DataType output = DataType::kBOOL;
  const int status = build_of(plugin)->getOutputDataTypes(&output, 1, inputs.data(), count);
  return status != 0 ? -1 : static_cast<int>(output);
}

// Whether all tensors, the output last, may have these types and formats together.
int supports(void* plugin, const int32_t* types, const int32_t* formats, int32_t count) {
  std::vector<DynamicPluginTensorDesc> tensors(static_cast<size_t>(count));
  for (int32_t k = 0; k < count; ++k) {
    tensors[static_cast<size_t>(k)].desc.type = static_cast<DataType>(types[k]);
    tensors[static_cast<size_t>(k)].desc.format = static_cast<TensorFormat>(formats[k]);
  }
  for (int32_t k = 0; k < count; ++k)
    if (!build_of(plugin)->supportsFormatCombination(k, tensors.data(), count - 1, 1)) return 0;
  return 1;
}

// Sizes and types of the inputs, then of the output. 0, or -1 where the shapes are refused and -2
// where the run is.
int run(void* plugin, const int64_t* sizes, const int32_t* types, int32_t num_inputs,
        const void* const* inputs, void* output, void* stream) {
  const std::vector<PluginTensorDesc> descs = descs_of(sizes, types, num_inputs + 1);
  const PluginTensorDesc* output_desc = &descs[static_cast<size_t>(num_inputs)];
  IPluginV3OneRuntime* runtime = runtime_of(plugin);
  if (runtime->onShapeChange(descs.data(), num_inputs, output_desc, 1) != 0) return -1;
  void* outputs[] = {output};
  const int status = runtime->enqueue(descs.data(), output_desc, inputs, outputs, nullptr,
                                      static_cast<cudaStream_t>(stream));
  return status == 0 ? 0 : -2;
}

}  // extern "C"
