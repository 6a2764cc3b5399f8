// Compiled for AVX2 and FMA (CMakeLists.txt); runs only where the processor has it.
#include "conv3x3/winograd_kernels.h"

namespace pyfacelat::conv3x3 {

typedef float Register __attribute__((vector_size(32)));

const Kernels* avx2_kernels() {
#ifdef __AVX2__
  // 12 of 16 registers for sums.
  return Winograd<Register, 6, 2>::kernels("avx2");
#else
  return nullptr;
#endif
}

}  // namespace pyfacelat::conv3x3
