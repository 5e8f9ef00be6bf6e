// The CUDA kernels as a library of plain C functions that run them on the host, thread by thread:
// the very bodies, launch plans and dispatch of csrc/cuda, under the policy of host_lanes.h. Built
// and called by host_kernels.py.
#include <cstring>
#include <string>

#include "cuda/dispatch.h"
#include "host_lanes.h"

namespace {

using namespace dcnv3;
using host_lanes::HostLanes;

// How to run; the layout is that of _Run in host_kernels.py.
struct Run {
  int32_t order;  // of host_lanes::Order
  int32_t multiprocessors;
  int64_t seed;
  int64_t shared_bytes;  // that a block can have
  // Forced tiles, where `side` is not 0: pixels along a side, groups, threads of a block at most;
  // and pixels that a window reaches beyond the kernels' centres besides the regular grid.
  int32_t side, groups, threads, margin;
  int32_t deterministic;
  int32_t only_check;  // launches are checked and not run
  int32_t matrices;    // of Device

  Device device() const { return {0, multiprocessors, shared_bytes, matrices != 0}; }
};

// The text that the last call returned.
std::string& message() {
  static std::string text;
  return text;
}
const char* answer(const char* failure) {
  message() = failure == nullptr ? "" : failure;
  return message().c_str();
}

// Lanes that share a cell.
template <template <typename, int> class Kernel, typename scalar_t, int kLanes>
constexpr int lanes_of(Kernel<scalar_t, kLanes>) {
  return kLanes;
}
template <template <typename> class Kernel, typename scalar_t>
constexpr int lanes_of(Kernel<scalar_t>) {
  return Kernel<scalar_t>::kLanes;
}

const ForwardArgs& forward_of(const ForwardArgs& args) { return args; }
const ForwardArgs& forward_of(const BackwardArgs& args) { return args.forward; }

// Puts smaller tiles in place of the planned ones.
template <class Kernel, class Arguments>
void force_tiles(TilePlan& plan, Kernel kernel, const Arguments& arguments, const Run& run) {
  plan = TilePlan::of(forward_of(arguments.args).params, run.side, run.groups, lanes_of(kernel),
                      smaller(run.threads, Kernel::kThreads));
}
template <class Kernel, class Arguments>
void force_tiles(WindowPlan& plan, Kernel, const Arguments& arguments, const Run& run) {
  if (plan.exclusive) return;  // its window is the whole image
  plan = plan_window(arguments.args, Device{0, 1, host_lanes::kMaxSharedBytes, false}, run.side,
                     run.margin);
}
template <class Kernel, class Arguments>
void force_tiles(MatrixPlan& plan, Kernel, const Arguments& arguments, const Run& run) {
  if (plan.exclusive) return;
  plan.tiles =
      TilePlan::of(forward_of(arguments.args).params, smaller(run.side, 8), 1, 1, kMatrixCells);
  plan.blocks = plan.tiles.blocks * plan.chunks_of_depth;
}
template <class Plan, class Kernel, class Arguments>
void force_tiles(Plan&, Kernel, const Arguments&, const Run&) {}

struct HostLaunch {
  const Run& run;

  template <class Kernel, class Arguments>
  const char* operator()(Kernel kernel, Arguments arguments, int64_t blocks, int threads,
                         int64_t shared_bytes) const {
    if constexpr (HasPlan<Arguments>::value) {
      if (run.side > 0) {
        force_tiles(arguments.plan, kernel, arguments, run);
        shape_of(arguments.plan, blocks, threads, shared_bytes);
      }
    }
    const host_lanes::Schedule schedule{static_cast<host_lanes::Order>(run.order),
                                        static_cast<uint64_t>(run.seed)};
    if (threads > Kernel::kThreads) return "more threads than the kernel is compiled for";
    if (shared_bytes > run.shared_bytes && run.side == 0) return "more shared memory than there is";
    message() = run.only_check ? host_lanes::check_launch(blocks, threads, shared_bytes)
                               : host_lanes::run_grid(
                                     blocks, threads, shared_bytes, schedule,
                                     [&](HostLanes& lanes) { Kernel::run(arguments, lanes); });
    return message().empty() ? nullptr : message().c_str();
  }

 private:
  template <class Arguments, class = void>
  struct HasPlan : std::false_type {};
  template <class Arguments>
  struct HasPlan<Arguments, decltype(void(std::declval<Arguments>().plan))> : std::true_type {};

  static void shape_of(const TilePlan& plan, int64_t& blocks, int& threads, int64_t&) {
    blocks = plan.blocks;
    threads = plan.threads;
  }
  static void shape_of(const WindowPlan& plan, int64_t& blocks, int& threads, int64_t& shared) {
    blocks = plan.blocks;
    threads = plan.tiles.threads;
    shared = plan.shared_bytes;
  }
  static void shape_of(const MatrixPlan& plan, int64_t& blocks, int&, int64_t&) {
    blocks = plan.blocks;
  }
  static void shape_of(const OwnerPlan&, int64_t&, int&, int64_t&) {}
};

}  // namespace

extern "C" {

// Bytes of the structures that host_kernels.py mirrors.
int64_t host_bytes_of_args() { return sizeof(BackwardArgs); }
int64_t host_bytes_of_run() { return sizeof(Run); }

// Each returns "" or what went wrong.
const char* host_forward(const ForwardArgs* args, const Run* run) {
  return answer(forward(*args, run->device(), HostLaunch{*run}));
}

int64_t host_partial_numbers(const BackwardArgs* args, const Run* run) {
  return partial_numbers(*args, run->device(), run->deterministic != 0);
}
const char* host_backward(const BackwardArgs* args, const Run* run) {
  const auto zero = [&](void* memory, int64_t bytes) -> const char* {
    if (run->only_check == 0) std::memset(memory, 0, static_cast<size_t>(bytes));
    return nullptr;
  };
  return answer(backward(*args, run->device(), run->deterministic != 0, HostLaunch{*run}, zero));
}

// Lanes that share a cell in the forward pass; 0 for the kernel of single numbers.
int host_forward_lanes(const ForwardArgs* args) {
  const Route route = choose_route(*args, args->output);
  return route.vector ? route.lanes : 0;
}

int host_uses_matrices(const BackwardArgs* args, const Run* run) {
  return plan_matrix(*args, run->device()).fits ? 1 : 0;
}

// What memory_watch.h watches from now on, where it is compiled in.
void host_watch(const char* name, const void* begin, int64_t bytes, int writable) {
  host_lanes::memory_watch::add_tensor(name, begin, bytes, writable != 0);
}
void host_forget() { host_lanes::memory_watch::clear_tensors(); }

}  // extern "C"
