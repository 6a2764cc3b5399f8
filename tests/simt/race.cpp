// Races between the threads of a launch: two accesses to one word, one of them a write, that no
// barrier orders.
//
// Kernels are compiled with -fsanitize=thread, which puts a call before every access; these are
// those calls, in place of the thread sanitizer's own library. Words are two bytes, the smallest
// type there is. Blocks are never ordered, and shared memory is new in every block.
#include <dlfcn.h>

#include <cstdio>
#include <vector>

#include "runtime.h"

namespace simt {
namespace {

struct Access {
  uint32_t block = 0, thread = 0, block_epoch = 0, warp_epoch = 0;
  const void* code = nullptr;  // null: none yet
};

struct Word {
  uintptr_t address = 0;
  uint32_t launch = 0;  // an entry of an earlier launch is an empty one
  Access write, reads[2];
};

// Open addressing; grows by doubling.
std::vector<Word> table(1 << 12);
size_t used = 0;
uint32_t used_in = 0;

bool ordered(const Access& before) {
  if (before.code == nullptr) return true;
  if (before.block != now.block) return false;
  return before.thread == now.thread || before.block_epoch < now.block_epoch ||
         (before.thread / 32 == now.thread / 32 && before.warp_epoch < now.warp_epoch);
}

Word& find(std::vector<Word>& in, uintptr_t address) {
  size_t i = (address * 0x9E3779B97F4A7C15ull) >> 20;
  for (;; ++i) {
    Word& word = in[i & (in.size() - 1)];
    if (word.launch != now.launch || word.address == address) return word;
  }
}

Word& word_at(uintptr_t address) {
  if (used_in != now.launch) {
    used_in = now.launch;
    used = 0;
  }
  Word* word = &find(table, address);
  if (word->launch == now.launch) return *word;
  if (2 * ++used > table.size()) {
    std::vector<Word> larger(2 * table.size());
    for (const Word& old : table)
      if (old.launch == now.launch) find(larger, old.address) = old;
    table.swap(larger);
    word = &find(table, address);
  }
  *word = Word{address, now.launch, {}, {}};
  return *word;
}

struct Place {
  char text[160];
  explicit Place(const void* code) {
    Dl_info info{};
    if (dladdr(code, &info))
      snprintf(text, sizeof text, "+0x%zx",
               static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase));
    else
      snprintf(text, sizeof text, "%p", code);
  }
};

[[noreturn]] void report(const Access& before, bool was_write, bool is_write, const void* code) {
  const Place first(before.code), second(code);
  stop("race: %s of thread %u (%s) and %s here (%s), %s", was_write ? "write" : "read",
       before.thread, first.text, is_write ? "write" : "read", second.text,
       before.block != now.block ? "in two blocks" : "with no barrier in between");
}

void note(const void* address, int bytes, bool write, const void* code) {
  if (!now.running || on_a_stack(address)) return;
  const bool shared = in_shared_memory(address);
  const Access access{now.block, now.thread, now.block_epoch, now.warp_epoch, code};
  const uintptr_t first = reinterpret_cast<uintptr_t>(address) / 2;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(address) + bytes - 1) / 2;
  for (uintptr_t at = first; bytes > 0 && at <= last; ++at) {
    Word& word = word_at(at);
    if (shared && word.write.code && word.write.block != now.block) word.write = {};
    if (!ordered(word.write)) report(word.write, true, write, code);
    int keep = -1;
    for (int i = 0; i < 2; ++i) {
      Access& read = word.reads[i];
      if (shared && read.code && read.block != now.block) read = {};
      if (write && !ordered(read)) report(read, false, true, code);
      if (read.code == nullptr || ordered(read)) keep = i;
    }
    if (write) {
      word.write = access;
      word.reads[0] = word.reads[1] = {};
    } else if (keep >= 0) {
      word.reads[keep] = access;
    }
  }
}

const bool installed = (note_access = &note, true);

}  // namespace
}  // namespace simt

#define SIMT_HOOK(name, bytes, write)                               \
  extern "C" void __tsan_##name(void* address) {                    \
    simt::note(address, bytes, write, __builtin_return_address(0)); \
  }
#define SIMT_HOOKS(bytes)                        \
  SIMT_HOOK(read##bytes, bytes, false)           \
  SIMT_HOOK(write##bytes, bytes, true)           \
  SIMT_HOOK(unaligned_read##bytes, bytes, false) \
  SIMT_HOOK(unaligned_write##bytes, bytes, true)
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
extern "C" {
void __tsan_read_range(void* address, long bytes) {
  simt::note(address, static_cast<int>(bytes), false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, long bytes) {
  simt::note(address, static_cast<int>(bytes), true, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
}
