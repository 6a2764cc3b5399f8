// The emulated GPU: one fiber a thread, switched at barriers and warp instructions only.
//
// Blocks run one after another. simt_configure (or SIMT_ORDER and SIMT_LAZY) chooses the order of
// threads (order.h) and when asynchronous copies happen (copies.h); a kernel without races gives
// the same bits under all of these.
#include "runtime.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "copies.h"
#include "fibers.h"
#include "order.h"
#include "simt_host.h"

dim3 simt_thread, simt_block, simt_block_size, simt_grid_size;

namespace simt {

Now now{};
void (*note_access)(const void*, int, bool, const void*) = nullptr;

namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxShared = 227 << 10;  // of a block, sm_90
constexpr int kLaunchFailure = 719;         // cudaErrorLaunchFailure
constexpr int kInvalidConfiguration = 9;    // cudaErrorInvalidConfiguration

enum class State { kReady, kBarrier, kTogether, kDone };

struct Thread {
  State state;
  const char* file;  // where it waits
  unsigned line;
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

std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<Shared> shared_memory;
char* dynamic_memory = nullptr;
unsigned count, arrived, finished;  // threads: of the block, at the barrier, returned
Site barrier_at{std::source_location()};
void (*kernel_body)(void*);
void* kernel_context;
bool failed = false;
char message[1024] = "";

void wake(unsigned t) {
  threads[t].state = State::kReady;
  set_ready(t);
}

void thread_main() {
  kernel_body(kernel_context);
  if (has_open_copies(now.thread))
    stop("a thread returned while its asynchronous copies were under way");
  threads[now.thread].state = State::kDone;
  set_waiting(now.thread);
  ++finished;
  leave_fiber(true);
}

void run_thread(unsigned t) {
  now.thread = t;
  now.warp_epoch = warps[t / kWarp].epoch;
  now.running = true;
  const unsigned x = simt_block_size.x, y = simt_block_size.y;
  simt_thread = dim3(t % x, t / x % y, t / x / y);
  enter_fiber(t);
  now.running = false;
}

void wait_for(State state, Site at) {
  const unsigned t = now.thread;
  threads[t].state = state;
  threads[t].file = at.file;
  threads[t].line = at.line;
  set_waiting(t);
  leave_fiber(false);
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
  forget_copies(count);
  for (Warp& w : warps) w.arrived = w.epoch = 0;
  dynamic_memory = static_cast<char*>(allocate_shared(shared));
  shared_memory.push_back({nullptr, dynamic_memory, shared});
  for (unsigned t = 0; t < count; ++t) {
    make_fiber(t, &thread_main);
    wake(t);
  }
  unsigned last = turn_before_first();
  while (finished < count && !failed) {
    const unsigned t = next_turn(last);
    if (t >= count) {
      report_deadlock();
      break;
    }
    run_thread(t);
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

}  // namespace

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
  leave_fiber(false);  // and never back: the launch is over
  abort();
}

int run(dim3 grid, dim3 block, unsigned shared, void (*body)(void*), void* context) {
  count = block.x * block.y * block.z;
  simt_thread = simt_block = dim3(0, 0, 0);
  simt_block_size = block;
  simt_grid_size = grid;
  failed = false;
  if (count == 0 || count > kMaxFibers || block.z > 64 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    fail("no such launch: grid (%u,%u,%u), block (%u,%u,%u)", grid.x, grid.y, grid.z, block.x,
         block.y, block.z);
    return kInvalidConfiguration;
  }
  threads.resize(count);
  warps.assign((count + kWarp - 1) / kWarp, Warp{});
  kernel_body = body;
  kernel_context = context;
  ++now.launch;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  begin_turns(blocks, count);
  for (uint64_t i = 0; i < blocks && !failed; ++i) {
    const uint64_t b = block_in_turn(i);
    simt_block = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                      static_cast<unsigned>(b / grid.x / grid.y));
    run_block(shared);
  }
  if (failed) abandon_fibers(count);
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
    if (t != now.thread) wake(t);
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
      if ((mask >> l & 1) && l != lane) wake(own * kWarp + l);
  }
  now.warp_epoch = warp.epoch;
}

void check_row(const void* row, Site at) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    stop("load_matrices at line %u: a row is not aligned to 16 bytes", at.line);
  if (!in_shared_memory(row))
    stop("load_matrices at line %u: a row is not in shared memory", at.line);
}

}  // namespace simt

extern "C" void simt_configure(int order, int lazy) {
  simt::set_order(order);
  simt::set_lazy(lazy != 0);
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
