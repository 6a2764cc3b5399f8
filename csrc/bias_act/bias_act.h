// y = clip(act(x + b) * gain, -clamp, clamp): the activations, their derivatives and the
// parameters.
//
// Shared by the host and the device kernel, free of torch. v = x + b throughout. Comparisons are
// written so that a NaN in v comes out as NaN, as it does in torch.
#pragma once

#include <cstdint>

#include "common/math.h"

namespace pyfacelat::bias_act {

enum class Act : int { kLinear, kRelu, kLrelu, kSigmoid, kTanh, kSwish, kSoftplus };
constexpr int kNumActs = 7;
constexpr const char* kActNames[kNumActs] = {"linear", "relu",  "lrelu",   "sigmoid",
                                             "tanh",   "swish", "softplus"};

// The tensor is seen as [outer, channels, inner] in memory order; b runs along channels.
struct Params {
  int64_t numel;
  int64_t channels;
  int64_t inner;  // 1: the bias changes with every element
  double alpha;   // slope of lrelu below zero
  double gain;
  double clamp;  // bound of |y|; negative: none
};

template <class T>
struct Logistic {
  T s;  // sigmoid(v)
  T c;  // 1 - sigmoid(v), without cancellation
};

template <class T>
PYFACELAT_HD Logistic<T> logistic(T v) {
  const T e = math::exp(-math::abs(v));  // <= 1: nothing overflows
  const T big = T(1) / (T(1) + e);
  const T small = e * big;
  return v < 0 ? Logistic<T>{small, big} : Logistic<T>{big, small};
}

template <Act A, class T>
PYFACELAT_HD T activate(T v, T alpha) {
  if constexpr (A == Act::kRelu) return v < 0 ? T(0) : v;
  if constexpr (A == Act::kLrelu) return v > 0 ? v : v * alpha;
  if constexpr (A == Act::kSigmoid) return logistic(v).s;
  if constexpr (A == Act::kTanh) return math::tanh(v);
  if constexpr (A == Act::kSwish) return v * logistic(v).s;
  if constexpr (A == Act::kSoftplus)
    return (v < 0 ? T(0) : v) + math::log1p(math::exp(-math::abs(v)));
  return v;
}

// d activate / dv. At v = 0 relu has slope 0 and lrelu slope alpha.
template <Act A, class T>
PYFACELAT_HD T slope(T v, T alpha) {
  if constexpr (A == Act::kRelu) return v > 0 ? T(1) : T(0);
  if constexpr (A == Act::kLrelu) return v > 0 ? T(1) : alpha;
  if constexpr (A == Act::kSigmoid) {
    const auto l = logistic(v);
    return l.s * l.c;
  }
  if constexpr (A == Act::kTanh) {
    const T t = math::tanh(v);
    return (T(1) - t) * (T(1) + t);
  }
  if constexpr (A == Act::kSwish) {
    const auto l = logistic(v);
    return l.s * (T(1) + v * l.c);
  }
  if constexpr (A == Act::kSoftplus) return logistic(v).s;
  return T(1);
}

// `clamp` is NaN where there is none: no comparison with it holds.
template <Act A, class T>
PYFACELAT_HD T forward(T v, T alpha, T gain, T clamp) {
  T y = activate<A>(v, alpha) * gain;
  y = y < -clamp ? -clamp : y;
  return y > clamp ? clamp : y;
}

// dL/dx from dL/dy; nothing passes where |act(v) * gain| reaches the clamp. One comparison decides,
// NaN or not: a second condition becomes a branch, and the loop is not vectorised.
template <Act A, class T>
PYFACELAT_HD T backward(T dy, T v, T alpha, T gain, T clamp) {
  const T y = activate<A>(v, alpha) * gain;
  const T dx = dy * (slope<A>(v, alpha) * gain);
  return math::abs(y) >= clamp ? T(0) : dx;
}

}  // namespace pyfacelat::bias_act
