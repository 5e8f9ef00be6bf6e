// The two functions that the plugin's C entry asks a GPU for, on the host: the kernels' bodies run
// thread by thread, see ops_dcnv3/tests/cuda_host. A stream that is not null is no device.
#include <string>

#include "cuda/dispatch.h"
#include "cuda/launch.h"
#include "host_lanes.h"

namespace dcnv3 {

namespace {

std::string message;

struct HostLaunch {
  template <class Kernel, class Arguments>
  const char* operator()(Kernel, const Arguments& arguments, int64_t blocks, int threads,
                         int64_t shared_bytes) const {
    using host_lanes::HostLanes;
    message = host_lanes::run_grid(blocks, threads, shared_bytes, host_lanes::Schedule{},
                                   [&](HostLanes& lanes) { Kernel::run(arguments, lanes); });
    return message.empty() ? nullptr : message.c_str();
  }
};

}  // namespace

const char* query_current_device(Device* device) {
  *device = {0, 132, 232448, true};
  return nullptr;
}

const char* launch_forward(const ForwardArgs& args, const Device& device, void* stream) {
  if (stream != nullptr) return "the host has no streams";
  return forward(args, device, HostLaunch{});
}

}  // namespace dcnv3
