// The entry point of the CUDA kernels, without torch.
#pragma once

#include <cstdint>

// Dense x, dy (null: forward), out of numel elements seen as [outer, channels, inner]; b of
// channels elements, or null. `clamp` is NaN for none. Returns a cudaError_t.
extern "C" int pyfacelat_bias_act_cuda(int dtype, const void* dy, const void* x, const void* b,
                                       void* out, int64_t numel, int64_t channels, int64_t inner,
                                       int act, double alpha, double gain, double clamp,
                                       void* stream);
