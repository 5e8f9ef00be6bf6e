// Asks CUDA's runtime about a device.
#include <cuda_runtime.h>

#include "launch.h"

namespace dcnv3 {

const char* query_device(int index, Device* device) {
  // this library's own runtime has to follow PyTorch's choice of the device
  cudaError_t error = cudaSetDevice(index);
  int multiprocessors = 0, shared_bytes = 0;
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  // kernels are compiled for 8.0 and later only, which all have these tensor cores
  *device = {index, multiprocessors, shared_bytes, true};
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace dcnv3
