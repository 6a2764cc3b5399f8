// What the CPU and the CUDA op share: argument checks, memory layout, the output tensor.
#pragma once

#include <limits>
#include <optional>
#include <string>

#include "bias_act/bias_act.h"
#include "common/check.h"
#include "common/layout.h"

namespace pyfacelat::bias_act {

struct Call {
  Tensor x;                  // dense, NCHW or NHWC order
  std::optional<Tensor> dy;  // in the order of x
  std::optional<Tensor> b;   // contiguous
  Tensor out;                // in the order of x
  Act act;
  Params params;
};

inline Act parse_act(const char* op, const std::string& name) {
  for (int i = 0; i < kNumActs; ++i)
    if (name == kActNames[i]) return static_cast<Act>(i);
  fail(op, "act", "expected linear, relu, lrelu, sigmoid, tanh, swish or softplus, got '", name,
       "'");
}

// The output is NHWC exactly where x is that and not NCHW as well; every other layout is copied to
// the contiguous one first.
inline Call prepare(const char* op, const Tensor* dy, const Tensor& x,
                    const std::optional<Tensor>& b, int64_t dim, const std::string& act,
                    double alpha, double gain, double clamp) {
  check(x.dim() >= 1, op, "x", "expected at least one dimension, got a scalar");
  check(dim >= 0 && dim < x.dim(), op, "dim", "expected 0 <= dim < ", x.dim(), ", got ", dim);
  if (dy) {
    check(sizes_of(*dy) == sizes_of(x), op, "dy", "expected the shape of x, ", shape_text(x),
          ", got ", shape_text(*dy));
    check_same_dtype(op, "dy", *dy, x);
    check_same_device(op, "dy", *dy, x);
  }
  if (b) {
    check(b->dim() == 1 && b->size(0) == x.size(dim), op, "b", "expected shape [", x.size(dim),
          "], got ", shape_text(*b));
    check_same_dtype(op, "b", *b, x);
    check_same_device(op, "b", *b, x);
  }
  const bool nhwc = is_channels_last(x);
  const auto format = nhwc ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  // No clamp is NaN: see bias_act.h.
  const double bound = clamp < 0 ? std::numeric_limits<double>::quiet_NaN() : clamp;
  const int64_t numel = x.numel();
  Params params{numel, 1, numel, alpha, gain, bound};
  if (b && numel > 0) {
    params.channels = x.size(dim);
    params.inner = 1;
    const int64_t order[] = {0, 2, 3, 1};  // axes of an NHWC tensor from the outermost in
    for (int64_t i = x.dim() - 1; i >= 0; --i) {
      const int64_t axis = nhwc ? order[i] : i;
      if (axis == dim) break;
      params.inner *= x.size(axis);
    }
  }
  return Call{as_format(x, format),
              dy ? std::optional<Tensor>(as_format(*dy, format)) : std::nullopt,
              b ? std::optional<Tensor>(as_format(*b, MemoryFormat::Contiguous)) : std::nullopt,
              empty_as(x, sizes_of(x), format),
              parse_act(op, act),
              params};
}

}  // namespace pyfacelat::bias_act
