// Where the plugin says what is wrong: TensorRT's logger where it has handed one over, else
// standard error. TensorRT itself learns only that a call failed.
#pragma once

#include <NvInferRuntime.h>

namespace dcnv3 {

void set_logger_finder(nvinfer1::ILoggerFinder* finder);

// As "DCNv3Packed: <what is wrong>".
void log_error(const char* plugin, const char* text) noexcept;

}  // namespace dcnv3
