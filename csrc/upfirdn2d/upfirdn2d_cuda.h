// The entry point of the CUDA kernels, without torch.
#pragma once

#include "upfirdn2d/upfirdn2d.h"

// x [planes, h, w, lanes] and y [planes, oh, ow, lanes], dense, of `dtype`; f [fh, fw], or [fh]
// where `line` (then fh = fw and the filter is outer(f, f)), of float, or of double where x is
// that. `flip` and `gain` as in the op. Returns a cudaError_t.
extern "C" int pyfacelat_upfirdn2d_cuda(int dtype, const void* x, const void* f, void* y,
                                        const pyfacelat::UpfirdnShape* shape, int line, int flip,
                                        double gain, void* stream);
