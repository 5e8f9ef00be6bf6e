// The forward pass, compiled for the GPU.
#include "dispatch.h"
#include "launch.cuh"
#include "launch.h"

namespace dcnv3 {

const char* launch_forward(const ForwardArgs& args, const Device& device, void* stream) {
  return forward(args, device, CudaLaunch{device, static_cast<cudaStream_t>(stream)});
}

}  // namespace dcnv3
