// Parameters and pixel loops of modulated_conv2d, shared by its implementations. No torch in here.
//
//   y = clip(act(d * z + noise + b) * gain, -clamp, clamp),   z the linear map (formulas and names:
//   pyfacelat/ops/modulated_conv2d.py)
// Everything is NHWC here: a pixel is `lanes` channels in a row, d and b run along them, and noise
// is one number a pixel. Few-channel images (RGB) are read with several pixels as one, so that the
// loop over lanes stays long; d and b are then repeated, which is possible where there is no noise.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/simd.h"

namespace pyfacelat::modconv {

// act and gain as slopes: act(v) * gain is v * positive for v > 0, else v * negative.
template <class A>
struct Slopes {
  A positive, negative;
  A inverse_positive, inverse_negative;  // an inverse of slope 0 is 0: nothing flows there
  A limit;                               // NaN for none: no comparison with it holds

  Slopes(double slope, double gain, double clamp)
      : positive(static_cast<A>(gain)),
        negative(static_cast<A>(gain * slope)),
        inverse_positive(static_cast<A>(1 / gain)),
        inverse_negative(slope == 0 ? A(0) : static_cast<A>(1 / (gain * slope))),
        limit(clamp < 0 ? std::numeric_limits<A>::quiet_NaN() : static_cast<A>(clamp)) {}
};

// y[pixels, lanes] holds z on entry.
template <class T, class A>
PYFACELAT_CLONES void finish(T* __restrict__ y, const T* __restrict__ noise,
                             const A* __restrict__ d, const A* __restrict__ b, int64_t pixels,
                             int64_t lanes, Slopes<A> s) {
  const A positive = s.positive, negative = s.negative, limit = s.limit;
  for (int64_t p = 0; p < pixels; ++p, y += lanes) {
    const A shift = noise ? static_cast<A>(noise[p]) : A(0);
    for (int64_t c = 0; c < lanes; ++c) {
      A v = static_cast<A>(y[c]) * d[c] + shift + b[c];
      v *= v > 0 ? positive : negative;
      v = v > limit ? limit : v;
      v = v < -limit ? -limit : v;
      y[c] = static_cast<T>(v);
    }
  }
}

// dz = dL/dz from dL/dy and y; adds dL/dp to sum_b[lanes], dL/dp * d * z to sum_d[lanes] (p the
// pre-activation, rebuilt from y), and writes the sum of dL/dp over the lanes to dnoise[pixels].
template <class T, class A>
PYFACELAT_CLONES void finish_backward(const T* __restrict__ dy, const T* __restrict__ y,
                                      const T* __restrict__ noise, const A* __restrict__ d,
                                      const A* __restrict__ b, T* __restrict__ dz,
                                      A* __restrict__ sum_b, A* __restrict__ sum_d,
                                      A* __restrict__ dnoise, int64_t pixels, int64_t lanes,
                                      Slopes<A> s) {
  const A positive = s.positive, negative = s.negative, limit = s.limit;
  const A inverse_positive = s.inverse_positive, inverse_negative = s.inverse_negative;
  for (int64_t p = 0; p < pixels; ++p, dy += lanes, y += lanes, dz += lanes) {
    const A shift = noise ? static_cast<A>(noise[p]) : A(0);
    A total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t c = 0; c < lanes; ++c) {
      const A v = static_cast<A>(y[c]);
      A g = static_cast<A>(dy[c]) * (v > 0 ? positive : negative);
      g = std::abs(v) >= limit ? A(0) : g;
      const A z = v * (v > 0 ? inverse_positive : inverse_negative) - shift - b[c];
      sum_b[c] += g;
      sum_d[c] += g * z;
      dz[c] = static_cast<T>(g * d[c]);
      total += g;
    }
    if (dnoise) dnoise[p] = total;
  }
}

// out = x * s, pixel by pixel; in place where out is x.
template <class T, class A>
PYFACELAT_CLONES void modulate(const T* x, T* out, const A* __restrict__ s, int64_t pixels,
                               int64_t lanes) {
  for (int64_t p = 0; p < pixels; ++p, x += lanes, out += lanes)
#pragma omp simd
    for (int64_t c = 0; c < lanes; ++c) out[c] = static_cast<T>(static_cast<A>(x[c]) * s[c]);
}

// g holds dL/d(x * s) and becomes dL/dx; adds dL/ds to sum_s[lanes].
template <class T, class A>
PYFACELAT_CLONES void modulate_backward(T* __restrict__ g, const T* __restrict__ x,
                                        const A* __restrict__ s, A* __restrict__ sum_s,
                                        int64_t pixels, int64_t lanes) {
  for (int64_t p = 0; p < pixels; ++p, g += lanes, x += lanes)
    for (int64_t c = 0; c < lanes; ++c) {
      const A v = static_cast<A>(g[c]);
      sum_s[c] += v * static_cast<A>(x[c]);
      g[c] = static_cast<T>(v * s[c]);
    }
}

}  // namespace pyfacelat::modconv
