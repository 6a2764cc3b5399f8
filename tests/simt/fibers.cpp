#include "fibers.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>

#include "runtime.h"

#if !defined(__x86_64__)
#error "simt: the stack switch is written for x86-64"
#endif

extern "C" {
// Present only in a build with AddressSanitizer: it wants to know which stack is in use.
__attribute__((weak)) void __sanitizer_start_switch_fiber(void**, const void*, size_t);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);

void simt_switch(void** save, void* load);
}
// The callee-saved registers go to the old stack and come from the new one.
asm(R"(
.text
.type simt_switch, @function
simt_switch:
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
.size simt_switch, .-simt_switch
)");

namespace simt {

namespace {

constexpr size_t kStack = 256 << 10;
constexpr size_t kGuard = 4096;

struct Fiber {
  void* stack_pointer;
  void* fake_stack;  // AddressSanitizer's
  void (*body)();
};

Fiber fibers[kMaxFibers];
char* stacks = nullptr;
unsigned entered;  // the fiber that was entered last

void* scheduler_stack_pointer = nullptr;
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;

char* stack_of(unsigned i) { return stacks + i * kStack; }

void allocate_stacks() {
  stacks = static_cast<char*>(mmap(nullptr, kMaxFibers * kStack, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stacks == MAP_FAILED) abort();
  for (unsigned i = 0; i < kMaxFibers; ++i) mprotect(stack_of(i), kGuard, PROT_NONE);
}

void begin() {
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
  fibers[entered].body();
  __builtin_unreachable();
}

}  // namespace

void make_fiber(unsigned i, void (*body)()) {
  if (!stacks) allocate_stacks();
  // The stack as simt_switch leaves it: six registers and the address to return to, placed so that
  // `begin` finds the alignment that a call would give it.
  auto* top = reinterpret_cast<void**>(stack_of(i) + kStack - 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&begin);
  for (int k = 0; k < 6; ++k) *--top = nullptr;
  fibers[i] = {top, nullptr, body};
}

void enter_fiber(unsigned i) {
  entered = i;
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, stack_of(i) + kGuard, kStack - kGuard);
  simt_switch(&scheduler_stack_pointer, fibers[i].stack_pointer);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
}

void leave_fiber(bool for_good) {
  Fiber& self = fibers[entered];
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &self.fake_stack, scheduler_stack,
                                   scheduler_stack_size);
  simt_switch(&self.stack_pointer, scheduler_stack_pointer);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
}

void abandon_fibers(unsigned count) {
  if (!__asan_unpoison_memory_region) return;
  for (unsigned i = 0; i < count; ++i)
    __asan_unpoison_memory_region(stack_of(i) + kGuard, kStack - kGuard);
}

bool on_a_stack(const void* address) {
  const auto* p = static_cast<const char*>(address);
  return stacks && p >= stacks && p < stacks + kMaxFibers * kStack;
}

}  // namespace simt
