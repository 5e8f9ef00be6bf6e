// The CUDA kernels seen from a binding (PyTorch's beside this file, TensorRT's in tensorrt/plugin),
// free of torch and of CUDA's headers. Every function that returns text returns null, or what went
// wrong.
#pragma once

#include "plan.h"

namespace dcnv3 {

// Makes the device of this number the current one.
const char* query_device(int index, Device* device);

// For callers that have chosen the device already.
const char* query_current_device(Device* device);

// `stream` is a cudaStream_t of that device.
const char* launch_forward(const ForwardArgs& args, const Device& device, void* stream);

const char* launch_backward(const BackwardArgs& args, const Device& device, bool deterministic,
                            void* stream);

}  // namespace dcnv3
