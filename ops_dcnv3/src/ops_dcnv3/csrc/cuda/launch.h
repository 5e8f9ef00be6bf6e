// The CUDA kernels seen from the binding, free of torch and of CUDA's headers. Every function that
// returns text returns null, or what went wrong.
#pragma once

#include "plan.h"

namespace dcnv3 {

const char* query_device(int index, Device* device);

// `stream` is a cudaStream_t of that device.
const char* launch_forward(const ForwardArgs& args, const Device& device, void* stream);

const char* launch_backward(const BackwardArgs& args, const Device& device, bool deterministic,
                            void* stream);

}  // namespace dcnv3
