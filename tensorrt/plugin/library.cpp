// What TensorRT finds in this library: getCreators and setLoggerFinder. It links nothing of
// TensorRT, so that one file serves programs that bring their own.
#include <NvInferRuntime.h>

#include <atomic>
#include <cstdio>
#include <new>

#include "logging.h"
#include "plugin.h"

namespace dcnv3 {

namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

nvinfer1::ILogger* find_logger() noexcept {
  nvinfer1::ILoggerFinder* finder = logger_finder.load();
  if (finder == nullptr) return nullptr;
  try {
    return finder->findLogger();
  } catch (...) {  // not declared noexcept, and nothing may leave this library
    return nullptr;
  }
}

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(Kind kind) : kind_(kind) {
    names_ = {describe_fields(nullptr, kind == Kind::kOriginal, fields_), fields_};
  }

  const char* getPluginName() const noexcept override { return name_of(kind_); }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &names_; }

  // The same for a node of a network and for a plan that is read back: the fields are all there is.
  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    Attributes attributes;
    Message message;
    if (const char* failure = read_fields(fields, &attributes, message)) {
      log_error(name_of(kind_), failure);
      return nullptr;
    }
    return new (std::nothrow) Plugin(kind_, attributes);
  }

 private:
  Kind kind_;
  nvinfer1::PluginField fields_[kMostFields];
  nvinfer1::PluginFieldCollection names_{};
};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) { logger_finder = finder; }

void log_error(const char* plugin, const char* text) noexcept {
  Message message;
  message.set("%s: %s", plugin, text);
  if (nvinfer1::ILogger* logger = find_logger())
    logger->log(nvinfer1::ILogger::Severity::kERROR, message.text);
  else
    std::fprintf(stderr, "%s\n", message.text);
}

}  // namespace dcnv3

extern "C" {

DCNV3_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  dcnv3::set_logger_finder(finder);
}

DCNV3_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  using dcnv3::Creator;
  using dcnv3::Kind;
  // The registry keeps these pointers: they live as long as the library.
  static Creator separate(Kind::kSeparate), packed(Kind::kPacked), original(Kind::kOriginal);
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&separate, &packed, &original};
  count = 3;
  return creators;
}

}  // extern "C"
