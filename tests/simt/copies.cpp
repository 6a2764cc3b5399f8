#include "copies.h"

#include <cstring>
#include <unordered_map>
#include <vector>

#include "fibers.h"
#include "runtime.h"
#include "simt_host.h"

namespace simt {

namespace {

struct Copy {
  char* shared;
  const char* global;
  int bytes, valid;
  const void* code;  // where the kernel started it
};

bool lazy = false;
std::vector<std::vector<Copy>> groups_of[kMaxFibers];  // closed ones, then the open one
std::unordered_map<uintptr_t, int> in_flight;          // 4-byte words that a copy is on its way to

void complete(const Copy& copy) {
  std::memcpy(copy.shared, copy.global, copy.valid);
  std::memset(copy.shared + copy.valid, 0, copy.bytes - copy.valid);
  if (note_access) {
    note_access(copy.global, copy.valid, false, copy.code);
    note_access(copy.shared, copy.bytes, true, copy.code);
  }
}

}  // namespace

void set_lazy(bool chosen) { lazy = chosen; }

void forget_copies(unsigned threads) {
  in_flight.clear();
  for (unsigned t = 0; t < threads; ++t) groups_of[t].assign(1, {});
}

bool has_open_copies(unsigned thread) {
  for (const auto& group : groups_of[thread])
    if (!group.empty()) return true;
  return false;
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
  groups_of[now.thread].back().push_back(copy);
}

void close_copies() { groups_of[now.thread].push_back({}); }

void wait_copies(int pending) {
  auto& groups = groups_of[now.thread];
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
