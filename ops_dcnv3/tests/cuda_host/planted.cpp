// Small kernels, sound ones and ones with a planted mistake, that show what host_lanes.h finds.
// Built by test_host_lanes.py.
//
//   planted KERNEL ORDER SEED    prints the error, or the 64 numbers that the kernel left
#include <cstdio>
#include <functional>
#include <map>
#include <string>

#include "dcnv3_scalar.h"
#include "host_lanes.h"

using namespace dcnv3;
using host_lanes::HostLanes;

namespace {

constexpr int kThreads = 64;
constexpr int kBytes = kThreads * int(sizeof(float));

float* input;   // kThreads numbers: 0, 1, 2...
float* output;  // kThreads numbers, -1 to begin with

struct Kernel {
  int64_t blocks;
  int64_t shared_bytes;
  std::function<void(HostLanes&)> body;
};

float* shared_floats(HostLanes& lanes) { return reinterpret_cast<float*>(lanes.shared()); }

// Calls itself until no stack is large enough.
int descend(int depth) {
  volatile char frame[512];
  frame[0] = static_cast<char>(depth);
  return depth > 1000000 ? frame[0] : descend(depth + 1) + frame[0];
}

void reverse(HostLanes& lanes, bool with_sync) {
  const int t = lanes.thread();
  shared_floats(lanes)[t] = input[t];
  if (with_sync) lanes.sync();
  output[t] = shared_floats(lanes)[kThreads - 1 - t];
}

// 1 + A B by the lanes of each warp, for A[m][k] = (3 m + 5 k) % 11 - 5 and B[k][n] = (7 k + 2 n) %
// 13 - 6. Leaves rows 8 * half to 8 * half + 7.
template <typename scalar_t>
void multiply(HostLanes& lanes, int half) {
  const auto number = [](int value) {
    return static_cast<uint32_t>(from_compute<scalar_t>(static_cast<float>(value)).bits);
  };
  const auto a_at = [&](int m, int k) { return number((3 * m + 5 * k) % 11 - 5); };
  const auto b_at = [&](int k, int n) { return number((7 * k + 2 * n) % 13 - 6); };
  const int lane = lanes.thread() % 32, g = lane / 4, t = lane % 4 * 2;
  const uint32_t a[4] = {
      a_at(g, t) | a_at(g, t + 1) << 16, a_at(g + 8, t) | a_at(g + 8, t + 1) << 16,
      a_at(g, t + 8) | a_at(g, t + 9) << 16, a_at(g + 8, t + 8) | a_at(g + 8, t + 9) << 16};
  const uint32_t b[2] = {b_at(t, g) | b_at(t + 1, g) << 16, b_at(t + 8, g) | b_at(t + 9, g) << 16};
  float d[4] = {1, 1, 1, 1};
  lanes.multiply_add<scalar_t>(d, a, b);
  if (lanes.thread() >= 32) return;
  output[g * 8 + t] = d[2 * half];
  output[g * 8 + t + 1] = d[2 * half + 1];
}

// Number c of row r of matrix m is 64 m + 8 r + c; row r of matrix m lies at 16 (4 r + m) bytes.
// Leaves the two numbers of each lane of matrix `matrix`.
void load_transposed(HostLanes& lanes, int matrix) {
  uint16_t* memory = reinterpret_cast<uint16_t*>(lanes.shared());
  for (int k = lanes.thread() * 4; k < lanes.thread() * 4 + 4; ++k)
    memory[(k / 8 % 8 * 4 + k / 64) * 8 + k % 8] = static_cast<uint16_t>(k);
  lanes.sync();
  const int lane = lanes.thread() % 32;
  uint32_t loaded[4];
  lanes.load_matrices_transposed(loaded, memory + (lane % 8 * 4 + lane / 8) * 8);
  if (lanes.thread() >= 32) return;
  output[2 * lane] = static_cast<float>(loaded[matrix] & 0xffff);
  output[2 * lane + 1] = static_cast<float>(loaded[matrix] >> 16);
}

const std::map<std::string, Kernel> kKernels = {
    // sound
    {"warp_sum",
     {1, 0,
      [](HostLanes& lanes) {
        float sum = input[lanes.thread()];
        for (int mask = 16; mask > 0; mask /= 2) sum += lanes.shuffle_xor(sum, mask, 32);
        output[lanes.thread()] = sum;
      }}},
    {"shuffle_source",
     {1, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread(), width = t < 32 ? 8 : 32;
        output[t] = static_cast<float>(lanes.shuffle(double(t), t * 5 - 7, width));
      }}},
    {"shuffle_xor_segments",
     {1, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        output[t] = static_cast<float>(lanes.shuffle_xor(t, t < 32 ? 9 : 3, 8));
      }}},
    {"all",
     {1, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        output[t] = lanes.all(t != 40) ? 1.0f : 0.0f;
      }}},
    {"reverse", {1, kBytes, [](HostLanes& lanes) { reverse(lanes, true); }}},
    {"blocks",
     {4, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        if (t / 16 == lanes.block()) output[t] = static_cast<float>(lanes.block());
      }}},
    {"atomic_sum",
     {2, kBytes,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        if (t == 0) shared_floats(lanes)[0] = 0;
        lanes.sync();
        lanes.add_shared(shared_floats(lanes), input[t]);
        lanes.sync();
        if (t == 5) lanes.add_global(output, *shared_floats(lanes));
      }}},
    {"multiply_upper", {1, 0, [](HostLanes& lanes) { multiply<Float16>(lanes, 0); }}},
    {"multiply_lower", {1, 0, [](HostLanes& lanes) { multiply<BFloat16>(lanes, 1); }}},
    {"load_matrix_0", {1, 512, [](HostLanes& lanes) { load_transposed(lanes, 0); }}},
    {"load_matrix_3", {1, 512, [](HostLanes& lanes) { load_transposed(lanes, 3); }}},
    // mistakes in how threads meet
    {"divergent_branch",
     {1, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        if (t % 32 < 16)
          output[t] = lanes.shuffle(input[t], 0, 32);
        else
          output[t] = lanes.shuffle(input[t], 1, 32);
      }}},
    {"divergent_kind",
     {1, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        output[t] = t % 2 ? lanes.shuffle(input[t], 0, 32) : lanes.shuffle_xor(input[t], 1, 32);
      }}},
    {"divergent_width",
     {1, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        output[t] = lanes.shuffle(input[t], 0, t % 32 < 16 ? 16 : 32);
      }}},
    {"divergent_loop",
     {1, 0,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        for (int k = 0; k < (t == 37 ? 3 : 2); ++k) output[t] = lanes.shuffle(input[t], k, 32);
      }}},
    {"early_return",
     {1, 0,
      [](HostLanes& lanes) {
        if (lanes.thread() >= 50) return;
        output[lanes.thread()] = lanes.shuffle(input[lanes.thread()], 0, 32);
      }}},
    {"sync_or_shuffle",
     {1, 0,
      [](HostLanes& lanes) {
        if (lanes.thread() == 7) lanes.sync();
        output[lanes.thread()] = lanes.shuffle(input[lanes.thread()], 0, 32);
      }}},
    {"half_sync",
     {1, 0,
      [](HostLanes& lanes) {
        if (lanes.thread() < 32) lanes.sync();
      }}},
    {"two_syncs",
     {1, 0,
      [](HostLanes& lanes) {
        if (lanes.thread() < 32)
          lanes.sync();
        else
          lanes.sync();
      }}},
    {"width_12",
     {1, 0,
      [](HostLanes& lanes) {
        output[lanes.thread()] = lanes.shuffle(input[lanes.thread()], 0, 12);
      }}},
    // mistakes in memory
    {"missing_sync", {1, kBytes, [](HostLanes& lanes) { reverse(lanes, false); }}},
    {"shuffle_for_sync",
     {1, kBytes,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        shared_floats(lanes)[t] = lanes.shuffle(input[t], t, 32);
        lanes.all(true);
        output[t] = shared_floats(lanes)[t ^ 1];
      }}},
    {"overwritten_early",
     {1, kBytes,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        shared_floats(lanes)[t] = input[t];
        lanes.sync();
        output[t] = shared_floats(lanes)[kThreads - 1 - t];
        shared_floats(lanes)[t] = 100;
      }}},
    {"unwritten_shared",
     {1, kBytes,
      [](HostLanes& lanes) {
        const int t = lanes.thread();
        if (t != 9) shared_floats(lanes)[t] = input[t];
        lanes.sync();
        output[t] = shared_floats(lanes)[kThreads - 1 - t];
      }}},
    {"shared_too_short", {1, kBytes - 4, [](HostLanes& lanes) { reverse(lanes, true); }}},
    {"plain_and_atomic",
     {1, kBytes,
      [](HostLanes& lanes) {
        if (lanes.thread() == 0) shared_floats(lanes)[0] = 0;
        lanes.add_shared(shared_floats(lanes), 1.0f);
      }}},
    {"atomic_pair_misaligned",
     {1, kBytes,
      [](HostLanes& lanes) {
        const float values[2] = {1, 1};
        if (lanes.thread() == 40) lanes.add_shared_two(shared_floats(lanes) + 1, values);
      }}},
    {"matrix_row_misaligned",
     {1, kBytes,
      [](HostLanes& lanes) {
        uint32_t loaded[4];
        lanes.load_matrices_transposed(loaded, lanes.shared() + (lanes.thread() == 3 ? 8 : 0));
      }}},
    {"matrices_or_shuffle",
     {1, kBytes,
      [](HostLanes& lanes) {
        float d[4] = {};
        const uint32_t a[4] = {}, b[2] = {};
        if (lanes.thread() != 20) lanes.multiply_add<Float16>(d, a, b);
        lanes.shuffle(d[0], 0, 32);
      }}},
    {"atomic_elsewhere", {1, kBytes, [](HostLanes& lanes) { lanes.add_shared(output, 1.0f); }}},
    {"blocks_collide",
     {2, 0, [](HostLanes& lanes) { output[lanes.thread()] = static_cast<float>(lanes.block()); }}},
    {"write_to_input", {1, 0, [](HostLanes& lanes) { input[lanes.thread()] = 0; }}},
    {"past_the_end",
     {1, 0, [](HostLanes& lanes) { output[lanes.thread()] = input[lanes.thread() + 1]; }}},
    {"misaligned",
     {1, 0,
      [](HostLanes& lanes) {
        double pair;
        __builtin_memcpy(&pair, input + 1 + lanes.thread() / 32 * 2, sizeof(pair));
        output[lanes.thread()] = static_cast<float>(pair);
      }}},
    {"nowhere",
     {1, 0,
      [](HostLanes& lanes) {
        if (lanes.thread() == 33) output[int64_t{1} << 40] = 0;
      }}},
    {"deep",
     {1, 0, [](HostLanes& lanes) { output[lanes.thread()] = static_cast<float>(descend(0)); }}},
    // launches
    {"no_blocks", {0, 0, [](HostLanes&) {}}},
    {"too_much_shared", {1, 228 << 10, [](HostLanes&) {}}},
};

float* numbers(std::vector<char>& memory) {
  memory.resize(2 * host_lanes::memory_watch::kGuard + kBytes);
  return reinterpret_cast<float*>(memory.data() + host_lanes::memory_watch::kGuard);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 || kKernels.count(argv[1]) == 0) return 2;
  const Kernel& kernel = kKernels.at(argv[1]);
  std::vector<char> input_memory, output_memory;
  input = numbers(input_memory);
  output = numbers(output_memory);
  for (int k = 0; k < kThreads; ++k) input[k] = static_cast<float>(k), output[k] = -1;
  host_lanes::memory_watch::add_tensor("input", input, kBytes, false);
  host_lanes::memory_watch::add_tensor("output", output, kBytes, true);
  const host_lanes::Schedule schedule{static_cast<host_lanes::Order>(std::atoi(argv[2])),
                                      std::strtoull(argv[3], nullptr, 10)};
  const std::string error =
      host_lanes::run_grid(kernel.blocks, kThreads, kernel.shared_bytes, schedule, kernel.body);
  if (!error.empty()) {
    std::printf("%s\n", error.c_str());
    return 1;
  }
  for (int k = 0; k < kThreads; ++k) std::printf("%g ", double(output[k]));
  return 0;
}
