// The plain C entries of the CUDA kernels that extension.py reads through ctypes.
#include "registration.h"

#include <cuda_runtime.h>

#include <exception>

extern "C" {

// For which GPUs the kernels were compiled: "80 90 120 120+PTX", say.
const char* ops_dcnv3_cuda_archs() { return OPS_DCNV3_CUDA_ARCHS; }

int ops_dcnv3_cuda_runtime_version() { return CUDART_VERSION; }

// The highest version of CUDA that the driver knows; 0 without a driver. Makes no context.
int ops_dcnv3_cuda_driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

// Returns 0, or -1 if PyTorch refuses the kernels.
int ops_dcnv3_register_cuda() {
  try {
    dcnv3::register_cuda();
    return 0;
  } catch (const std::exception&) {
    return -1;
  }
}

}  // extern "C"
