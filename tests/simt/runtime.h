// What the parts of the emulation know of one another: the rules of blocks and warps (runtime.cpp),
// asynchronous copies (copies.cpp), and the race checker (race.cpp).
#pragma once

#include <cstdint>

namespace simt {

// The thread that is running, and how far its block and its warp have come. An access in an earlier
// epoch of the block, or by the same warp in an earlier epoch of the warp, happened before.
struct Now {
  bool running;            // inside a kernel
  uint32_t launch, block;  // serial numbers over the life of the process, from 1
  uint32_t thread;
  uint32_t block_epoch, warp_epoch;
};
extern Now now;

constexpr int kPoison = 0xff;  // in every byte: NaN in every floating-point type

bool on_a_stack(const void* address);
bool in_shared_memory(const void* address);
[[noreturn]] void stop(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Set by the race checker where it is linked in.
extern void (*note_access)(const void* address, int bytes, bool write, const void* code);

}  // namespace simt
