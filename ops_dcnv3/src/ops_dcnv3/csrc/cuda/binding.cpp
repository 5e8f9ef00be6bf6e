// The CUDA kernels as PyTorch's. Without CUDA's headers and without a link to its libraries beyond
// the runtime that is linked in, so that the extension loads where there is no driver and PyTorch
// has no CUDA; nothing here touches a device before register_cuda() is called.
#include "../operators.h"

#include <torch/csrc/stable/accelerator.h>

#include "launch.h"
#include "registration.h"

// Declared in PyTorch's shim.h for builds of PyTorch itself alone; weak, since only a PyTorch with
// CUDA has it.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream)
    __attribute__((weak));

namespace {

using dcnv3::BackwardArgs;
using dcnv3::Device;
using dcnv3::DType;
using dcnv3::ForwardArgs;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

void check(const char* failure) {
  STD_TORCH_CHECK(failure == nullptr, "ops_dcnv3: a CUDA kernel cannot be started: ", failure);
}

// Makes the device of a tensor the current one while it lives.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    check(dcnv3::query_device(tensor.get_device_index(), &device));
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                    "ops_dcnv3: this PyTorch has no CUDA");
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device.index, &stream));
  }

  Device device;
  void* stream = nullptr;

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

struct CudaBackend {
  static void forward(const ForwardArgs& args, const Tensor& input) {
    const OnDeviceOf on(input);
    check(dcnv3::launch_forward(args, on.device, on.stream));
  }

  static void backward(BackwardArgs args, const Tensor& input, bool deterministic) {
    const OnDeviceOf on(input);
    const int64_t numbers = dcnv3::partial_numbers(args, on.device, deterministic);
    Tensor partial = input;  // stays unused where none is needed
    if (numbers > 0) {
      const bool is_double = args.forward.dtype == DType::kFloat64;
      partial = torch::stable::new_empty(input, {numbers},
                                         is_double ? ScalarType::Double : ScalarType::Float);
      args.partial = partial.mutable_data_ptr();
    }
    check(dcnv3::launch_backward(args, on.device, deterministic, on.stream));
  }
};

}  // namespace

namespace dcnv3 {

void register_cuda() {
  using torch::stable::detail::StableLibrary;
  using torch::stable::detail::StableTorchLibraryInit;
  static const StableTorchLibraryInit registration(StableLibrary::Kind::IMPL,
                                                   &Operators<CudaBackend>::register_in,
                                                   "ops_dcnv3", "CUDA", __FILE__, __LINE__);
}

}  // namespace dcnv3
