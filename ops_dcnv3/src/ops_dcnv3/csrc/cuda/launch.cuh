// Launching a kernel of dispatch.h on a GPU.
#pragma once

#include <cuda_runtime.h>

#include "lanes.h"
#include "plan.h"

namespace dcnv3 {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlocks)
    entry(const __grid_constant__ typename Kernel::Arguments arguments) {
  Kernel::run(arguments, CudaLanes{});
}

inline const char* text_of(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

struct CudaLaunch {
  const Device& device;
  cudaStream_t stream;

  template <class Kernel>
  const char* operator()(Kernel, const typename Kernel::Arguments& arguments, int64_t blocks,
                         int threads, int64_t shared) const {
    if (blocks > 0x7fffffff) return "the tensors need more than 2^31 - 1 blocks";
    // Beyond 48 KiB a kernel has to be told that it may. Always the same number: calls of other
    // threads may come between this one and the launch.
    if (shared > 48 * 1024) {
      const cudaError_t error =
          cudaFuncSetAttribute(entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(device.shared_bytes));
      if (error != cudaSuccess) return text_of(error);
    }
    entry<Kernel><<<static_cast<unsigned>(blocks), threads, static_cast<size_t>(shared), stream>>>(
        arguments);
    return text_of(cudaGetLastError());
  }
};

struct CudaZero {
  cudaStream_t stream;

  const char* operator()(void* memory, int64_t bytes) const {
    return text_of(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream));
  }
};

}  // namespace dcnv3
