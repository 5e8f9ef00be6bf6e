// One allocation cut into aligned arrays; the same code measures it and lays it out.
#pragma once

#include "../dcnv3_scalar.h"

namespace dcnv3 {
namespace DCNV3_LEVEL {

constexpr uintptr_t kCacheLine = 64;

class Arena {
 public:
  // With base = null only the size is found out.
  explicit Arena(void* base) : base_(reinterpret_cast<uintptr_t>(base)), used_(0) {}

  template <typename T>
  T* array(int64_t count) {
    used_ = (used_ + kCacheLine - 1) / kCacheLine * kCacheLine;
    T* result = reinterpret_cast<T*>(base_ + used_);
    used_ += static_cast<uintptr_t>(count) * sizeof(T);
    return result;
  }
  // Bytes, with one vector to spare: loops may write whole vectors.
  uintptr_t size() const { return used_ + kCacheLine; }

 private:
  uintptr_t base_;
  uintptr_t used_;
};

}  // namespace DCNV3_LEVEL
}  // namespace dcnv3
