// Runs benchmarks/original_design.cu on the CPU, a thread of the system for each thread of a block.
#include <pthread.h>

#include <cmath>
#include <mutex>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__

namespace {

struct Index {
  int x;
};

thread_local Index threadIdx, blockIdx;
Index blockDim, gridDim;
pthread_barrier_t barrier;
std::mutex one_at_a_time;

void __syncthreads() { pthread_barrier_wait(&barrier); }

void atomicAdd(float* address, float value) {
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  *address += value;
}

}  // namespace

namespace original {
float shared[3 * 1024];  // of the one block that runs at a time
}

#include "../benchmarks/original_design.cu"

namespace {

// Blocks one after another, the threads of each at the same time.
template <typename Kernel>
void launch(int blocks, int threads, Kernel kernel) {
  gridDim.x = blocks;
  blockDim.x = threads;
  pthread_barrier_init(&barrier, nullptr, threads);
  std::vector<std::thread> team;
  for (int thread = 0; thread < threads; ++thread) {
    team.emplace_back([=] {
      threadIdx.x = thread;
      for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        kernel();
        __syncthreads();
      }
    });
  }
  for (std::thread& member : team) {
    member.join();
  }
  pthread_barrier_destroy(&barrier);
}

}  // namespace

extern "C" void host_forward(const Sizes* s, int blocks, const float* image, const float* offset,
                             const float* mask, float* output) {
  launch(blocks, 8, [=] { original::forward(*s, image, offset, mask, output); });
}

extern "C" void host_backward(const Sizes* s, const float* grad_output, const float* image,
                              const float* offset, const float* mask, float* grad_input,
                              float* grad_offset, float* grad_mask) {
  const int blocks = s->batch * s->out_height * s->out_width * s->groups;
  launch(blocks, s->channels, [=] {
    original::backward(*s, grad_output, image, offset, mask, grad_input, grad_offset, grad_mask);
  });
}
