// Called once, when the kernels are to serve CUDA tensors.
#pragma once

namespace dcnv3 {

void register_cuda();

}  // namespace dcnv3
