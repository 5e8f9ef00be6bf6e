// Watches every load and store of the kernels that host_lanes.h runs, in builds with
// HOST_LANES_WATCH: compiled with -fsanitize=thread, whose calls at each access memory_watch.cpp
// answers in place of the compiler's library. An error is reported by the thread that ran.
//
// Note [Watched]: two threads that touch the same byte, one of them not only reading and not both
// by atomic addition, must be ordered by a sync() of their block between them; threads of different
// blocks never are. A shuffle orders nothing, as on a GPU. Shared memory must be written before it
// is read. An access must lie within its tensor, at a multiple of its own size, and no input may be
// written to.
#pragma once

#include <stdint.h>

namespace host_lanes {
namespace memory_watch {

#if defined(HOST_LANES_WATCH)
constexpr int64_t kGuard =
    64;  // bytes before and behind whatever is watched; nobody may touch them
// The thread that is running from now on, and how often its block has met; block -1 for none.
void set_thread(int64_t block, int thread, int epoch);
// The shared memory of the block that is about to run: nothing in it has been written.
void set_shared(const char* begin, int64_t bytes);
// A tensor, with its guards. `name` must live as long.
void add_tensor(const char* name, const void* begin, int64_t bytes, bool writable);
// Forgets the accesses of the launch before.
void start_launch();
void clear_tensors();
// An atomic addition, or a plain read, by the running thread.
void atomic(const void* address, int64_t bytes);
void read(const void* address, int64_t bytes);
// The first error since the last call, or null.
const char* take_error();
// Accesses that are the emulator's own.
class Pause {
 public:
  Pause();
  ~Pause();
};
#else
constexpr int64_t kGuard = 0;  // AddressSanitizer wants heap blocks of exactly the size
inline void set_thread(int64_t, int, int) {}
inline void set_shared(const char*, int64_t) {}
inline void add_tensor(const char*, const void*, int64_t, bool) {}
inline void start_launch() {}
inline void clear_tensors() {}
inline void atomic(const void*, int64_t) {}
inline void read(const void*, int64_t) {}
inline const char* take_error() { return nullptr; }
struct Pause {
  Pause() {}
};
#endif

}  // namespace memory_watch
}  // namespace host_lanes
