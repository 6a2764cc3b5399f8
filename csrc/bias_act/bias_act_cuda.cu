// bias_act on CUDA: y = clip(act(x + b) * gain, -clamp, clamp), and its gradient.
//
// Bound by memory: each element is read once and written once (the gradient reads two), so a thread
// does one 16-byte access per tensor wherever alignment and shape allow it, and single elements
// otherwise. The activation is a switch on a kernel argument: every thread takes the same way,
// which costs nothing beside the memory traffic and keeps the number of kernels at 16.
#include "bias_act/bias_act.h"
#include "bias_act/bias_act_cuda.h"
#include "common/simt.h"

namespace pyfacelat::bias_act {
namespace {

// Enough warps to hide the latency of one load each; a multiple of every architecture's warp slots.
constexpr int kThreads = 256;

template <class T>
struct Arguments {
  const T* dy;  // null in the forward direction
  const T* x;
  const T* b;  // [channels]; null: none
  T* out;
  Params p;
};

template <bool kGrad, class T>
__device__ T evaluate(Act act, T dy, T v, T alpha, T gain, T clamp) {
#define PYFACELAT_CASE(A) \
  case A:                 \
    return kGrad ? backward<A>(dy, v, alpha, gain, clamp) : forward<A>(v, alpha, gain, clamp);
  switch (act) {
    PYFACELAT_CASE(Act::kLinear)
    PYFACELAT_CASE(Act::kRelu)
    PYFACELAT_CASE(Act::kLrelu)
    PYFACELAT_CASE(Act::kSigmoid)
    PYFACELAT_CASE(Act::kTanh)
    PYFACELAT_CASE(Act::kSwish)
    PYFACELAT_CASE(Act::kSoftplus)
  }
#undef PYFACELAT_CASE
  return v;
}

// kCount elements a thread. Where kCount > 1, either `inner` or (inner = 1) `channels` is a
// multiple of it, so a pack never straddles two channels, or two rows of the bias.
template <class T, int kCount, bool kGrad>
__global__ void __launch_bounds__(kThreads) bias_act_kernel(Arguments<T> a, Act act) {
  using A = typename simt::Accumulate<T>::type;
  using Pack = simt::Pack<T, kCount>;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount;
  if (first >= a.p.numel) return;
  const A alpha = static_cast<A>(a.p.alpha);
  const A gain = static_cast<A>(a.p.gain);
  const A clamp = static_cast<A>(a.p.clamp);
  const bool per_element = a.p.inner == 1;
  int64_t channel = 0;
  if (a.b) {
    // 64-bit division is slow on a GPU and almost never needed.
    if (a.p.numel <= 0x7fffffff) {
      const uint32_t row = static_cast<uint32_t>(first) / static_cast<uint32_t>(a.p.inner);
      channel = row % static_cast<uint32_t>(a.p.channels);
    } else {
      channel = first / a.p.inner % a.p.channels;
    }
  }
  const Pack x = *reinterpret_cast<const Pack*>(a.x + first);
  Pack dy = x;
  if (kGrad) dy = *reinterpret_cast<const Pack*>(a.dy + first);
  A shared_bias = 0;
  if (a.b && !per_element) shared_bias = simt::widen(a.b[channel]);
  Pack out;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const A bias = a.b && per_element ? simt::widen(a.b[channel + i]) : shared_bias;
    out.v[i] = simt::narrow<T>(evaluate<kGrad, A>(act, simt::widen(dy.v[i]),
                                                  simt::widen(x.v[i]) + bias, alpha, gain, clamp));
  }
  *reinterpret_cast<Pack*>(a.out + first) = out;
}

template <class T, int kCount>
int start(const Arguments<T>& a, Act act, void* stream) {
  const int64_t blocks =
      (a.p.numel + int64_t(kThreads) * kCount - 1) / (int64_t(kThreads) * kCount);
  const auto kernel = a.dy ? &bias_act_kernel<T, kCount, true> : &bias_act_kernel<T, kCount, false>;
  return simt::launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, a,
                      act);
}

template <class T>
int dispatch(const void* dy, const void* x, const void* b, void* out, Act act, const Params& p,
             void* stream) {
  constexpr int kCount = simt::kPackBytes / sizeof(T);
  const Arguments<T> a{static_cast<const T*>(dy), static_cast<const T*>(x),
                       static_cast<const T*>(b), static_cast<T*>(out), p};
  const int64_t run = p.inner == 1 ? p.channels : p.inner;
  const bool packs = (b ? run : p.numel) % kCount == 0 && simt::aligned(dy) && simt::aligned(x) &&
                     simt::aligned(out);
  return packs ? start<T, kCount>(a, act, stream) : start<T, 1>(a, act, stream);
}

}  // namespace
}  // namespace pyfacelat::bias_act

extern "C" int pyfacelat_bias_act_cuda(int dtype, const void* dy, const void* x, const void* b,
                                       void* out, int64_t numel, int64_t channels, int64_t inner,
                                       int act, double alpha, double gain, double clamp,
                                       void* stream) {
  using namespace pyfacelat::bias_act;
  if (numel == 0) return 0;
  const Params p{numel, channels, inner, alpha, gain, clamp};
  const Act a = static_cast<Act>(act);
  return simt::with_type(dtype,
                         [&]<class T>() { return dispatch<T>(dy, x, b, out, a, p, stream); });
}
