// The description of this build that `pyfacelat doctor` prints, readable by ctypes without torch.
#include "build_info.h"

extern "C" __attribute__((visibility("default"))) const char* pyfacelat_build_info() {
  return "version\t" PYFACELAT_VERSION "\ngit\t" PYFACELAT_GIT "\ncuda_archs\t" PYFACELAT_ARCHS
         "\ncuda_toolkit\t" PYFACELAT_TOOLKIT "\nno_cuda_reason\t" PYFACELAT_NO_CUDA_REASON
         "\ncompiler\t" PYFACELAT_COMPILER "\nflags\t" PYFACELAT_FLAGS
         "\ntorch_headers\t" PYFACELAT_TORCH_BUILT;
}

// For the message about a GPU that none of the kernels was built for.
extern "C" const char* pyfacelat_cuda_archs() { return PYFACELAT_ARCHS; }
