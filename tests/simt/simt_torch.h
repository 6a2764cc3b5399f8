// What csrc/common/cuda.h takes in place of the CUDA runtime: the "device" is the host.
#pragma once

#include "common/check.h"

#define PYFACELAT_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m)

extern "C" const char* simt_error();

namespace pyfacelat {

inline void* current_stream(const char*, int) { return nullptr; }

class DeviceScope {
 public:
  DeviceScope(const char*, int) {}
};

inline void check_launch(const char* op, int code, int) {
  if (code != 0) fail(op, "x", "emulated kernel: ", simt_error());
}

}  // namespace pyfacelat
