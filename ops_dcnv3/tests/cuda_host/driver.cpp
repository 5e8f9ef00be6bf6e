// Runs the CUDA kernels on the host with random shapes, plans, orders and hostile values, for
// AddressSanitizer and UndefinedBehaviorSanitizer. Built by test_cuda_host_memory.py; what is
// hostile in which round is as in sanitize/driver.cpp.
//
//   driver SEED ROUNDS [short]    `short` makes the offsets one element too few, which must be
//   caught
#include <cstdio>
#include <cstdlib>

#include "kernels.cpp"
#include "random_call.h"

namespace {

Run random_run() {
  Run run{};
  run.order = static_cast<int32_t>(between(0, 2));
  run.seed = between(0, 1 << 20);
  run.multiprocessors = one_of({1, 20, 132});
  run.shared_bytes = one_of<int64_t>({0, 256, 4096, 49152, 232448});
  run.side = one_of({0, 0, 1, 2, 3});
  run.groups = one_of({1, 2, 3});
  run.threads = one_of({32, 64, 128});
  run.margin = one_of({0, 1, 2});
  run.deterministic = one_of({0, 0, 1});
  run.matrices = run.shared_bytes >= 49152;  // as any GPU with tensor cores has
  return run;
}

void require(const char* error) {
  if (*error == '\0') return;
  std::fprintf(stderr, "%s\n", error);
  std::exit(1);
}

void run_once(bool hostile, bool too_short) {
  RandomCall call(random_shape(), hostile, too_short);
  BackwardArgs& args = call.args;
  const Run run = random_run();
  require(host_forward(&args.forward, &run));
  if (!hostile) call.check_output();

  const DType partial_dtype =
      args.forward.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const int64_t numbers = host_partial_numbers(&args, &run);
  const dcnv3::Block partial(partial_dtype, numbers);
  args.partial = numbers > 0 ? partial.get() : nullptr;
  require(host_backward(&args, &run));
  if (!hostile) call.check_gradients();
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rounds = run_rounds(argc, argv, run_once);
  if (rounds < 0) return 2;
  std::printf("%ld rounds\n", long(rounds));
  return 0;
}
