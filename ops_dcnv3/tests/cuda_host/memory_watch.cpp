// See memory_watch.h. Compiled without -fsanitize=thread itself.
#include "memory_watch.h"

#include <cstdio>
#include <string>
#include <vector>

namespace host_lanes {
namespace memory_watch {
namespace {

struct Access {
  int64_t block = -1;
  int thread = 0;
  int epoch = 0;
};

// What has happened to one byte.
struct Byte {
  Access read, write, add;
  bool several_readers = false;  // in the epoch of `read`
  bool several_blocks = false;   // have read
  bool has_value = false;
};

struct Region {
  const char* name = "shared memory";
  uintptr_t begin = 0, end = 0;
  bool writable = true;
  std::vector<Byte> bytes;
};

Region around(const void* begin, int64_t bytes) {
  Region region;
  region.begin = reinterpret_cast<uintptr_t>(begin);
  region.end = region.begin + static_cast<uintptr_t>(bytes);
  region.bytes.resize(static_cast<size_t>(bytes));
  return region;
}

struct State {
  Access now;
  std::vector<Region> regions{1};  // the first is the shared memory
  std::string error;
  std::string reported;
};
State& state() {
  static State instance;
  return instance;
}

enum class Kind { kRead, kWrite, kAdd };
const char* name_of(Kind kind) {
  return kind == Kind::kRead ? "read" : kind == Kind::kWrite ? "write" : "atomic addition";
}

bool conflicts(const Access& before, const Access& now) {
  return before.block >= 0 &&
         (before.block != now.block || (before.epoch == now.epoch && before.thread != now.thread));
}

void report(const Region& region, uintptr_t address, Kind kind, const std::string& what) {
  if (!state().error.empty()) return;
  state().error = std::string(name_of(kind)) + " of " + region.name + " at byte " +
                  std::to_string(static_cast<int64_t>(address - region.begin)) + ": " + what;
}

void report_race(const Region& region, uintptr_t address, Kind kind, Kind before,
                 const Access& by) {
  report(region, address, kind,
         std::string("race with the ") + name_of(before) + " by thread " +
             std::to_string(by.thread) + " of block " + std::to_string(by.block));
}

void touch(Region& region, uintptr_t address, Kind kind) {
  const Access& now = state().now;
  Byte& byte = region.bytes[address - region.begin];
  if (kind != Kind::kWrite && !byte.has_value)
    return report(region, address, kind, "nobody wrote it before");
  if (conflicts(byte.write, now))
    return report_race(region, address, kind, Kind::kWrite, byte.write);
  if (kind != Kind::kAdd && conflicts(byte.add, now))
    return report_race(region, address, kind, Kind::kAdd, byte.add);
  const bool same_epoch = byte.read.block == now.block && byte.read.epoch == now.epoch;
  if (kind != Kind::kRead &&
      (conflicts(byte.read, now) || byte.several_blocks || (byte.several_readers && same_epoch)))
    return report_race(region, address, kind, Kind::kRead, byte.read);
  switch (kind) {
    case Kind::kRead:
      byte.several_readers = same_epoch && (byte.several_readers || byte.read.thread != now.thread);
      byte.several_blocks |= byte.read.block >= 0 && byte.read.block != now.block;
      byte.read = now;
      break;
    case Kind::kWrite:
      byte.write = now;
      byte.has_value = true;
      break;
    case Kind::kAdd:
      byte.add = now;
      break;
  }
}

void access(uintptr_t address, uintptr_t bytes, Kind kind) {
  State& s = state();
  if (s.now.block < 0) return;  // not a kernel
  for (Region& region : s.regions) {
    if (address + bytes <= region.begin - kGuard || address >= region.end + kGuard) continue;
    if (address < region.begin || address + bytes > region.end)
      return report(region, address, kind, std::to_string(bytes) + " bytes reach out of it");
    if (bytes <= 16 && (bytes & (bytes - 1)) == 0 && address % bytes != 0)
      return report(region, address, kind,
                    std::to_string(bytes) + " bytes at an address that is no multiple of that");
    if (kind != Kind::kRead && !region.writable)
      return report(region, address, kind, "it is an input");
    for (uintptr_t k = 0; k < bytes; ++k) touch(region, address + k, kind);
    return;
  }
}

}  // namespace

void set_thread(int64_t block, int thread, int epoch) { state().now = {block, thread, epoch}; }

void set_shared(const char* begin, int64_t bytes) { state().regions[0] = around(begin, bytes); }

void add_tensor(const char* name, const void* begin, int64_t bytes, bool writable) {
  State& s = state();
  Region region = around(begin, bytes);
  region.name = name;
  region.writable = writable;
  s.regions.push_back(std::move(region));
  start_launch();
}

void start_launch() {
  State& s = state();
  for (size_t k = 1; k < s.regions.size(); ++k) {
    Byte fresh;
    fresh.has_value = true;  // whether it is a sensible one, the results tell
    s.regions[k].bytes.assign(s.regions[k].bytes.size(), fresh);
  }
}

void clear_tensors() { state().regions.resize(1); }

void atomic(const void* address, int64_t bytes) {
  access(reinterpret_cast<uintptr_t>(address), static_cast<uintptr_t>(bytes), Kind::kAdd);
}

void read(const void* address, int64_t bytes) {
  access(reinterpret_cast<uintptr_t>(address), static_cast<uintptr_t>(bytes), Kind::kRead);
}

const char* take_error() {
  State& s = state();
  if (s.error.empty()) return nullptr;
  s.reported.swap(s.error);
  s.error.clear();
  return s.reported.c_str();
}

namespace {
Access paused;
}
Pause::Pause() {
  paused = state().now;
  state().now = Access{};
}
Pause::~Pause() { state().now = paused; }

}  // namespace memory_watch
}  // namespace host_lanes

// What -fsanitize=thread calls.
extern "C" {
#define WATCH(name, bytes, kind)                                                  \
  void name(void* address) {                                                      \
    host_lanes::memory_watch::access(reinterpret_cast<uintptr_t>(address), bytes, \
                                     host_lanes::memory_watch::Kind::kind);       \
  }
#define WATCH_SIZE(bytes)                             \
  WATCH(__tsan_read##bytes, bytes, kRead)             \
  WATCH(__tsan_write##bytes, bytes, kWrite)           \
  WATCH(__tsan_unaligned_read##bytes, bytes, kRead)   \
  WATCH(__tsan_unaligned_write##bytes, bytes, kWrite) \
  WATCH(__tsan_read##bytes##_pc, bytes, kRead)        \
  WATCH(__tsan_write##bytes##_pc, bytes, kWrite)
WATCH_SIZE(1)
WATCH_SIZE(2)
WATCH_SIZE(4)
WATCH_SIZE(8)
WATCH_SIZE(16)
void __tsan_read_range(void* address, unsigned long bytes) {
  host_lanes::memory_watch::access(reinterpret_cast<uintptr_t>(address), bytes,
                                   host_lanes::memory_watch::Kind::kRead);
}
void __tsan_write_range(void* address, unsigned long bytes) {
  host_lanes::memory_watch::access(reinterpret_cast<uintptr_t>(address), bytes,
                                   host_lanes::memory_watch::Kind::kWrite);
}
void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  __tsan_read_range(const_cast<void*>(from), bytes);
  __tsan_write_range(to, bytes);
  return __builtin_memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  __tsan_read_range(const_cast<void*>(from), bytes);
  __tsan_write_range(to, bytes);
  return __builtin_memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, unsigned long bytes) {
  __tsan_write_range(to, bytes);
  return __builtin_memset(to, value, bytes);
}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
