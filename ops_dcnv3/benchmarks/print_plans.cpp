// Prints the kernels of one layer of InternImage and their grids, by the code that chooses them at
// run time.
//
//   print_plans MULTIPROCESSORS SHARED_BYTES BATCH HEIGHT WIDTH GROUPS DEPTH DTYPE
//
// DTYPE: the number of dcnv3::DType. One line a kernel: "forward" or "backward", its mangled name,
// blocks, threads of a block, bytes of dynamic shared memory; points that its lanes hand each other
// and stores by which a thread clears shared memory, in each turn of the largest loop; whether a
// block is alone with its result; turns of each outermost loop.
#include <cstdio>
#include <cstdlib>
#include <typeinfo>

#include "../src/ops_dcnv3/csrc/cuda/dispatch.h"

namespace {

template <template <typename, int, auto...> class Kernel, typename scalar_t, int kLanes,
          auto... rest>
constexpr int lanes_of(Kernel<scalar_t, kLanes, rest...>) {
  return kLanes;
}
template <template <typename> class Kernel, typename scalar_t>
constexpr int lanes_of(Kernel<scalar_t>) {
  return dcnv3::kPlainLanes;
}

struct Print {
  const char* pass;

  template <class Kernel, class Arguments>
  const char* operator()(Kernel kernel, const Arguments& arguments, int64_t blocks, int threads,
                         int64_t shared) const {
    const int at_once = threads / lanes_of(kernel);
    std::printf("%s %s %lld %d %lld", pass, typeid(Kernel).name(), static_cast<long long>(blocks),
                threads, static_cast<long long>(shared));
    print_turns(arguments, at_once);
    std::printf("\n");
    return nullptr;
  }

  template <class Arguments>
  static void print_turns(const Arguments& arguments, int at_once) {
    std::printf(" 0 0 0 %d", turns(arguments.plan.cells(), at_once));
  }
  template <typename acc_t>
  static void print_turns(const dcnv3::WindowArguments<acc_t>& arguments, int at_once) {
    const dcnv3::WindowPlan& plan = arguments.plan;
    const int points = static_cast<int>(arguments.args.forward.params.num_points());
    const int window = turns(plan.height * plan.width, at_once);
    std::printf(" %d 0 %d %d %d %d", points, plan.exclusive, window,
                turns(plan.tiles.cells(), at_once), window);
  }
  static void print_turns(const dcnv3::MatrixArguments& arguments, int) {
    const dcnv3::MatrixPlan& plan = arguments.plan;
    const int stores = dcnv3::MatrixInput<dcnv3::Float16>::kRow / 8;
    // the second loop is for numbers that are not finite
    std::printf(" 0 %d %d %d 0 %d", stores, plan.exclusive,
                turns(plan.tiles.cells(), dcnv3::kMatrixCells),
                plan.exclusive ? turns(2 * plan.height * plan.width, dcnv3::kMatrixCells) : 0);
  }
  template <typename acc_t>
  static void print_turns(const dcnv3::OwnerArguments<acc_t>& arguments, int) {
    const dcnv3::Params& params = arguments.args.forward.params;
    std::printf(" %lld 0 1 %lld", static_cast<long long>(params.num_points()),
                static_cast<long long>(arguments.plan.rows * params.out_width));
  }
  static void print_turns(const dcnv3::FinishArguments& arguments, int) {
    const int64_t at_once = arguments.threads * dcnv3::kFinishAtOnce;
    std::printf(" 0 0 1 %lld", static_cast<long long>(dcnv3::ceil_div(arguments.numbers, at_once)));
  }

  static int turns(int count, int at_once) {
    return static_cast<int>(dcnv3::ceil_div(count, at_once));
  }
};

const char* no_zero(void*, int64_t) { return nullptr; }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) return 2;
  int64_t number[9];
  for (int i = 1; i < argc; ++i) number[i] = std::atoll(argv[i]);
  const dcnv3::Device device{0, static_cast<int>(number[1]), number[2], true};
  dcnv3::BackwardArgs args{};
  dcnv3::Params& p = args.forward.params;
  p.batch = number[3];
  p.height = p.out_height = number[4];
  p.width = p.out_width = number[5];
  p.groups = number[6];
  p.depth = number[7];
  p.kernel_h = p.kernel_w = 3;
  p.stride_h = p.stride_w = p.padding_h = p.padding_w = p.dilation_h = p.dilation_w = 1;
  p.offset_scale = 1.0;
  p.softmax = true;
  args.forward.dtype = args.forward.offset_dtype = args.forward.mask_dtype =
      static_cast<dcnv3::DType>(number[8]);
  const char* failure = dcnv3::forward(args.forward, device, Print{"forward"});
  if (failure == nullptr)
    failure = dcnv3::backward(args, device, /*deterministic=*/false, Print{"backward"}, no_zero);
  if (failure == nullptr) return 0;
  std::fprintf(stderr, "print_plans: %s\n", failure);
  return 1;
}
