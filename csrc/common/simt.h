// The few things that a CUDA kernel file takes from here, so that the same file is compiled by nvcc
// for a GPU and by g++ against an emulation of them (tests/simt), where its threads run in several
// orders, under sanitizers and a race checker.
//
// Rules for kernel files: launch through simt::launch; entry points are extern "C" functions on raw
// pointers that return a cudaError_t as int; shared memory by SIMT_SHARED and SIMT_DYNAMIC_SHARED;
// asynchronous copies and tensor cores by the functions below; no <<<>>>, no inline assembly, no
// runtime-library calls and no atomics elsewhere; no torch.
#pragma once

#include <cstdint>

#include "common/dtype.h"

#ifdef PYFACELAT_SIMT_HOST

#include "simt_host.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

// SIMT_SHARED(float, tile, [16][17]);   SIMT_DYNAMIC_SHARED(float, tile);   both 16-byte aligned
#define SIMT_SHARED(type, name, extents) __shared__ __align__(16) type name extents
#define SIMT_DYNAMIC_SHARED(type, name)                         \
  extern __shared__ __align__(16) unsigned char simt_dynamic[]; \
  type* const name = reinterpret_cast<type*>(simt_dynamic)

namespace simt {

// Launches kernel<<<grid, block, shared bytes, stream>>>(arguments...); returns the launch's error.
template <class... P, class... Args>
inline int launch(void (*kernel)(P...), dim3 grid, dim3 block, unsigned shared, void* stream,
                  Args... args) {
  // Beyond 48 KB a kernel has to opt in.
  if (shared > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (error != cudaSuccess) return static_cast<int>(error);
  }
  // clang-format off: it takes this for templates
  kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(static_cast<P>(args)...);
  // clang-format on
  return static_cast<int>(cudaGetLastError());
}

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Starts a copy of 16 bytes from global to shared memory, both aligned to 16. Of the source only
// the first `valid` bytes are read, the rest of the destination becomes zero.
__device__ inline void copy_async(void* shared, const void* global, int valid) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid)
               : "memory");
#else
  __trap();  // sm_75 has neither these copies nor these tensor-core shapes: never launched there
#endif
}

// Closes the group of copies that this thread has started since the last one.
__device__ inline void copy_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most kPending of this thread's groups are under way; a barrier must follow before
// other threads read what they brought.
template <int kPending>
__device__ inline void copy_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit numbers from shared memory: lane 8 i + r names row r of matrix i (16
// bytes); lane l gets of each matrix the elements [l / 4][2 (l % 4)] and the one after it. With
// kTranspose it gets [2 (l % 4)][l / 4] and the one below.
template <bool kTranspose>
__device__ inline void load_matrices(uint32_t (&r)[4], const void* row) {
#if __CUDA_ARCH__ >= 800
  if constexpr (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
#else
  __trap();
#endif
}

// d += a b on a tensor core, a [16, 16] and b [16, 8] of T (two to a register), d [16, 8] of float.
// With g = lane / 4 and q = lane % 4: a[0] = A[g][2q..], a[1] = A[g+8][2q..], a[2], a[3] the same
// eight columns on; b[0] = B[2q..][g], b[1] eight rows down; d = D[g][2q..], D[g+8][2q..].
template <class T>
__device__ inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#if __CUDA_ARCH__ >= 800
#define SIMT_MMA(kind)                                                      \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." kind "." kind       \
               ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])             \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else
#define SIMT_MMA(kind) __trap()
#endif
template <>
__device__ inline void multiply_add<__half>(float (&d)[4], const uint32_t (&a)[4],
                                            const uint32_t (&b)[2]) {
  SIMT_MMA("f16");
}
template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4],
                                                   const uint32_t (&b)[2]) {
  SIMT_MMA("bf16");
}
#undef SIMT_MMA

}  // namespace simt

#endif  // PYFACELAT_SIMT_HOST

namespace simt {

constexpr unsigned kFullWarp = 0xffffffffu;

template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

template <class T>
__device__ inline typename Accumulate<T>::type widen(T x) {
  return static_cast<typename Accumulate<T>::type>(x);
}
template <>
__device__ inline float widen<__half>(__half x) {
  return __half2float(x);
}
template <>
__device__ inline float widen<__nv_bfloat16>(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <class T>
__device__ inline T narrow(typename Accumulate<T>::type x) {
  return static_cast<T>(x);
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Calls f.operator()<T>() for the type T of that code.
template <class F>
int with_type(int dtype, const F& f) {
  switch (dtype) {
    case kFloat:
      return f.template operator()<float>();
    case kDouble:
      return f.template operator()<double>();
    case kHalf:
      return f.template operator()<__half>();
    default:
      return f.template operator()<__nv_bfloat16>();
  }
}

// kCount elements that move in one access.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T v[kCount];
};

// Bytes of the widest access.
constexpr int kPackBytes = 16;

inline bool aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kPackBytes == 0;
}

}  // namespace simt
