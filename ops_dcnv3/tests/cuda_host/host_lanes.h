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
  template <typename T>
  void add_global(T* address, T value) const;

 private:
  Block& block_;
  const int thread_;
};

enum class Meeting : int { kNone, kSync, kShuffle, kShuffleXor, kAll };

inline const char* name_of(Meeting meeting) {
  static const char* const kNames[] = {"nothing", "sync", "shuffle", "shuffle_xor", "all"};
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
  struct Waiting {
    Meeting meeting = Meeting::kNone;
    Place place{"", 0};
    int width = 0;
    int bytes = 0;
    int source = 0;  // lane, or mask of lanes
    uint64_t value = 0;
    uint64_t result = 0;
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
      fibers_.resume(thread);
      memory_watch::set_thread(-1, 0, 0);
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
          other.place.line != head.place.line ||
          std::strcmp(other.place.file, head.place.file) != 0 || other.width != head.width ||
          other.bytes != head.bytes) {
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
      if (fibers_.ended(thread) != fibers_.ended(0) || other.place.line != head.place.line ||
          std::strcmp(other.place.file, head.place.file) != 0) {
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
    own = {meeting, place, width, bytes, source, value, 0};
    if (width < 1 || width > kWarp || (width & (width - 1)) != 0) {
      fail(std::string(name_of(meeting)) + " over " + std::to_string(width) +
           " lanes, no power of two up to 32");
    }
    fibers_.yield();
    return own.result;
  }

  // Ends the launch from the running thread's fiber, which is never resumed.
  void fail(const std::string& what) {
    if (error_.empty()) error_ = describe(running_) + ": " + what;
    fibers_.yield();
  }

  template <typename T>
  void check_shared(const T* address) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    const uintptr_t begin = reinterpret_cast<uintptr_t>(shared_);
    if (at < begin || at + sizeof(T) > begin + static_cast<uintptr_t>(shared_bytes_))
      fail("add_shared outside of the shared memory");
    check_aligned(address);
  }
  template <typename T>
  void check_aligned(const T* address) {
    if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0)
      fail("atomic addition at an address that is not a multiple of the size");
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
  block_.check_shared(address);
  memory_watch::atomic(address, sizeof(T));
  memory_watch::Pause pause;
  *address += value;
}
template <typename T>
void HostLanes::add_global(T* address, T value) const {
  static_assert(std::is_floating_point<T>::value, "added in the type of calculation");
  block_.check_aligned(address);
  memory_watch::atomic(address, sizeof(T));
  memory_watch::Pause pause;
  *address += value;
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Their stacks are kept from one launch to the next.
inline Fibers& shared_fibers() {
  static Fibers fibers;
  return fibers;
}

// Launches body(HostLanes&) for every thread of every block; returns the first error, or "".
template <typename Body>
std::string run_grid(int64_t num_blocks, int block_size, int64_t shared_bytes, Schedule schedule,
                     const Body& body) {
  if (num_blocks < 1 || num_blocks > kMaxBlocks)
    return "launch of " + std::to_string(num_blocks) + " blocks";
  if (block_size < kWarp || block_size > kMaxBlockSize || block_size % kWarp != 0)
    return "launch of " + std::to_string(block_size) + " threads a block";
  if (shared_bytes < 0 || shared_bytes > kMaxSharedBytes)
    return "launch with " + std::to_string(shared_bytes) + " bytes of shared memory";
  Fibers& fibers = shared_fibers();
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
