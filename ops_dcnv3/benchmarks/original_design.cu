// The original's kernel design, written anew for the benchmark: what ops_dcnv3's kernels are to
// beat.
//
// Forward: one thread an output number, 256 threads a block, so that each of the D channels of a
// group reads the offsets and weights again, and every corner is a load of one number. Backward:
// one block a (image, pixel, group) with a thread a channel; the gradient of the input by atomic
// adds of one float, those of offset and mask summed over the channels in shared memory, by one
// thread up to 32 channels and by halving above. Its indices are 32-bit, its results float32, like
// its own.
//
// Legend: N batch, H W input, Ho Wo output, G groups, D channels a group, P points.
//
// original_design.py compiles and calls this. A test compiles it for the CPU, where a header
// defines what nvcc has built in, and runs it against the oracle.

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

struct Sizes {
  int batch, height, width, out_height, out_width, groups, channels;
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  float offset_scale;
};

namespace original {

constexpr int kThreads = 256;
constexpr int kSerial = 32;  // channels up to which one thread adds up

// The four corners around one position of one channel; those outside count as zero.
struct Corners {
  float value[4];  // upper left, upper right, lower left, lower right
  int offset[4];   // from the image's first number of this channel; -1 outside
  float fy, fx;    // distances to the upper and the left corners
};

template <typename scalar_t>
__device__ Corners read_corners(const scalar_t* image, const Sizes& s, float py, float px,
                                int stride) {
  Corners c;
  const int top = static_cast<int>(floorf(py)), left = static_cast<int>(floorf(px));
  c.fy = py - static_cast<float>(top);
  c.fx = px - static_cast<float>(left);
  for (int k = 0; k < 4; ++k) {
    const int row = top + k / 2, column = left + k % 2;
    const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
    c.offset[k] = inside ? (row * s.width + column) * stride : -1;
    c.value[k] = inside ? static_cast<float>(image[c.offset[k]]) : 0.0f;
  }
  return c;
}

// Position of point (i, j) of the kernel, columns first, for the output pixel (y, x).
template <typename scalar_t>
__device__ void locate(const Sizes& s, const scalar_t* offset, int y, int x, int i, int j,
                       float* py, float* px) {
  const int half_h = s.dilation_h * (s.kernel_h - 1) / 2;
  const int half_w = s.dilation_w * (s.kernel_w - 1) / 2;
  const int point = i * s.kernel_h + j;
  const float dx = static_cast<float>(offset[2 * point]);
  const float dy = static_cast<float>(offset[2 * point + 1]);
  *px = static_cast<float>(x * s.stride_w - s.padding_w + half_w) +
        s.offset_scale * (static_cast<float>(i * s.dilation_w - half_w) + dx);
  *py = static_cast<float>(y * s.stride_h - s.padding_h + half_h) +
        s.offset_scale * (static_cast<float>(j * s.dilation_h - half_h) + dy);
}

__device__ inline bool contributes(const Sizes& s, float py, float px) {
  return py > -1.0f && px > -1.0f && py < static_cast<float>(s.height) &&
         px < static_cast<float>(s.width);
}

template <typename scalar_t>
__global__ void forward(Sizes s, const scalar_t* image, const scalar_t* offset,
                        const scalar_t* mask, scalar_t* output) {
  const int count = s.batch * s.out_height * s.out_width * s.groups * s.channels;
  const int points = s.kernel_h * s.kernel_w;
  const int stride = s.groups * s.channels;
  for (int index = blockIdx.x * blockDim.x + threadIdx.x; index < count;
       index += blockDim.x * gridDim.x) {
    const int cell = index / s.channels;  // ((n * Ho + y) * Wo + x) * G + g
    const int pixel = cell / s.groups;
    const int x = pixel % s.out_width, y = pixel / s.out_width % s.out_height;
    const int n = pixel / s.out_width / s.out_height;
    const scalar_t* here =
        image + n * s.height * s.width * stride + cell % s.groups * s.channels + index % s.channels;
    float sum = 0.0f;
    for (int i = 0; i < s.kernel_w; ++i) {
      for (int j = 0; j < s.kernel_h; ++j) {
        float py, px;
        locate(s, offset + cell * points * 2, y, x, i, j, &py, &px);
        if (!contributes(s, py, px)) {
          continue;
        }
        const Corners c = read_corners(here, s, py, px, stride);
        const float upper = (1.0f - c.fx) * c.value[0] + c.fx * c.value[1];
        const float lower = (1.0f - c.fx) * c.value[2] + c.fx * c.value[3];
        sum += static_cast<float>(mask[cell * points + i * s.kernel_h + j]) *
               ((1.0f - c.fy) * upper + c.fy * lower);
      }
    }
    output[index] = static_cast<scalar_t>(sum);
  }
}

// Adds up three numbers a thread over the block; the sums are in thread 0's `own` afterwards.
__device__ inline void reduce(float* shared, float own[3]) {
  const int thread = threadIdx.x, threads = blockDim.x;
  for (int k = 0; k < 3; ++k) {
    shared[k * threads + thread] = own[k];
  }
  __syncthreads();
  if (threads <= kSerial) {
    if (thread == 0) {
      for (int other = 1; other < threads; ++other) {
        for (int k = 0; k < 3; ++k) {
          own[k] += shared[k * threads + other];
        }
      }
    }
  } else {
    for (int size = threads; size > 1;) {
      const int kept = (size + 1) / 2;  // an odd one in the middle waits
      if (thread < size / 2) {
        for (int k = 0; k < 3; ++k) {
          shared[k * threads + thread] += shared[k * threads + thread + kept];
        }
      }
      size = kept;
      __syncthreads();
    }
    for (int k = 0; k < 3; ++k) {
      own[k] = shared[k * threads];
    }
  }
  __syncthreads();  // the next point writes there again
}

template <typename scalar_t>
__global__ void backward(Sizes s, const scalar_t* grad_output, const scalar_t* image,
                         const scalar_t* offset, const scalar_t* mask, float* grad_input,
                         float* grad_offset, float* grad_mask) {
  extern __shared__ float shared[];  // three numbers a thread
  const int points = s.kernel_h * s.kernel_w;
  const int stride = s.groups * s.channels;
  const int cell = blockIdx.x;
  const int pixel = cell / s.groups;
  const int x = pixel % s.out_width, y = pixel / s.out_width % s.out_height;
  const int n = pixel / s.out_width / s.out_height;
  const int first = n * s.height * s.width * stride + cell % s.groups * s.channels + threadIdx.x;
  const float top = static_cast<float>(grad_output[cell * s.channels + threadIdx.x]);
  for (int i = 0; i < s.kernel_w; ++i) {
    for (int j = 0; j < s.kernel_h; ++j) {
      const int point = cell * points + i * s.kernel_h + j;
      float py, px;
      locate(s, offset + cell * points * 2, y, x, i, j, &py, &px);
      float sums[3] = {0.0f, 0.0f, 0.0f};  // grad_offset x and y, grad_mask
      if (contributes(s, py, px)) {
        const Corners c = read_corners(image + first, s, py, px, stride);
        const float weight = static_cast<float>(mask[point]);
        const float shares[4] = {(1.0f - c.fy) * (1.0f - c.fx), (1.0f - c.fy) * c.fx,
                                 c.fy * (1.0f - c.fx), c.fy * c.fx};
        float value = 0.0f;
        for (int k = 0; k < 4; ++k) {
          value += shares[k] * c.value[k];
          if (c.offset[k] >= 0) {
            atomicAdd(grad_input + first + c.offset[k], weight * shares[k] * top);
          }
        }
        const float along_x =
            (1.0f - c.fy) * (c.value[1] - c.value[0]) + c.fy * (c.value[3] - c.value[2]);
        const float along_y =
            (1.0f - c.fx) * (c.value[2] - c.value[0]) + c.fx * (c.value[3] - c.value[1]);
        sums[0] = s.offset_scale * weight * along_x * top;
        sums[1] = s.offset_scale * weight * along_y * top;
        sums[2] = value * top;
      }
      reduce(shared, sums);
      if (threadIdx.x == 0) {
        grad_offset[2 * point] = sums[0];
        grad_offset[2 * point + 1] = sums[1];
        grad_mask[point] = sums[2];
      }
    }
  }
}

}  // namespace original

#ifdef __CUDACC__
namespace {

template <typename scalar_t>
int launch_forward(const Sizes& s, const void* image, const void* offset, const void* mask,
                   void* output, cudaStream_t stream) {
  const int count = s.batch * s.out_height * s.out_width * s.groups * s.channels;
  const int blocks = (count + original::kThreads - 1) / original::kThreads;
  original::forward<scalar_t><<<blocks, original::kThreads, 0, stream>>>(
      s, static_cast<const scalar_t*>(image), static_cast<const scalar_t*>(offset),
      static_cast<const scalar_t*>(mask), static_cast<scalar_t*>(output));
  return static_cast<int>(cudaGetLastError());
}

template <typename scalar_t>
int launch_backward(const Sizes& s, const void* grad_output, const void* image, const void* offset,
                    const void* mask, float* grad_input, float* grad_offset, float* grad_mask,
                    cudaStream_t stream) {
  const int blocks = s.batch * s.out_height * s.out_width * s.groups;
  original::backward<scalar_t><<<blocks, s.channels, 3 * s.channels * sizeof(float), stream>>>(
      s, static_cast<const scalar_t*>(grad_output), static_cast<const scalar_t*>(image),
      static_cast<const scalar_t*>(offset), static_cast<const scalar_t*>(mask), grad_input,
      grad_offset, grad_mask);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

// Both return a CUDA error code, 0 for success. D is at most 1024, the threads of a block.

extern "C" int original_forward(const Sizes* s, bool half, const void* image, const void* offset,
                                const void* mask, void* output, void* stream) {
  const auto launch = half ? launch_forward<__half> : launch_forward<float>;
  return launch(*s, image, offset, mask, output, static_cast<cudaStream_t>(stream));
}

extern "C" int original_backward(const Sizes* s, bool half, const void* grad_output,
                                 const void* image, const void* offset, const void* mask,
                                 float* grad_input, float* grad_offset, float* grad_mask,
                                 void* stream) {
  const auto launch = half ? launch_backward<__half> : launch_backward<float>;
  return launch(*s, grad_output, image, offset, mask, grad_input, grad_offset, grad_mask,
                static_cast<cudaStream_t>(stream));
}
#endif
