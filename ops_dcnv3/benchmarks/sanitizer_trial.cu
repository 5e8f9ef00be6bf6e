// Tells whether compute-sanitizer works on a machine: `right` must pass it, `outside` must fail
// its memcheck, `race` its racecheck. `exchange` is right too, but its loop reads a number without
// an atomic before it exchanges it: where racecheck flags that, it cannot judge our kernels.
#include <cstring>

#include "../src/ops_dcnv3/csrc/cuda/lanes.h"

__global__ void write_numbers(int* numbers, int shift) {
  numbers[threadIdx.x + shift] = static_cast<int>(threadIdx.x);
}

__global__ void reverse(int* numbers, bool wait) {
  __shared__ int shared[128];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (wait) {
    __syncthreads();
  }
  numbers[threadIdx.x] = shared[127 - threadIdx.x];
}

// All threads add to the same two numbers.
__global__ void exchange(int* sums) {
  __shared__ __align__(8) float shared[2];
  if (threadIdx.x < 2) {
    shared[threadIdx.x] = 0;
  }
  __syncthreads();
  const float values[2] = {1, 2};
  dcnv3::CudaLanes().add_shared_two(shared, values);
  __syncthreads();
  if (threadIdx.x < 2) {
    sums[threadIdx.x] = static_cast<int>(shared[threadIdx.x]);
  }
}

int exchange_all(int* numbers) {
  exchange<<<1, 128>>>(numbers);
  int sums[2] = {};
  const cudaError_t error = cudaMemcpy(sums, numbers, sizeof(sums), cudaMemcpyDeviceToHost);
  return error == cudaSuccess && sums[0] == 128 && sums[1] == 256 ? 0 : 1;
}

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "right";
  int* numbers = nullptr;
  if (cudaMalloc(&numbers, 128 * sizeof(int)) != cudaSuccess) {
    return 2;
  }
  if (std::strcmp(what, "exchange") == 0) {
    return exchange_all(numbers);
  }
  write_numbers<<<1, 128>>>(numbers, std::strcmp(what, "outside") == 0 ? 1 << 20 : 0);
  reverse<<<1, 128>>>(numbers, std::strcmp(what, "race") != 0);
  const bool right = cudaDeviceSynchronize() == cudaSuccess;
  // the sanitizer's own exit status shows only where the program succeeds
  return right || std::strcmp(what, "right") != 0 ? 0 : 1;
}
