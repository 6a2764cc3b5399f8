// bias_act on the CPU: one pass over memory, vectorised, split over torch's own threads.
//
// float and double run the activation straight from memory to memory. The 16-bit types go through
// float in pieces that stay in the first-level cache, so they need no activation loops of their
// own.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "bias_act/bias_act.h"
#include "bias_act/bias_act_op.h"
#include "common/convert.h"
#include "common/dispatch.h"
#include "common/simd.h"

namespace pyfacelat::bias_act {
namespace {

// Elements a thread should have at least: about 20 us of work, well above the cost of a wake-up.
constexpr int64_t kGrain = 32768;
// Elements in a piece of the 16-bit path: three float buffers of it are 24 KB.
constexpr int64_t kPiece = 2048;

// Calls body(begin, end, channel) for every stretch of [begin, end) over which the bias advances
// evenly: one channel of `inner` elements, or a run through all channels where inner is 1.
template <class F>
PYFACELAT_INLINE void for_stretches(int64_t begin, int64_t end, const Params& p, F body) {
  const int64_t length = p.inner == 1 ? p.channels : p.inner;
  int64_t row = begin / length;
  for (int64_t i = begin; i < end; ++row) {
    const int64_t stop = std::min(end, (row + 1) * length);
    body(i, stop, p.inner == 1 ? i - row * length : row % p.channels);
    i = stop;
  }
}

// x and y point at element `begin` of the tensor.
template <Act A, class T>
PYFACELAT_CLONES void forward_range(const T* __restrict__ x, const T* __restrict__ b,
                                    T* __restrict__ y, int64_t begin, int64_t end, Params p) {
  const T alpha = static_cast<T>(p.alpha), gain = static_cast<T>(p.gain);
  const T clamp = static_cast<T>(p.clamp);
  const bool per_element = p.inner == 1;
  for_stretches(begin, end, p,
                [=](int64_t from, int64_t to, int64_t channel) PYFACELAT_INLINE_LAMBDA {
                  const T* __restrict__ in = x + (from - begin);
                  T* __restrict__ out = y + (from - begin);
                  const int64_t n = to - from;
                  if (per_element) {
                    const T* __restrict__ bias = b + channel;
                    for (int64_t i = 0; i < n; ++i)
                      out[i] = forward<A>(in[i] + bias[i], alpha, gain, clamp);
                  } else {
                    const T bias = b[channel];
                    for (int64_t i = 0; i < n; ++i)
                      out[i] = forward<A>(in[i] + bias, alpha, gain, clamp);
                  }
                });
}

// dy, x and dx point at element `begin` of the tensor.
template <Act A, class T>
PYFACELAT_CLONES void backward_range(const T* __restrict__ dy, const T* __restrict__ x,
                                     const T* __restrict__ b, T* __restrict__ dx, int64_t begin,
                                     int64_t end, Params p) {
  const T alpha = static_cast<T>(p.alpha), gain = static_cast<T>(p.gain);
  const T clamp = static_cast<T>(p.clamp);
  const bool per_element = p.inner == 1;
  for_stretches(begin, end, p,
                [=](int64_t from, int64_t to, int64_t channel) PYFACELAT_INLINE_LAMBDA {
                  const T* __restrict__ in = x + (from - begin);
                  const T* __restrict__ up = dy + (from - begin);
                  T* __restrict__ out = dx + (from - begin);
                  const int64_t n = to - from;
                  if (per_element) {
                    const T* __restrict__ bias = b + channel;
                    for (int64_t i = 0; i < n; ++i)
                      out[i] = backward<A>(up[i], in[i] + bias[i], alpha, gain, clamp);
                  } else {
                    const T bias = b[channel];
                    for (int64_t i = 0; i < n; ++i)
                      out[i] = backward<A>(up[i], in[i] + bias, alpha, gain, clamp);
                  }
                });
}

template <class T>
using ForwardFn = void (*)(const T*, const T*, T*, int64_t, int64_t, Params);
template <class T>
using BackwardFn = void (*)(const T*, const T*, const T*, T*, int64_t, int64_t, Params);

// One instantiation an activation: tables in the order of `Act`.
template <class T, int... A>
ForwardFn<T> pick_forward(Act act, std::integer_sequence<int, A...>) {
  // A lambda, because the address of a cloned function is not a constant.
  constexpr ForwardFn<T> table[] = {
      [](const T* x, const T* b, T* y, int64_t i, int64_t j, Params p) {
        forward_range<static_cast<Act>(A), T>(x, b, y, i, j, p);
      }...};
  return table[static_cast<int>(act)];
}

template <class T, int... A>
BackwardFn<T> pick_backward(Act act, std::integer_sequence<int, A...>) {
  constexpr BackwardFn<T> table[] = {
      [](const T* dy, const T* x, const T* b, T* dx, int64_t i, int64_t j, Params p) {
        backward_range<static_cast<Act>(A), T>(dy, x, b, dx, i, j, p);
      }...};
  return table[static_cast<int>(act)];
}

constexpr auto kActs = std::make_integer_sequence<int, kNumActs>{};

// dy is null in the forward direction. b has p.channels elements, already in the type of the sums.
template <class T>
void run(const T* dy, const T* x, const accumulate_t<T>* b, T* out, Act act, const Params& p) {
  using A = accumulate_t<T>;
  const auto forward_fn = pick_forward<A>(act, kActs);
  const auto backward_fn = pick_backward<A>(act, kActs);
  torch::stable::parallel_for(0, p.numel, kGrain, [=](int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<T, A>) {
      if (dy) {
        backward_fn(dy + begin, x + begin, b, out + begin, begin, end, p);
      } else {
        forward_fn(x + begin, b, out + begin, begin, end, p);
      }
    } else {
      alignas(64) float in[kPiece], up[kPiece], result[kPiece];
      const auto* x16 = reinterpret_cast<const uint16_t*>(x);
      const auto* dy16 = reinterpret_cast<const uint16_t*>(dy);
      auto* out16 = reinterpret_cast<uint16_t*>(out);
      for (int64_t i = begin; i < end; i += kPiece) {
        const int64_t stop = std::min(end, i + kPiece);
        widen<T>(x16 + i, in, stop - i);
        if (dy) {
          widen<T>(dy16 + i, up, stop - i);
          backward_fn(up, in, b, result, i, stop, p);
        } else {
          forward_fn(in, b, result, i, stop, p);
        }
        narrow<T>(result, out16 + i, stop - i);
      }
    }
  });
}

Tensor apply(const char* op, const Tensor* dy, const Tensor& x, const std::optional<Tensor>& b,
             int64_t dim, const std::string& act, double alpha, double gain, double clamp) {
  const Call call = prepare(op, dy, x, b, dim, act, alpha, gain, clamp);
  if (call.params.numel == 0) return call.out;
  dispatch_float(op, x, [&]<class T>() {
    using A = accumulate_t<T>;
    std::vector<A> bias(call.params.channels, A(0));
    if (call.b) {
      const T* source = static_cast<const T*>(call.b->const_data_ptr());
      std::copy_n(source, bias.size(), bias.begin());
    }
    run<T>(call.dy ? static_cast<const T*>(call.dy->const_data_ptr()) : nullptr,
           static_cast<const T*>(call.x.const_data_ptr()), bias.data(),
           static_cast<T*>(call.out.mutable_data_ptr()), call.act, call.params);
  });
  return call.out;
}

Tensor bias_act_cpu(const Tensor& x, const std::optional<Tensor>& b, int64_t dim,
                    const std::string& act, double alpha, double gain, double clamp) {
  return apply("bias_act", nullptr, x, b, dim, act, alpha, gain, clamp);
}

Tensor bias_act_grad_cpu(const Tensor& dy, const Tensor& x, const std::optional<Tensor>& b,
                         int64_t dim, const std::string& act, double alpha, double gain,
                         double clamp) {
  return apply("bias_act_grad", &dy, x, b, dim, act, alpha, gain, clamp);
}

}  // namespace
}  // namespace pyfacelat::bias_act

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&pyfacelat::bias_act::bias_act_cpu));
  m.impl("bias_act_grad", TORCH_BOX(&pyfacelat::bias_act::bias_act_grad_cpu));
}
