// Memory layouts: which of the two dense ones a tensor has, and outputs that keep it.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "common/check.h"

namespace pyfacelat {

using torch::headeronly::MemoryFormat;

// Whether a 4-d tensor is dense in NHWC order and not in NCHW order. Tensors that are both (one
// channel, or one pixel) count as NCHW: either reading of them is right.
inline bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4 || x.is_contiguous()) return false;
  int64_t expected = 1;
  for (int d : {1, 3, 2, 0}) {
    if (x.size(d) != 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return true;
}

// x itself where it is dense in `format`, else a copy that is.
inline Tensor as_format(const Tensor& x, MemoryFormat format) {
  return torch::stable::contiguous(x, format);
}

// An uninitialised tensor of the given sizes, with dtype and device of `like`.
inline Tensor empty_as(const Tensor& like, const std::vector<int64_t>& sizes, MemoryFormat format) {
  return torch::stable::empty(torch::headeronly::IntHeaderOnlyArrayRef(sizes.data(), sizes.size()),
                              like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              format);
}

inline std::vector<int64_t> sizes_of(const Tensor& x) {
  auto sizes = x.sizes();
  return {sizes.begin(), sizes.end()};
}

}  // namespace pyfacelat
