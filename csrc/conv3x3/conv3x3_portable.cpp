// Compiled for the plain target: registers of four floats, which every processor has.
#include "conv3x3/winograd_kernels.h"

namespace pyfacelat::conv3x3 {

typedef float Register __attribute__((vector_size(16)));

const Kernels* portable_kernels() { return Winograd<Register, 4, 2>::kernels("portable"); }

}  // namespace pyfacelat::conv3x3
