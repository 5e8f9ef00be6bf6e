// Many threads of control on one thread of the machine: each has a stack of its own and runs until
// it yields. What host_lanes.h needs to run the threads of a CUDA block one after the other.
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HOST_LANES_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HOST_LANES_ASAN 1
#endif
#if defined(HOST_LANES_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// swapcontext asks the kernel for the signal mask each time and takes some 300 ns; a block of 256
// threads that meets 1000 times switches half a million times. So on the usual machine we exchange
// the registers ourselves. HOST_LANES_UCONTEXT takes the portable way there too.
#if !(defined(__x86_64__) && defined(__linux__)) && !defined(HOST_LANES_UCONTEXT)
#define HOST_LANES_UCONTEXT 1
#endif
#if defined(HOST_LANES_UCONTEXT)
#include <ucontext.h>
#else
// Keeps the registers that a function must preserve on the stack, its place in *from, and goes on
// where `to` was kept.
extern "C" void host_lanes_switch(void** from, void* to);
asm(R"(
.text
.weak host_lanes_switch
.type host_lanes_switch, @function
host_lanes_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size host_lanes_switch, . - host_lanes_switch
)");
#endif

namespace host_lanes {

#if defined(HOST_LANES_ASAN)
constexpr size_t kStackBytes = 256 << 10;  // its frames are many times as large
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr size_t kGuardBytes = 64 << 10;  // below each stack, not to be touched

// While one of these lives, a fiber that touches memory that is not there ends by itself alone. The
// sanitizers have handlers of their own, which say more.
class Faults {
 public:
  Faults() {
#if !defined(HOST_LANES_ASAN)
    const stack_t mine{memory().data(), 0, memory().size()};
    sigaltstack(&mine, &stack_);
    struct sigaction action{};
    action.sa_sigaction = &Faults::handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &segmentation_);
    sigaction(SIGBUS, &action, &bus_);
#endif
  }
  ~Faults() {
#if !defined(HOST_LANES_ASAN)
    sigaction(SIGBUS, &bus_, nullptr);
    sigaction(SIGSEGV, &segmentation_, nullptr);
    sigaltstack(&stack_, nullptr);
#endif
  }
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;

  // Where to go from a fault, and whether anything that could fault is running.
  static sigjmp_buf& way_out() {
    static sigjmp_buf buffer;
    return buffer;
  }
  static volatile sig_atomic_t& armed() {
    static volatile sig_atomic_t flag = 0;
    return flag;
  }

 private:
  static std::vector<char>& memory() {
    static std::vector<char> stack(64 << 10);
    return stack;
  }
  static void handle(int number, siginfo_t*, void*) {
    if (!armed()) {  // not of a fiber: nobody's business here
      signal(number, SIG_DFL);
      return;
    }
    siglongjmp(way_out(), 1);
  }

  stack_t stack_{};
  struct sigaction segmentation_{};
  struct sigaction bus_{};
};

class Fibers {
 public:
  Fibers() = default;
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;
  ~Fibers() {
    if (memory_ != nullptr) munmap(memory_, capacity_ * kPitch);
  }

  // Makes `count` fibers, each of which will call entry(argument, its number). What earlier ones
  // had left to do is dropped: no destructor on their stacks runs.
  void start(int count, void (*entry)(void*, int), void* argument) {
    reserve(static_cast<size_t>(count));
    entry_ = entry;
    argument_ = argument;
    fibers_.assign(static_cast<size_t>(count), Fiber{});
    for (int k = 0; k < count; ++k) prepare(k);
  }

  // Runs fiber k until it yields or ends; false where it touched memory that is not there, after
  // which it must not be resumed. Not to be called from a fiber, and only while a Faults lives.
  bool resume(int k) {
    if (sigsetjmp(Faults::way_out(), 0) != 0) {
      Faults::armed() = 0;
      return false;
    }
    Faults::armed() = 1;
    switch_to(k);
    Faults::armed() = 0;
    return true;
  }

  // Goes back to whoever resumed this fiber.
  void yield() { leave(false); }

  bool ended(int k) const { return fibers_[static_cast<size_t>(k)].ended; }

 private:
  void switch_to(int k) {
    current_ = k;
    resuming() = this;
    Fiber& fiber = fibers_[static_cast<size_t>(k)];
    before_switch(&scheduler_.fake_stack, stack(k), kStackBytes);
#if defined(HOST_LANES_UCONTEXT)
    swapcontext(&scheduler_.context, &fiber.context);
#else
    host_lanes_switch(&scheduler_.registers, fiber.registers);
#endif
    after_switch(scheduler_.fake_stack, nullptr, nullptr);
  }

  struct Fiber {
#if defined(HOST_LANES_UCONTEXT)
    ucontext_t context;
#else
    void* registers;
#endif
    void* fake_stack;
    bool ended;
  };
  static constexpr size_t kPitch = kGuardBytes + kStackBytes;

  char* stack(int k) const { return memory_ + static_cast<size_t>(k) * kPitch + kGuardBytes; }

  void reserve(size_t count) {
    if (count <= capacity_) return;
    if (memory_ != nullptr) munmap(memory_, capacity_ * kPitch);
    void* memory = mmap(nullptr, count * kPitch, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      std::perror("host_lanes: no memory for stacks");
      std::abort();
    }
    memory_ = static_cast<char*>(memory);
    capacity_ = count;
    for (size_t k = 0; k < count; ++k) mprotect(memory_ + k * kPitch, kGuardBytes, PROT_NONE);
  }

  void prepare(int k) {
    Fiber& fiber = fibers_[static_cast<size_t>(k)];
#if defined(HOST_LANES_ASAN)
    __asan_unpoison_memory_region(stack(k), kStackBytes);  // of frames that were dropped
#endif
#if defined(HOST_LANES_UCONTEXT)
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack(k);
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Fibers::enter, 0);
#else
    // Six registers, where to go on, and a return address that ends every backtrace. The stack
    // pointer at `enter` is then 8 short of a multiple of 16, as after a call.
    void** top = reinterpret_cast<void**>(stack(k) + kStackBytes);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(&Fibers::enter);
    for (int word = 3; word <= 8; ++word) top[-word] = nullptr;
    fiber.registers = top - 8;
#endif
  }

  // A new stack begins here, with no argument but this.
  static Fibers*& resuming() {
    static Fibers* fibers = nullptr;
    return fibers;
  }
  static void enter() { resuming()->run_current(); }

  void run_current() {
    after_switch(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
    const int self = current_;
    entry_(argument_, self);
    leave(true);
    std::abort();  // nobody resumes a fiber that has ended
  }

  void leave(bool ends) {
    Fiber& fiber = fibers_[static_cast<size_t>(current_)];
    fiber.ended = ends;
    before_switch(ends ? nullptr : &fiber.fake_stack, scheduler_stack_, scheduler_stack_bytes_);
#if defined(HOST_LANES_UCONTEXT)
    swapcontext(&fiber.context, &scheduler_.context);
#else
    host_lanes_switch(&fiber.registers, scheduler_.registers);
#endif
    after_switch(fiber.fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
  }

  // AddressSanitizer has to know which stack it is on.
  static void before_switch(void** keep, const void* bottom, size_t bytes) {
#if defined(HOST_LANES_ASAN)
    __sanitizer_start_switch_fiber(keep, bottom, bytes);
#else
    (void)keep, (void)bottom, (void)bytes;
#endif
  }
  static void after_switch(void* kept, const void** old_bottom, size_t* old_bytes) {
#if defined(HOST_LANES_ASAN)
    __sanitizer_finish_switch_fiber(kept, old_bottom, old_bytes);
#else
    (void)kept, (void)old_bottom, (void)old_bytes;
#endif
  }

  char* memory_ = nullptr;
  size_t capacity_ = 0;
  std::vector<Fiber> fibers_;
  Fiber scheduler_{};
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
  int current_ = 0;
  void (*entry_)(void*, int) = nullptr;
  void* argument_ = nullptr;
};

}  // namespace host_lanes
