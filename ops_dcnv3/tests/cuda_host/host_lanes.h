// The host's twin of CudaLanes: runs the body of a CUDA kernel thread by thread and block by block,
// and is as hostile to it as the programming model allows.
//
// Note [What is modelled]: a thread runs alone until it has to meet others, so the order in which
// threads and blocks run is ours to choose (`Order`); a kernel whose result depends on it has a
// race. Where lanes of a warp meet (shuffle, shuffle_xor, all) all 32 must come, to the same line
// of source with the same width; where a block meets (sync) all threads must. Anything else, which
// a GPU would answer with a hang or with nonsense, ends the launch with an error. Shared memory is
// a heap block of exactly the size asked for and full of NaN whenever a block starts. Not modelled:
// the order in which memory becomes visible to another thread (see memory_watch.h for what is),
// and time.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "fibers.h"
#include "matrices.h"
#include "memory_watch.h"

namespace host_lanes {

constexpr int kWarp = 32;
constexpr int kMaxBlockSize = 1024;
constexpr int64_t kMaxBlocks = 2147483647;   // of a grid's first dimension
constexpr int64_t kMaxSharedBytes = 232448;  // 227 KiB, what a block can have on sm_90

// The order in which blocks, warps, and lanes run.
enum class Order : int { kAscending, kDescending, kRandom };

struct Schedule {
  Order order = Order::kAscending;
  uint64_t seed = 0;  // of kRandom
};

struct Place {
  const char* file;
  int line;

  bool operator==(const Place& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
};

class Block;

// One thread. The default arguments note where in the kernel's source the call stands.
class HostLanes {
 public:
  HostLanes(Block& block, int thread) : block_(block), thread_(thread) {}

  int thread() const { return thread_; }
  int block_size() const;
  int64_t block() const;
  char* shared() const;
  void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const;

  // The value of lane `source` of this segment of `width` lanes, which wraps as CUDA's does.
  template <typename T>
  T shuffle(T value, int source, int width, const char* file = __builtin_FILE(),
            int line = __builtin_LINE()) const;
  // The value of lane `lane ^ lane_mask`; a lane's own if that one is in a later segment.
  template <typename T>
  T shuffle_xor(T value, int lane_mask, int width, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) const;
  bool all(bool value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const;

  template <typename T>
  void add_shared(T* address, T value) const;
  // To two neighbours, the first at a multiple of 8 bytes.
  template <typename T>
  void add_shared_two(T* address, const T (&values)[2]) const;
  template <typename T>
  void add_global(T* address, T value) const;
  void add_global_two(float* address, const float (&values)[2]) const;

  // See matrices.h.
  template <typename scalar_t>
  void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    const char* file = __builtin_FILE(), int line = __builtin_LINE()) const;
  // `row` lies in shared memory at a multiple of 16 bytes.
  void load_matrices_transposed(uint32_t (&loaded)[4], const void* row,
                                const char* file = __builtin_FILE(),
                                int line = __builtin_LINE()) const;

 private:
  Block& block_;
  const int thread_;
};

enum class Meeting : int { kNone, kSync, kShuffle, kShuffleXor, kAll, kTogether };

inline const char* name_of(Meeting meeting) {
  static const char* const kNames[] = {"nothing",     "sync", "shuffle",
                                       "shuffle_xor", "all",  "matrices"};
  return kNames[static_cast<int>(meeting)];
}

// The block that is being run: its threads' fibers and what they wait for.
class Block {
 public:
  Block(int64_t number, int block_size, char* shared, int64_t shared_bytes, Fibers& fibers,
        Schedule schedule)
      : number_(number),
        block_size_(block_size),
        shared_(shared),
        shared_bytes_(shared_bytes),
        fibers_(fibers),
        schedule_(schedule),
        random_(schedule.seed ^ (static_cast<uint64_t>(number) * 0x9e3779b97f4a7c15u)),
        waiting_(static_cast<size_t>(block_size)) {}

  // Runs all threads to their end, or returns the first error.
  template <typename Body>
  std::string run(const Body& body) {
    struct Task {
      Block* block;
      const Body* body;
    } task{this, &body};
    fibers_.start(
        block_size_,
        [](void* argument, int thread) {
          const Task& task = *static_cast<Task*>(argument);
          HostLanes lanes(*task.block, thread);
          (*task.body)(lanes);
        },
        &task);
    const int warps = block_size_ / kWarp;
    while (error_.empty()) {
      std::vector<int> active = order_of(warps);
      while (!active.empty() && error_.empty()) {  // until every warp waits for the block
        const size_t turn = schedule_.order == Order::kRandom ? random_() % active.size() : 0;
        if (!run_warp(active[turn])) active.erase(active.begin() + static_cast<ptrdiff_t>(turn));
      }
      if (!error_.empty()) break;
      const bool ended = fibers_.ended(0);
      if (!meet_as_block()) break;
      if (ended) break;
    }
    return error_;
  }

 private:
  friend class HostLanes;
  // What a warp does with something of each of its lanes.
  using Together = void (*)(void* const (&lanes)[kWarp]);
  struct Waiting {
    Meeting meeting = Meeting::kNone;
    Place place{"", 0};
    int width = 0;
    int bytes = 0;
    int source = 0;  // lane, or mask of lanes
    uint64_t value = 0;
    uint64_t result = 0;
    Together together = nullptr;
    void* own = nullptr;
  };

  std::vector<int> order_of(int count) {
    std::vector<int> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    if (schedule_.order == Order::kDescending) std::reverse(order.begin(), order.end());
    if (schedule_.order == Order::kRandom) std::shuffle(order.begin(), order.end(), random_);
    return order;
  }

  // Runs every lane of the warp to its next meeting. False once the warp waits for the block.
  bool run_warp(int warp) {
    const int first = warp * kWarp;
    for (const int lane : lane_order()) {
      const int thread = first + lane;
      if (fibers_.ended(thread) || waiting(thread).meeting == Meeting::kSync) continue;
      waiting(thread).meeting = Meeting::kNone;
      running_ = thread;
      memory_watch::set_thread(number_, thread, epoch_);
      const bool sound = fibers_.resume(thread);
      memory_watch::set_thread(-1, 0, 0);
      if (!sound) {
        const char* found = memory_watch::take_error();
        error_ = describe(thread) + ": segmentation fault" + (found ? "; before it " : "") +
                 (found ? found : "");
      }
      if (!error_.empty()) return false;
      if (const char* found = memory_watch::take_error()) {
        error_ = describe(thread) + ": " + found;
        return false;
      }
    }
    const Waiting& head = waiting(first);
    for (int lane = 0; lane < kWarp; ++lane) {
      const Waiting& other = waiting(first + lane);
      if (fibers_.ended(first + lane) != fibers_.ended(first) || other.meeting != head.meeting ||
          !(other.place == head.place) || other.width != head.width || other.bytes != head.bytes ||
          other.together != head.together) {
        error_ = "divergent: " + describe(first) + ", " + describe(first + lane);
        return false;
      }
    }
    if (fibers_.ended(first) || head.meeting == Meeting::kSync) return false;
    exchange(first);
    return true;
  }

  const std::vector<int>& lane_order() {
    if (lane_order_.empty() || schedule_.order == Order::kRandom) lane_order_ = order_of(kWarp);
    return lane_order_;
  }

  void exchange(int first) {
    const Meeting meeting = waiting(first).meeting;
    const int width = waiting(first).width;
    if (meeting == Meeting::kTogether) {
      void* lanes[kWarp];
      for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = waiting(first + lane).own;
      return waiting(first).together(lanes);
    }
    bool every = true;
    for (int lane = 0; lane < kWarp; ++lane) every = every && waiting(first + lane).value != 0;
    for (int lane = 0; lane < kWarp; ++lane) {
      Waiting& own = waiting(first + lane);
      const int segment = lane & ~(width - 1);
      int source = lane;
      if (meeting == Meeting::kShuffle) source = segment + (own.source & (width - 1));
      if (meeting == Meeting::kShuffleXor && ((lane ^ own.source) & (kWarp - 1)) < segment + width)
        source = (lane ^ own.source) & (kWarp - 1);
      own.result = meeting == Meeting::kAll ? every : waiting(first + source).value;
    }
  }

  // All threads wait for the block, or have ended: they must do so together.
  bool meet_as_block() {
    const Waiting& head = waiting(0);
    for (int thread = 0; thread < block_size_; ++thread) {
      const Waiting& other = waiting(thread);
      if (fibers_.ended(thread) != fibers_.ended(0) || !(other.place == head.place)) {
        error_ = "divergent: " + describe(0) + ", " + describe(thread);
        return false;
      }
    }
    for (int thread = 0; thread < block_size_; ++thread) waiting(thread) = Waiting{};
    ++epoch_;
    return true;
  }

  // Called from the running thread's fiber.
  uint64_t meet(Meeting meeting, Place place, int width, int bytes, int source, uint64_t value) {
    Waiting& own = waiting(running_);
    own = {meeting, place, width, bytes, source, value, 0, nullptr, nullptr};
    if (width < 1 || width > kWarp || (width & (width - 1)) != 0) {
      fail(std::string(name_of(meeting)) + " over " + std::to_string(width) +
           " lanes, no power of two up to 32");
    }
    fibers_.yield();
    return own.result;
  }

  void meet_together(Together together, void* own, Place place) {
    waiting(running_) = {Meeting::kTogether, place, kWarp, 0, 0, 0, 0, together, own};
    fibers_.yield();
  }

  // Ends the launch from the running thread's fiber, which is never resumed.
  void fail(const std::string& what) {
    if (error_.empty()) error_ = describe(running_) + ": " + what;
    fibers_.yield();
  }

  void check_shared(const void* address, size_t bytes) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    const uintptr_t begin = reinterpret_cast<uintptr_t>(shared_);
    if (at < begin || at + bytes > begin + static_cast<uintptr_t>(shared_bytes_))
      fail("an address outside of the shared memory");
  }
  void check_aligned(const void* address, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
      fail("an address that is no multiple of " + std::to_string(bytes));
  }

  std::string describe(int thread) {
    const Waiting& own = waiting(thread);
    std::string text = "thread " + std::to_string(thread) + " of block " + std::to_string(number_);
    if (fibers_.ended(thread)) return text + " has returned";
    if (own.meeting == Meeting::kNone) return text;
    const char* slash = std::strrchr(own.place.file, '/');
    text += std::string(" is in ") + name_of(own.meeting) + " at " +
            (slash != nullptr ? slash + 1 : own.place.file) + ":" + std::to_string(own.place.line);
    if (own.meeting != Meeting::kSync) text += " (width " + std::to_string(own.width) + ")";
    return text;
  }

  Waiting& waiting(int thread) { return waiting_[static_cast<size_t>(thread)]; }

  const int64_t number_;
  const int block_size_;
  char* const shared_;
  const int64_t shared_bytes_;
  Fibers& fibers_;
  const Schedule schedule_;
  std::mt19937_64 random_;
  std::vector<Waiting> waiting_;
  std::vector<int> lane_order_;
  int running_ = 0;
  int epoch_ = 0;  // meetings of the block so far
  std::string error_;
};

inline int HostLanes::block_size() const { return block_.block_size_; }
inline int64_t HostLanes::block() const { return block_.number_; }
inline char* HostLanes::shared() const { return block_.shared_; }
inline void HostLanes::sync(const char* file, int line) const {
  block_.meet(Meeting::kSync, {file, line}, kWarp, 0, 0, 0);
}

template <typename T>
uint64_t bits_of(T value) {
  static_assert(std::is_trivially_copyable<T>::value && (sizeof(T) == 4 || sizeof(T) == 8),
                "a GPU shuffles words of 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T value_of(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <typename T>
T HostLanes::shuffle(T value, int source, int width, const char* file, int line) const {
  return value_of<T>(
      block_.meet(Meeting::kShuffle, {file, line}, width, int(sizeof(T)), source, bits_of(value)));
}
template <typename T>
T HostLanes::shuffle_xor(T value, int lane_mask, int width, const char* file, int line) const {
  return value_of<T>(block_.meet(Meeting::kShuffleXor, {file, line}, width, int(sizeof(T)),
                                 lane_mask, bits_of(value)));
}
inline bool HostLanes::all(bool value, const char* file, int line) const {
  return block_.meet(Meeting::kAll, {file, line}, kWarp, 1, 0, value ? 1 : 0) != 0;
}

template <typename T>
void HostLanes::add_shared(T* address, T value) const {
  static_assert(std::is_floating_point<T>::value, "added in the type of calculation");
  block_.check_shared(address, sizeof(T));
  block_.check_aligned(address, sizeof(T));
  memory_watch::atomic(address, sizeof(T));
  memory_watch::Pause pause;
  *address += value;
}
template <typename T>
void HostLanes::add_shared_two(T* address, const T (&values)[2]) const {
  block_.check_aligned(address, 8);
  add_shared(address, values[0]);
  add_shared(address + 1, values[1]);
}
template <typename T>
void HostLanes::add_global(T* address, T value) const {
  static_assert(std::is_floating_point<T>::value, "added in the type of calculation");
  block_.check_aligned(address, sizeof(T));
  memory_watch::atomic(address, sizeof(T));
  memory_watch::Pause pause;
  *address += value;
}

inline void HostLanes::add_global_two(float* address, const float (&values)[2]) const {
  block_.check_aligned(address, 8);
  add_global(address, values[0]);
  add_global(address + 1, values[1]);
}

template <typename scalar_t>
void HostLanes::multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const char* file, int line) const {
  Multiplication own{d, a, b};
  block_.meet_together(&multiply<scalar_t>, &own, {file, line});
}
inline void HostLanes::load_matrices_transposed(uint32_t (&loaded)[4], const void* row,
                                                const char* file, int line) const {
  TransposedLoad own{{}, loaded};
  block_.check_shared(row, sizeof(own.row));
  block_.check_aligned(row, 16);
  memory_watch::read(row, sizeof(own.row));
  std::memcpy(own.row, row, sizeof(own.row));
  block_.meet_together(&load_transposed, &own, {file, line});
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Their stacks are kept from one launch to the next.
inline Fibers& shared_fibers() {
  static Fibers fibers;
  return fibers;
}

// Why no GPU would accept a launch, or "".
inline std::string check_launch(int64_t num_blocks, int block_size, int64_t shared_bytes) {
  if (num_blocks < 1 || num_blocks > kMaxBlocks)
    return "launch of " + std::to_string(num_blocks) + " blocks";
  if (block_size < kWarp || block_size > kMaxBlockSize || block_size % kWarp != 0)
    return "launch of " + std::to_string(block_size) + " threads a block";
  if (shared_bytes < 0 || shared_bytes > kMaxSharedBytes)
    return "launch with " + std::to_string(shared_bytes) + " bytes of shared memory";
  return "";
}

// Launches body(HostLanes&) for every thread of every block; returns the first error, or "".
template <typename Body>
std::string run_grid(int64_t num_blocks, int block_size, int64_t shared_bytes, Schedule schedule,
                     const Body& body) {
  const std::string refused = check_launch(num_blocks, block_size, shared_bytes);
  if (!refused.empty()) return refused;
  Fibers& fibers = shared_fibers();
  const Faults faults;
  constexpr int64_t guard = memory_watch::kGuard;
  std::unique_ptr<void, Free> memory(std::malloc(static_cast<size_t>(shared_bytes + 2 * guard)));
  char* const shared = static_cast<char*>(memory.get()) + guard;
  std::vector<int64_t> order(static_cast<size_t>(num_blocks));
  std::iota(order.begin(), order.end(), 0);
  if (schedule.order == Order::kDescending) std::reverse(order.begin(), order.end());
  if (schedule.order == Order::kRandom)
    std::shuffle(order.begin(), order.end(), std::mt19937_64(schedule.seed));
  memory_watch::start_launch();
  for (const int64_t number : order) {
    std::memset(shared, 0xff, static_cast<size_t>(shared_bytes));  // NaN in every format, -1
    memory_watch::set_shared(shared, shared_bytes);
    Block block(number, block_size, shared, shared_bytes, fibers, schedule);
    const std::string error = block.run(body);
    if (!error.empty()) return error;
  }
  memory_watch::set_shared(nullptr, 0);
  return "";
}

}  // namespace host_lanes
