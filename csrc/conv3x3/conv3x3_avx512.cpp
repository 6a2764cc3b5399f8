// Compiled for AVX-512 (CMakeLists.txt); runs only where the processor has it.
#include "conv3x3/winograd_kernels.h"

namespace pyfacelat::conv3x3 {

typedef float Register __attribute__((vector_size(64)));

const Kernels* avx512_kernels() {
#ifdef __AVX512F__
  // 24 of 32 registers for sums.
  return Winograd<Register, 12, 2>::kernels("avx512");
#else
  return nullptr;
#endif
}

}  // namespace pyfacelat::conv3x3
