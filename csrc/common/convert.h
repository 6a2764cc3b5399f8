// 16-bit floats to and from float as integer arithmetic, so that the loops vectorise on any x86-64.
#pragma once

#include "common/dispatch.h"
#include "common/float16.h"
#include "common/simd.h"

namespace pyfacelat {

template <class T>
struct Storage;  // how a 16-bit type is widened and narrowed

template <>
struct Storage<BFloat16> : BFloat16Bits {};

template <>
struct Storage<Half> : HalfBits {};

template <class T>
PYFACELAT_CLONES void widen(const uint16_t* __restrict__ x, float* __restrict__ y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = Storage<T>::widen(x[i]);
}

template <class T>
PYFACELAT_CLONES void narrow(const float* __restrict__ x, uint16_t* __restrict__ y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = Storage<T>::narrow(x[i]);
}

}  // namespace pyfacelat
