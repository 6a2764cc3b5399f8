// Where the torch ops meet the CUDA runtime: current stream, current device, errors in words.
//
// The runtime is linked statically and torch's CUDA library is not linked at all, so that one file
// loads beside a CPU-only torch. What is needed of torch's CUDA half is looked up when it is used.
// Only files named *_cuda.cpp include this; with PYFACELAT_SIMT_HOST they register the emulated
// kernels (tests/simt) for the CPU instead.
#pragma once

#include <string>

#include "common/check.h"
#include "common/dtype.h"

#ifdef PYFACELAT_SIMT_HOST

#include "simt_torch.h"

#else

#include <cuda_runtime_api.h>
#include <dlfcn.h>

// The last lines of a file: PYFACELAT_CUDA_LIBRARY(m) { m.impl(...); }
#define PYFACELAT_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CUDA, m)

extern "C" const char* pyfacelat_cuda_archs();

namespace pyfacelat {

// torch's current stream on a device. Kernels go there and nowhere else: that is what makes them
// ordered with torch's own and recordable in a CUDA graph.
inline void* current_stream(const char* op, int device) {
  using Get = int (*)(int32_t, void**);
  static const Get get = [] {
    // RTLD_NOLOAD: the library that torch has loaded, or none. Its symbols are not global.
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* symbol = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
    return reinterpret_cast<Get>(
        symbol ? symbol : dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  }();
  void* stream = nullptr;
  check(get != nullptr, op, "x", "is on a CUDA device, but this torch has no CUDA library");
  check(get(device, &stream) == 0, op, "x", "torch gave no current stream for CUDA device ",
        device);
  return stream;
}

// Makes a device current for a scope. torch switches devices by the same per-thread state.
class DeviceScope {
 public:
  DeviceScope(const char* op, int device) {
    check(cudaGetDevice(&before_) == cudaSuccess, op, "x",
          "the CUDA runtime gives no current device");
    changed_ = before_ != device;
    if (changed_)
      check(cudaSetDevice(device) == cudaSuccess, op, "x", "CUDA device ", device,
            " cannot be used");
  }
  ~DeviceScope() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Turns the code that an extern "C" entry point returned into an error that says what to do.
inline void check_launch(const char* op, int code, int device) {
  if (code == cudaSuccess) [[likely]]
    return;
  const auto error = static_cast<cudaError_t>(code);
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    fail(op, "x", "this GPU is sm_", major, minor, ", the kernels were built for ",
         pyfacelat_cuda_archs(), ": rebuild with PYFACELAT_CUDA_ARCHS=", major, minor,
         " or set PYFACELAT_BACKEND=reference");
  }
  fail(op, "x", "kernel launch failed: ", cudaGetErrorString(error));
}

}  // namespace pyfacelat

#endif  // PYFACELAT_SIMT_HOST

namespace pyfacelat {

inline simt::DType dtype_code(const char* op, const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return simt::kFloat;
    case ScalarType::Double:
      return simt::kDouble;
    case ScalarType::Half:
      return simt::kHalf;
    case ScalarType::BFloat16:
      return simt::kBFloat16;
    default:
      fail(op, "x", "expected float32, float64, float16 or bfloat16, got ",
           torch::headeronly::toString(x.scalar_type()));
  }
}

}  // namespace pyfacelat
