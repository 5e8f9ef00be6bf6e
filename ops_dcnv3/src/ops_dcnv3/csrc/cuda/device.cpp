// Asks CUDA's runtime about a device.
#include <cuda_runtime.h>

#include "launch.h"

namespace dcnv3 {

namespace {

const char* describe(int index, Device* device) {
  int multiprocessors = 0, shared_bytes = 0;
  cudaError_t error =
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  // kernels are compiled for 8.0 and later only, which all have these tensor cores
  *device = {index, multiprocessors, shared_bytes, true};
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* query_device(int index, Device* device) {
  // this library's own runtime has to follow PyTorch's choice of the device
  const cudaError_t error = cudaSetDevice(index);
  return error == cudaSuccess ? describe(index, device) : cudaGetErrorString(error);
}

const char* query_current_device(Device* device) {
  int index = 0;
  const cudaError_t error = cudaGetDevice(&index);
  return error == cudaSuccess ? describe(index, device) : cudaGetErrorString(error);
}

}  // namespace dcnv3
