// Asks CUDA's runtime about a device.
#include <cuda_runtime.h>

#include "launch.h"

namespace dcnv3 {

const char* query_device(int index, Device* device) {
  // this library's own runtime has to follow PyTorch's choice of the device
  cudaError_t error = cudaSetDevice(index);
  int multiprocessors = 0, shared_bytes = 0, major = 0;
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  *device = {index, multiprocessors, shared_bytes, major >= 8};
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace dcnv3
