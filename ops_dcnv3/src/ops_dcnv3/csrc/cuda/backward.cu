// The backward pass, compiled for the GPU.
#include "dispatch.h"
#include "launch.cuh"
#include "launch.h"

namespace dcnv3 {

const char* launch_backward(const BackwardArgs& args, const Device& device, bool deterministic,
                            void* stream) {
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  return backward(args, device, deterministic, CudaLaunch{device, cuda_stream},
                  CudaZero{cuda_stream});
}

}  // namespace dcnv3
