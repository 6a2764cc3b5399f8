// The few things that a CUDA kernel file takes from here, so that the same file can later be
// compiled by a host compiler against an emulation of them.
//
// Rules for kernel files: launch through simt::launch; entry points are extern "C" functions on raw
// pointers that return a cudaError_t as int; no <<<>>> and no runtime-library calls elsewhere in
// kernel code; torch is met only below the line `#ifndef PYFACELAT_SIMT_HOST`.
#pragma once

#include <cstdint>

#ifndef PYFACELAT_SIMT_HOST

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

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
  kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(static_cast<P>(args)...);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace simt

#endif  // PYFACELAT_SIMT_HOST

namespace simt {

// Storage types, by the code that a raw-pointer entry point takes.
enum DType : int { kFloat = 0, kDouble = 1, kHalf = 2, kBFloat16 = 3 };

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

// kCount elements that move in one access.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T v[kCount];
};

}  // namespace simt
