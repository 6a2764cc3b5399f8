// Entry points of the CUDA kernels around the convolution, without torch. All tensors are dense and
// NHWC, of `dtype`, except where another type is named; "wide" is double for double, else float.
// Each returns a cudaError_t.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace pyfacelat::modconv {

// n images of `pixels` pixels of `lanes` channels, cut for sums over the pixels into `chunks` parts
// of an image and `runs` parts of the channels.
struct Extent {
  int64_t n, pixels, lanes;
  bool packed;  // 16 bytes a thread, which needs is_packed; else one channel
};
struct Cut {
  int64_t chunks, runs;
};

// act, gain and clamp as in Slopes (modulated_conv2d.h); clamp < 0 is none.
struct Activation {
  double slope, gain, clamp;
};

// Whether the channels are whole packs of 16 bytes and all tensors (null: none) start at one.
// torch's allocations do; views into them need not.
bool is_packed(int dtype, int64_t lanes, std::initializer_list<const void*> tensors);

// How the kernels below that sum will cut an extent: the sizes of their partial sums.
Cut cut_of(int dtype, const Extent& e);

}  // namespace pyfacelat::modconv

extern "C" {

// out = x * s, s [n, lanes]; in place where out is x.
int pyfacelat_modulate_cuda(int dtype, const void* x, const void* s, void* out,
                            const pyfacelat::modconv::Extent* e, void* stream);

// y = clip(act(d * y + noise + b) * gain) in place; d [n, lanes], b [lanes], noise [maps, pixels]
// with maps 1 or n; each may be null.
int pyfacelat_finish_cuda(int dtype, void* y, const void* d, const void* noise, int64_t maps,
                          const void* b, const pyfacelat::modconv::Extent* e,
                          const pyfacelat::modconv::Activation* a, void* stream);

// dz = dL/dp * d, and partial sums, wide, null where not wanted: sum_b and sum_d [n, chunks, lanes]
// of dL/dp and dL/dp * d * z, sum_noise [n, runs, pixels] of dL/dp over the channels;
// p = d * z + noise + b, rebuilt from y.
int pyfacelat_finish_backward_cuda(int dtype, const void* dy, const void* y, const void* d,
                                   const void* noise, int64_t maps, const void* b, void* dz,
                                   void* sum_b, void* sum_d, void* sum_noise,
                                   const pyfacelat::modconv::Extent* e,
                                   const pyfacelat::modconv::Activation* a, void* stream);

// g holds dL/d(x * s) and becomes dL/dx; sum_s [n, chunks, lanes], wide, gets partial sums of
// g * x.
int pyfacelat_modulate_backward_cuda(int dtype, void* g, const void* x, const void* s, void* sum_s,
                                     const pyfacelat::modconv::Extent* e, void* stream);

// out [groups, columns] = sums over the rows of part [groups, rows, columns] (wide), divided by
// `divisor` [groups, columns] where that is not null.
int pyfacelat_reduce_cuda(int dtype, const void* part, const void* divisor, void* out,
                          int64_t groups, int64_t rows, int64_t columns, void* stream);
}
