// The emulated GPU: one fiber a thread, switched at barriers and warp instructions only.
//
// Blocks run one after another. The order of threads is chosen by simt_configure (or SIMT_ORDER):
//   0 each in turn, 1 the same backwards, 2 the lowest thread that can run (so that one warp gets
//   as far ahead as barriers let it), 3 the highest, from 4 on random, blocks too, by that seed.
// Asynchronous copies happen when they are started, or (lazy) when they are waited for, the
// destination holding NaN in between. A kernel without races gives the same bits under all of
// these.
#include "runtime.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include "simt_host.h"

dim3 simt_thread, simt_block, simt_block_size, simt_grid_size;

// Present only in a build with AddressSanitizer: it wants to know which stack is in use.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void**, const void*, size_t);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);
}

// ---- switching stacks ----
#if !defined(__x86_64__)
#error "simt: the stack switch is written for x86-64"
#endif
extern "C" void simt_switch(void** save, void* load);
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

Now now{};
void (*note_access)(const void*, int, bool, const void*) = nullptr;

namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStack = 256 << 10;
constexpr size_t kGuard = 4096;
constexpr unsigned kMaxShared = 227 << 10;  // of a block, sm_90
constexpr int kLaunchFailure = 719;         // cudaErrorLaunchFailure
constexpr int kInvalidConfiguration = 9;    // cudaErrorInvalidConfiguration
constexpr int kPoison = 0xff;               // NaN in every floating-point type

struct Copy {
  char* shared;
  const char* global;
  int bytes, valid;
  const void* code;  // where the kernel started it
};

enum class State { kReady, kBarrier, kTogether, kDone };

struct Thread {
  void* stack_pointer;
  void* fake_stack;
  State state;
  const char* file;  // where it waits
  unsigned line;
  std::vector<std::vector<Copy>> copies;  // closed groups, then the open one
};

struct Warp {
  unsigned arrived, mask;
  const char* what;
  Site at{std::source_location()};
  void* operands[kWarp];
  uint32_t epoch;
};

struct Shared {
  const void* key;
  char* data;
  size_t bytes;
};

char* stacks = nullptr;
void* scheduler_stack_pointer = nullptr;
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_size = 0;

std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<uint64_t> ready;
std::vector<Shared> shared_memory;
char* dynamic_memory = nullptr;
std::unordered_map<uintptr_t, int> in_flight;  // 4-byte words that a copy is on its way to
unsigned count, arrived, finished;             // threads: of the block, at the barrier, returned
Site barrier_at{std::source_location()};
void (*kernel_body)(void*);
void* kernel_context;
bool failed = false;
char message[1024] = "";

int order = 0;
bool lazy = false;
uint64_t random_state = 1;

uint64_t random_number() {  // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545F4914F6CDD1Dull;
}

void set_ready(unsigned t) {
  threads[t].state = State::kReady;
  ready[t / 64] |= uint64_t(1) << (t % 64);
}

// The first ready thread from t on, going up or down and around; count where there is none.
unsigned next_ready(unsigned t, bool down) {
  const auto word = [](unsigned i, unsigned from, bool down) {
    const uint64_t all = ready[i];
    return down ? all & (~uint64_t(0) >> (63 - from)) : all & (~uint64_t(0) << from);
  };
  const unsigned words = static_cast<unsigned>(ready.size());
  unsigned from = t % 64;
  for (unsigned step = 0, i = t / 64; step <= words; ++step) {
    if (const uint64_t found = word(i, from, down))
      return 64 * i + (down ? 63 - __builtin_clzll(found) : __builtin_ctzll(found));
    i = down ? (i + words - 1) % words : (i + 1) % words;
    from = down ? 63 : 0;
  }
  return count;
}

unsigned choose(unsigned last) {
  switch (order) {
    case 0:
      return next_ready((last + 1) % count, false);
    case 1:
      return next_ready((last + count - 1) % count, true);
    case 2:
      return next_ready(0, false);
    case 3:
      return next_ready(count - 1, true);
    default:
      return next_ready(static_cast<unsigned>(random_number() % count), false);
  }
}

char* stack_of(unsigned t) { return stacks + t * kStack; }

void to_scheduler() {
  Thread& self = threads[now.thread];
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(self.state == State::kDone ? nullptr : &self.fake_stack,
                                   scheduler_stack, scheduler_stack_size);
  simt_switch(&self.stack_pointer, scheduler_stack_pointer);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
}

void to_thread(unsigned t) {
  now.thread = t;
  now.warp_epoch = warps[t / kWarp].epoch;
  now.running = true;
  const unsigned x = simt_block_size.x, y = simt_block_size.y;
  simt_thread = dim3(t % x, t / x % y, t / x / y);
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, stack_of(t) + kGuard, kStack - kGuard);
  simt_switch(&scheduler_stack_pointer, threads[t].stack_pointer);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
  now.running = false;
}

void thread_main() {
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
  kernel_body(kernel_context);
  Thread& self = threads[now.thread];
  for (const auto& group : self.copies)
    if (!group.empty()) stop("a thread returned while its asynchronous copies were under way");
  self.state = State::kDone;
  ++finished;
  to_scheduler();
  __builtin_unreachable();
}

void prepare(unsigned t) {
  // The stack as simt_switch leaves it: six registers and the address to return to, placed so that
  // thread_main finds the alignment that a call would give it.
  auto* top = reinterpret_cast<void**>(stack_of(t) + kStack - 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&thread_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  Thread& thread = threads[t];
  thread.stack_pointer = top;
  thread.fake_stack = nullptr;
  thread.copies.assign(1, {});
  set_ready(t);
}

void wait_for(State state, Site at) {
  const unsigned t = now.thread;
  threads[t].state = state;
  threads[t].file = at.file;
  threads[t].line = at.line;
  ready[t / 64] &= ~(uint64_t(1) << (t % 64));
  to_scheduler();
}

void set_message(const char* format, va_list arguments) {
  if (failed) return;  // the first one is the cause
  failed = true;
  char text[768];
  vsnprintf(text, sizeof text, format, arguments);
  snprintf(message, sizeof message, "block (%u,%u,%u) thread (%u,%u,%u): %s", simt_block.x,
           simt_block.y, simt_block.z, simt_thread.x, simt_thread.y, simt_thread.z, text);
}

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_message(format, arguments);
  va_end(arguments);
}

void report_deadlock() {
  const Thread* first = nullptr;
  unsigned waiting = 0;
  for (unsigned t = 0; t < count; ++t)
    if (threads[t].state != State::kDone) {
      if (!first) first = &threads[t];
      ++waiting;
    }
  fail("deadlock: %u threads wait, one at %s line %u (%s), %u of %u have returned", waiting,
       first->file, first->line, first->state == State::kBarrier ? "a barrier" : "its warp",
       finished, count);
}

void* allocate_shared(size_t bytes) {
  void* data = nullptr;
  // Exactly as long as asked for, so that AddressSanitizer sees an overrun of one byte.
  if (posix_memalign(&data, 128, std::max<size_t>(bytes, 1))) abort();
  std::memset(data, kPoison, bytes);
  return data;
}

void run_block(unsigned shared) {
  ++now.block;
  now.block_epoch = 0;
  arrived = finished = 0;
  in_flight.clear();
  for (Warp& w : warps) w.arrived = w.epoch = 0;
  dynamic_memory = static_cast<char*>(allocate_shared(shared));
  shared_memory.push_back({nullptr, dynamic_memory, shared});
  for (unsigned t = 0; t < count; ++t) prepare(t);
  unsigned last = order == 1 ? 0 : count - 1;
  while (finished < count && !failed) {
    const unsigned t = choose(last);
    if (t >= count) {
      report_deadlock();
      break;
    }
    to_thread(t);
    if (threads[t].state == State::kDone) ready[t / 64] &= ~(uint64_t(1) << (t % 64));
    last = t;
  }
  size_t total = 0;
  for (const Shared& s : shared_memory) {
    total += s.bytes;
    free(s.data);
  }
  shared_memory.clear();
  if (total > kMaxShared)
    fail("a block has %u bytes of shared memory at most, this one took %zu", kMaxShared, total);
}

void complete(const Copy& copy) {
  std::memcpy(copy.shared, copy.global, copy.valid);
  std::memset(copy.shared + copy.valid, 0, copy.bytes - copy.valid);
  if (note_access) {
    note_access(copy.global, copy.valid, false, copy.code);
    note_access(copy.shared, copy.bytes, true, copy.code);
  }
}

}  // namespace

bool on_a_stack(const void* address) {
  const auto* p = static_cast<const char*>(address);
  return stacks && p >= stacks && p < stacks + kMaxThreads * kStack;
}

bool in_shared_memory(const void* address) {
  const auto* p = static_cast<const char*>(address);
  for (const Shared& s : shared_memory)
    if (p >= s.data && p < s.data + s.bytes) return true;
  return false;
}

void stop(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_message(format, arguments);
  va_end(arguments);
  to_scheduler();  // and never back: the launch is over
  abort();
}

int run(dim3 grid, dim3 block, unsigned shared, void (*body)(void*), void* context) {
  count = block.x * block.y * block.z;
  simt_thread = simt_block = dim3(0, 0, 0);
  simt_block_size = block;
  simt_grid_size = grid;
  failed = false;
  if (count == 0 || count > kMaxThreads || block.z > 64 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    fail("no such launch: grid (%u,%u,%u), block (%u,%u,%u)", grid.x, grid.y, grid.z, block.x,
         block.y, block.z);
    return kInvalidConfiguration;
  }
  if (!stacks) {
    stacks = static_cast<char*>(mmap(nullptr, kMaxThreads * kStack, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) abort();
    for (unsigned t = 0; t < kMaxThreads; ++t) mprotect(stack_of(t), kGuard, PROT_NONE);
  }
  threads.resize(count);
  warps.assign((count + kWarp - 1) / kWarp, Warp{});
  ready.assign((count + 63) / 64, 0);
  kernel_body = body;
  kernel_context = context;
  ++now.launch;
  random_state = 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(order);

  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  std::vector<uint32_t> sequence;
  if (order > 3) {
    for (uint64_t i = 0; i < blocks; ++i) sequence.push_back(static_cast<uint32_t>(i));
    for (uint64_t i = blocks; i > 1; --i) std::swap(sequence[i - 1], sequence[random_number() % i]);
  }
  for (uint64_t i = 0; i < blocks && !failed; ++i) {
    const uint64_t b = order > 3 ? sequence[i] : order % 2 ? blocks - 1 - i : i;
    simt_block = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                      static_cast<unsigned>(b / grid.x / grid.y));
    run_block(shared);
  }
  if (failed && __asan_unpoison_memory_region)  // frames that were left behind
    for (unsigned t = 0; t < count; ++t)
      __asan_unpoison_memory_region(stack_of(t) + kGuard, kStack - kGuard);
  return failed ? kLaunchFailure : 0;
}

void* shared_variable(const void* key, size_t bytes) {
  for (const Shared& s : shared_memory)
    if (s.key == key) return s.data;
  shared_memory.push_back({key, static_cast<char*>(allocate_shared(bytes)), bytes});
  return shared_memory.back().data;
}

void* dynamic_shared() { return dynamic_memory; }

void barrier(Site at) {
  if (arrived == 0) {
    barrier_at = at;
  } else if (barrier_at.line != at.line || std::strcmp(barrier_at.file, at.file) != 0) {
    stop("at the barrier of line %u while others wait at that of line %u", at.line,
         barrier_at.line);
  }
  if (finished > 0)
    stop("at the barrier of line %u, which %u threads of the block have returned without", at.line,
         finished);
  if (++arrived < count) return wait_for(State::kBarrier, at);
  arrived = 0;
  ++now.block_epoch;
  for (unsigned t = 0; t < count; ++t)
    if (t != now.thread) set_ready(t);
}

void together(const char* what, unsigned mask, void* operand, void (*combine)(void**, unsigned),
              Site at) {
  const unsigned own = now.thread / kWarp, lane = now.thread % kWarp;
  Warp& warp = warps[own];
  const unsigned lanes = std::min(kWarp, count - own * kWarp);
  const unsigned present = lanes == kWarp ? 0xffffffffu : (1u << lanes) - 1;
  if (!(mask >> lane & 1)) stop("%s at line %u: the mask lacks the calling lane", what, at.line);
  if (mask & ~present) stop("%s at line %u: the mask names lanes that do not exist", what, at.line);
  for (unsigned l = 0; l < lanes; ++l)
    if ((mask >> l & 1) && threads[own * kWarp + l].state == State::kDone)
      stop("%s at line %u: lane %u of the mask has returned", what, at.line, l);
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.what = what;
    warp.at = at;
  } else if (warp.mask != mask || warp.at.line != at.line || std::strcmp(warp.what, what) != 0) {
    stop(
        "%s at line %u with mask %08x while other lanes of the warp are in %s at line %u with "
        "mask %08x",
        what, at.line, mask, warp.what, warp.at.line, warp.mask);
  }
  warp.operands[lane] = operand;
  warp.arrived |= 1u << lane;
  if (warp.arrived != mask) {
    wait_for(State::kTogether, at);
  } else {
    combine(warp.operands, mask);
    warp.arrived = 0;
    // Only __syncwarp orders memory.
    if (operand == nullptr && mask == present) ++warp.epoch;
    for (unsigned l = 0; l < lanes; ++l)
      if ((mask >> l & 1) && l != lane) set_ready(own * kWarp + l);
  }
  now.warp_epoch = warp.epoch;
}

void check_row(const void* row, Site at) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    stop("load_matrices at line %u: a row is not aligned to 16 bytes", at.line);
  if (!in_shared_memory(row))
    stop("load_matrices at line %u: a row is not in shared memory", at.line);
}

void start_copy(void* shared, const void* global, int bytes, int valid, Site at) {
  if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes)
    stop("copy_async at line %u: source and destination must be aligned to %d bytes", at.line,
         bytes);
  if (valid < 0 || valid > bytes)
    stop("copy_async at line %u: %d valid bytes of %d", at.line, valid, bytes);
  if (!in_shared_memory(shared))
    stop("copy_async at line %u: the destination is not in shared memory", at.line);
  const Copy copy{static_cast<char*>(shared), static_cast<const char*>(global), bytes, valid,
                  __builtin_return_address(0)};
  for (int i = 0; i < bytes; i += 4)
    if (in_flight[reinterpret_cast<uintptr_t>(copy.shared + i)]++)
      stop("copy_async at line %u: two copies under way to the same bytes", at.line);
  if (lazy) {
    std::memset(shared, kPoison, bytes);
    if (note_access) note_access(shared, bytes, true, copy.code);
  } else {
    complete(copy);
  }
  threads[now.thread].copies.back().push_back(copy);
}

void close_copies() { threads[now.thread].copies.push_back({}); }

void wait_copies(int pending) {
  auto& groups = threads[now.thread].copies;
  // The open group is not one of them.
  while (static_cast<int>(groups.size()) - 1 > pending) {
    for (const Copy& copy : groups.front()) {
      if (lazy) complete(copy);
      for (int i = 0; i < copy.bytes; i += 4)
        --in_flight[reinterpret_cast<uintptr_t>(copy.shared + i)];
    }
    groups.erase(groups.begin());
  }
}

}  // namespace simt

extern "C" void simt_configure(int order, int lazy) {
  simt::order = order;
  simt::lazy = lazy != 0;
}

// Launches so far.
extern "C" int simt_launches() { return static_cast<int>(simt::now.launch); }

// Why the last launch that failed did.
extern "C" const char* simt_error() { return simt::message; }

namespace {
const bool configured = [] {
  const char *order = getenv("SIMT_ORDER"), *lazy = getenv("SIMT_LAZY");
  simt_configure(order ? atoi(order) : 0, lazy ? atoi(lazy) : 0);
  return true;
}();
}  // namespace
