// CUDA on the host, as far as the kernels of csrc use it: what csrc/common/simt.h takes in place of
// the CUDA headers when PYFACELAT_SIMT_HOST is defined. No toolkit is needed.
//
// Every thread of a block is a fiber; runtime.cpp switches between them at barriers and at the
// instructions that a warp executes together, and nowhere else. A broken rule ends the launch with
// an error code, and simt_error() has the sentence.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>

#include "common/float16.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern "C" {
extern dim3 simt_thread, simt_block, simt_block_size, simt_grid_size;
}
#define threadIdx simt_thread
#define blockIdx simt_block
#define blockDim simt_block_size
#define gridDim simt_grid_size

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __half2float(__half x) { return pyfacelat::HalfBits::widen(x.bits); }
inline float __bfloat162float(__nv_bfloat16 x) { return pyfacelat::BFloat16Bits::widen(x.bits); }
inline __half __float2half_rn(float x) { return {pyfacelat::HalfBits::narrow(x)}; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {pyfacelat::BFloat16Bits::narrow(x)}; }

namespace simt {

// Where in the kernel's source something happens.
struct Site {
  const char* file;
  unsigned line;
  Site(const std::source_location& at) : file(at.file_name()), line(at.line()) {}
};
#define SIMT_HERE ::simt::Site at = std::source_location::current()

// ---- the runtime (runtime.cpp, copies.cpp) ----
int run(dim3 grid, dim3 block, unsigned shared, void (*body)(void*), void* context);
void* shared_variable(const void* key, size_t bytes);
void* dynamic_shared();
void barrier(Site at);
// Waits for all lanes of the mask, then runs combine(operand of each lane, mask) once.
void together(const char* what, unsigned mask, void* operand, void (*combine)(void**, unsigned),
              Site at);
void start_copy(void* shared, const void* global, int bytes, int valid, Site at);
void close_copies();
void wait_copies(int pending);

template <class... P, class... Args>
int launch(void (*kernel)(P...), dim3 grid, dim3 block, unsigned shared, void*, Args... args) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  } call{kernel, {static_cast<P>(args)...}};
  return run(
      grid, block, shared,
      [](void* context) {
        const Call& c = *static_cast<Call*>(context);
        std::apply(c.kernel, c.arguments);
      },
      &call);
}

// ---- what a warp does together ----
template <class T>
struct Shuffle {
  T value;
  int source;  // lane to read
};

template <class T>
T shuffle(const char* what, unsigned mask, T value, int source, Site at) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  Shuffle<T> own{value, source};
  together(
      what, mask, &own,
      [](void** operands, unsigned mask) {
        T before[32];
        for (int lane = 0; lane < 32; ++lane)
          if (mask >> lane & 1) before[lane] = static_cast<Shuffle<T>*>(operands[lane])->value;
        for (int lane = 0; lane < 32; ++lane) {
          if (!(mask >> lane & 1)) continue;
          auto* mine = static_cast<Shuffle<T>*>(operands[lane]);
          // Reading a lane outside the mask gives an undefined value: poison, here.
          if (mask >> mine->source & 1)
            mine->value = before[mine->source];
          else
            std::memset(&mine->value, 0xff, sizeof(T));
        }
      },
      at);
  return own.value;
}

inline int lane() {
  const dim3 &t = simt_thread, &n = simt_block_size;
  return static_cast<int>((t.x + n.x * (t.y + n.y * t.z)) % 32);
}

// Registers of one lane in a product on a tensor core.
struct Product {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

// The fragment layout of mma.m16n8k16 (PTX ISA, "Matrix Fragments"): element e of register i.
struct Place {
  int row, column;
};
constexpr Place place_a(int lane, int i, int e) {
  return {lane / 4 + 8 * (i % 2), 2 * (lane % 4) + e + 8 * (i / 2)};
}
constexpr Place place_b(int lane, int i, int e) { return {2 * (lane % 4) + e + 8 * i, lane / 4}; }
constexpr Place place_d(int lane, int i) {
  return {lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2};
}

inline uint16_t half_of(uint32_t pair, int e) { return static_cast<uint16_t>(pair >> (16 * e)); }

template <class Bits>
void product(void** operands, unsigned) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& p = *static_cast<Product*>(operands[lane]);
    for (int e = 0; e < 2; ++e) {
      for (int i = 0; i < 4; ++i) {
        const Place at = place_a(lane, i, e);
        a[at.row][at.column] = Bits::widen(half_of(p.a[i], e));
      }
      for (int i = 0; i < 2; ++i) {
        const Place at = place_b(lane, i, e);
        b[at.row][at.column] = Bits::widen(half_of(p.b[i], e));
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& p = *static_cast<Product*>(operands[lane]);
    for (int i = 0; i < 4; ++i) {
      const Place at = place_d(lane, i);
      float sum = p.d[i];
      for (int k = 0; k < 16; ++k) sum += a[at.row][k] * b[k][at.column];
      p.d[i] = sum;
    }
  }
}

template <class T>
using BitsOf =
    std::conditional_t<std::is_same_v<T, __half>, pyfacelat::HalfBits, pyfacelat::BFloat16Bits>;

template <class T>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_HERE) {
  Product own{d, a, b};
  together("multiply_add", 0xffffffffu, &own, &product<BitsOf<T>>, at);
}

// One lane's part in load_matrices: the row that it names and the registers that it gets.
struct Rows {
  const void* row;
  uint16_t read[8];
  uint32_t* r;
};
void check_row(const void* row, Site at);

template <bool kTranspose>
void load_matrices(uint32_t (&r)[4], const void* row, SIMT_HERE) {
  check_row(row, at);
  Rows own{row, {}, r};
  // Read by the lane that names the row, so that sanitizers and the race checker see it.
  for (int i = 0; i < 8; ++i) own.read[i] = static_cast<const uint16_t*>(row)[i];
  together(
      "load_matrices", 0xffffffffu, &own,
      [](void** operands, unsigned) {
        for (int lane = 0; lane < 32; ++lane)
          for (int i = 0; i < 4; ++i) {
            uint32_t pair = 0;
            for (int e = 0; e < 2; ++e) {
              int y = lane / 4, x = 2 * (lane % 4) + e;
              if (kTranspose) std::swap(x, y);
              pair |= uint32_t(static_cast<Rows*>(operands[8 * i + y])->read[x]) << (16 * e);
            }
            static_cast<Rows*>(operands[lane])->r[i] = pair;
          }
      },
      at);
}

// ---- asynchronous copies ----
inline void copy_async(void* shared, const void* global, int valid, SIMT_HERE) {
  start_copy(shared, global, 16, valid, at);
}
inline void copy_commit() { close_copies(); }
template <int kPending>
void copy_wait() {
  wait_copies(kPending);
}

}  // namespace simt

inline void __syncthreads(SIMT_HERE) { simt::barrier(at); }
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
  simt::together("__syncwarp", mask, nullptr, [](void**, unsigned) {}, at);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, SIMT_HERE) {
  return simt::shuffle("__shfl_sync", mask, value, source & 31, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, SIMT_HERE) {
  return simt::shuffle("__shfl_xor_sync", mask, value, simt::lane() ^ flip, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, SIMT_HERE) {
  const int source = simt::lane() + static_cast<int>(delta);
  return simt::shuffle("__shfl_down_sync", mask, value, source < 32 ? source : simt::lane(), at);
}

// A shared variable is its own heap block, poisoned anew for every thread block.
#define SIMT_SHARED(type, name, extents) \
  static const char name##_key = 0;      \
  using name##_type = type extents;      \
  name##_type& name =                    \
      *static_cast<name##_type*>(::simt::shared_variable(&name##_key, sizeof(name##_type)))
#define SIMT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::simt::dynamic_shared())
