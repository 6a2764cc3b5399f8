// Runs a templated callable for the dtype of a tensor.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>
#include <utility>

#include "common/check.h"

namespace pyfacelat {

using Half = torch::headeronly::Half;
using BFloat16 = torch::headeronly::BFloat16;

// Sums are kept in float for the 16-bit types: a 4x4 filter in half loses two bits.
template <class T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

// dispatch_float("bias_act", x, [&]<class T>() { run<T>(...); })
template <class F>
inline void dispatch_float(const char* op, const Tensor& x, F&& f) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return f.template operator()<float>();
    case ScalarType::Double:
      return f.template operator()<double>();
    case ScalarType::Half:
      return f.template operator()<Half>();
    case ScalarType::BFloat16:
      return f.template operator()<BFloat16>();
    default:
      fail(op, "x", "expected float32, float64, float16 or bfloat16, got ",
           torch::headeronly::toString(x.scalar_type()));
  }
}

}  // namespace pyfacelat
