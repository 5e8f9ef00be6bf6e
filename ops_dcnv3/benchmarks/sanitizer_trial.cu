// Tells whether compute-sanitizer works on a machine: `right` must pass it, `outside` must fail
// its memcheck, `race` its racecheck.
#include <cstring>

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

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "right";
  int* numbers = nullptr;
  if (cudaMalloc(&numbers, 128 * sizeof(int)) != cudaSuccess) {
    return 2;
  }
  write_numbers<<<1, 128>>>(numbers, std::strcmp(what, "outside") == 0 ? 1 << 20 : 0);
  reverse<<<1, 128>>>(numbers, std::strcmp(what, "race") != 0);
  const bool right = cudaDeviceSynchronize() == cudaSuccess;
  // the sanitizer's own exit status shows only where the program succeeds
  return right || std::strcmp(what, "right") != 0 ? 0 : 1;
}
