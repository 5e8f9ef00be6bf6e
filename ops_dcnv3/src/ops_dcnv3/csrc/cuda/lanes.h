// How the threads of a block see each other. The kernels' bodies are templates over such a policy:
// CudaLanes on a GPU; the tests run the same bodies on a CPU, thread by thread, with one of theirs.
#pragma once

#include "../dcnv3_scalar.h"

#if defined(__CUDACC__)
#define DCNV3_KERNEL __device__ __forceinline__
#else
#define DCNV3_KERNEL inline
#endif

namespace dcnv3 {

#if defined(__CUDACC__)

// Every call with "all lanes" in its comment must be reached by all 32 lanes of a warp together.
struct CudaLanes {
  static constexpr unsigned kAll = 0xffffffffu;

  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int block_size() const { return static_cast<int>(blockDim.x); }
  __device__ __forceinline__ int64_t block() const { return blockIdx.x; }

  // The dynamic shared memory of the block.
  __device__ __forceinline__ char* shared() const {
    extern __shared__ __align__(16) char memory[];
    return memory;
  }
  // A barrier of the whole block, which also orders its accesses to shared memory.
  __device__ __forceinline__ void sync() const { __syncthreads(); }

  // The value of lane `source` of the caller's segment of `width` lanes. All lanes.
  template <typename T>
  __device__ __forceinline__ T shuffle(T value, int source, int width) const {
    return __shfl_sync(kAll, value, source, width);
  }
  // The value of the lane whose number differs in the bits of `lane_mask`. All lanes.
  template <typename T>
  __device__ __forceinline__ T shuffle_xor(T value, int lane_mask, int width) const {
    return __shfl_xor_sync(kAll, value, lane_mask, width);
  }
  // Whether the condition holds in all lanes of the warp. All lanes.
  __device__ __forceinline__ bool all(bool condition) const { return __all_sync(kAll, condition); }

  // Adds to two neighbouring numbers of shared memory, each of them atomically.
  __device__ __forceinline__ void add_shared_two(double* address, const double (&values)[2]) const {
    atomicAdd(address, values[0]);
    atomicAdd(address + 1, values[1]);
  }
  // There is no such instruction for float32, and the exchange that stands in takes both at once.
  __device__ __forceinline__ void add_shared_two(float* address, const float (&values)[2]) const {
    using Word = unsigned long long;
    Word* word = reinterpret_cast<Word*>(address);
    Word seen = *static_cast<volatile Word*>(word), expected;
    do {
      expected = seen;
      const float first = __uint_as_float(static_cast<unsigned>(expected)) + values[0];
      const float second = __uint_as_float(static_cast<unsigned>(expected >> 32)) + values[1];
      const Word sum = static_cast<Word>(__float_as_uint(second)) << 32 | __float_as_uint(first);
      seen = atomicCAS(word, expected, sum);
    } while (seen != expected);
  }
  __device__ __forceinline__ void add_shared(float* address, float value) const {
    atomicAdd(address, value);
  }
  template <typename acc_t>
  __device__ __forceinline__ void add_global(acc_t* address, acc_t value) const {
    atomicAdd(address, value);
  }
  // Two neighbouring numbers, each of them atomically; `address` is a multiple of 8 bytes.
  __device__ __forceinline__ void add_global_two(float* address, const float (&values)[2]) const {
#if __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float2*>(address), make_float2(values[0], values[1]));
#else
    atomicAdd(address, values[0]);
    atomicAdd(address + 1, values[1]);
#endif
  }

  // Loads four 8 x 8 matrices of 16-bit numbers from shared memory, transposed: lane i names the
  // row i % 8 of matrix i / 8, 16 bytes on a multiple of 16, and gets, of each matrix, the numbers
  // in the rows 2 (i % 4) and 2 (i % 4) + 1 of the column i / 4. All lanes.
  __device__ __forceinline__ void load_matrices_transposed(uint32_t (&loaded)[4],
                                                           const void* row) const {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(loaded[0]), "=r"(loaded[1]), "=r"(loaded[2]), "=r"(loaded[3])
                 : "r"(address)
                 : "memory");
  }
  // d += a b for a 16 x 16 matrix a and a 16 x 8 matrix b, spread over the lanes as the instruction
  // mma.m16n8k16 has it. All lanes.
  template <typename scalar_t>
  __device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) const {
    if constexpr (kIsBFloat16<scalar_t>)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

#endif

}  // namespace dcnv3
