// Matrices spread over the lanes of a warp, as a GPU's instructions for them have it: written from
// the figures of the PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type" and
// "ldmatrix".
#pragma once

#include <stdint.h>

#include <cstring>

namespace host_lanes {

// mma.sync.aligned.m16n8k16.row.col.f32: d += a b, with a (16, 16), b (16, 8) and d (16, 8).
struct Multiplication {
  float* d;           // 4 numbers
  const uint32_t* a;  // 4 pairs of 16-bit numbers, the first in the low half
  const uint32_t* b;  // 2 pairs
};

// Half `half` of a word as the 16-bit format `scalar_t`, in double.
template <typename scalar_t>
double half_of(uint32_t word, int half) {
  return static_cast<double>(to_compute(scalar_t{static_cast<uint16_t>(word >> (16 * half))}));
}

// The sum is rounded once; a GPU keeps a few bits less on the way.
template <typename scalar_t>
void multiply(void* const (&lanes)[32]) {
  double a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Multiplication& own = *static_cast<const Multiplication*>(lanes[lane]);
    const int group = lane / 4, member = lane % 4;
    for (int k = 0; k < 8; ++k) {  // a0 to a7
      const int row = group + (k / 2 % 2 == 0 ? 0 : 8);
      const int column = member * 2 + k % 2 + (k < 4 ? 0 : 8);
      a[row][column] = half_of<scalar_t>(own.a[k / 2], k % 2);
    }
    for (int k = 0; k < 4; ++k)  // b0 to b3
      b[member * 2 + k % 2 + (k < 2 ? 0 : 8)][group] = half_of<scalar_t>(own.b[k / 2], k % 2);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Multiplication& own = *static_cast<const Multiplication*>(lanes[lane]);
    for (int k = 0; k < 4; ++k) {  // c0 to c3
      const int row = lane / 4 + (k < 2 ? 0 : 8), column = lane % 4 * 2 + k % 2;
      double sum = own.d[k];
      for (int inner = 0; inner < 16; ++inner) sum += a[row][inner] * b[inner][column];
      own.d[k] = static_cast<float>(sum);
    }
  }
}

// ldmatrix.sync.aligned.m8n8.x4.trans.b16: lane i brings row i % 8 of matrix i / 8 and gets, of
// each matrix, the rows 2 (i % 4) and 2 (i % 4) + 1 of column i / 4.
struct TransposedLoad {
  uint16_t row[8];
  uint32_t* loaded;  // 4 pairs
};

inline void load_transposed(void* const (&lanes)[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    const TransposedLoad& own = *static_cast<const TransposedLoad*>(lanes[lane]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint32_t pair = 0;
      for (int half = 0; half < 2; ++half) {
        const int row = lane % 4 * 2 + half;
        const auto& source = *static_cast<const TransposedLoad*>(lanes[matrix * 8 + row]);
        pair |= static_cast<uint32_t>(source.row[lane / 4]) << (16 * half);
      }
      own.loaded[matrix] = pair;
    }
  }
}

}  // namespace host_lanes
