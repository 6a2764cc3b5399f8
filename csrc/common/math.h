// Elementary functions that a compiler can vectorise, the same source on the host and on a device.
//
// glibc's expf and log1pf are calls that stop gcc from vectorising the loop around them, so the
// float versions here are straight-line polynomials (error below 2 units in the last place,
// measured in tests/ops/test_bias_act_kernels.py). double is for checks and takes the library's
// functions.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/simd.h"

#ifdef __CUDACC__
#define PYFACELAT_HD __host__ __device__ PYFACELAT_INLINE
#else
#define PYFACELAT_HD PYFACELAT_INLINE
#endif

namespace pyfacelat::math {

PYFACELAT_HD double abs(double x) { return ::fabs(x); }
PYFACELAT_HD float abs(float x) { return ::fabsf(x); }
PYFACELAT_HD double exp(double x) { return ::exp(x); }
PYFACELAT_HD double log1p(double x) { return ::log1p(x); }
PYFACELAT_HD double tanh(double x) { return ::tanh(x); }

// e^x. Range reduction x = n ln 2 + r with |r| <= ln 2 / 2, then a Taylor-like polynomial for e^r.
PYFACELAT_HD float exp(float x) {
#ifdef __CUDA_ARCH__
  return ::expf(x);
#else
  // The result is 0 below -104 and infinite above 88.8: the clamps keep n small, and the last two
  // multiplications round to the subnormals and to infinity. A NaN passes through both comparisons.
  float c = x < -104.0f ? -104.0f : x;
  c = c > 89.0f ? 89.0f : c;
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer without a conversion.
  constexpr float kRound = 12582912.0f;
  const float n = (c * 1.44269504f + kRound) - kRound;
  // ln 2 in two parts: the first has so few bits that n times it is exact.
  const float r = (c - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = p * (r * r) + r + 1.0f;
  // 2^n in two halves: n reaches from -150 to 128, further than one float's exponent.
  const int32_t k = static_cast<int32_t>(n == n ? n : 0.0f);
  const int32_t k1 = k >> 1;
  const uint32_t b1 = static_cast<uint32_t>(k1 + 127) << 23;
  const uint32_t b2 = static_cast<uint32_t>(k - k1 + 127) << 23;
  float s1, s2;
  std::memcpy(&s1, &b1, 4);
  std::memcpy(&s2, &b2, 4);
  return e * s1 * s2;
#endif
}

// log(1 + u) for 0 <= u <= 1, as 2 atanh(u / (2 + u)): accurate for tiny u as well.
PYFACELAT_HD float log1p(float u) {
#ifdef __CUDA_ARCH__
  return ::log1pf(u);
#else
  const float s = u / (2.0f + u);
  const float q = s * s;  // <= 1/9
  float p = 1.0f / 15;
  p = p * q + 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  return 2.0f * (s + s * q * p);
#endif
}

PYFACELAT_HD float tanh(float x) {
#ifdef __CUDA_ARCH__
  return ::tanhf(x);
#else
  const float a = abs(x);
  // Near zero 1 - 2 / (e^2a + 1) cancels; an odd polynomial takes over (coefficients: Cephes
  // tanhf).
  const float q = x * x;
  float p = -5.70498872745e-3f;
  p = p * q + 2.06390887954e-2f;
  p = p * q + -5.37397155531e-2f;
  p = p * q + 1.33314422036e-1f;
  p = p * q + -3.33332819422e-1f;
  const float small = p * q * x + x;
  const float large = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  return a < 0.625f ? small : ::copysignf(large, x);
#endif
}

}  // namespace pyfacelat::math
