// Argument checks whose messages name the op, the argument, what was expected and what came.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <sstream>
#include <stdexcept>
#include <string>

namespace pyfacelat {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
[[noreturn]] inline void fail(const char* op, const char* argument, const Parts&... parts) {
  std::ostringstream text;
  text << "pyfacelat::" << op << ": " << argument << ": ";
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// check(x.dim() == 4, "upfirdn2d", "x", "expected 4 dimensions [N,C,H,W], got ", x.dim())
template <class... Parts>
inline void check(bool holds, const char* op, const char* argument, const Parts&... parts) {
  if (!holds) [[unlikely]]
    fail(op, argument, parts...);
}

inline std::string shape_text(const Tensor& x) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < x.dim(); ++i) text << (i ? "," : "") << x.size(i);
  text << "]";
  return text.str();
}

inline void check_dim(const char* op, const char* argument, const Tensor& x, int64_t dim) {
  check(x.dim() == dim, op, argument, "expected ", dim, " dimensions, got shape ", shape_text(x));
}

inline void check_same_dtype(const char* op, const char* argument, const Tensor& x,
                             const Tensor& like) {
  check(x.scalar_type() == like.scalar_type(), op, argument, "expected the dtype of x, ",
        torch::headeronly::toString(like.scalar_type()), ", got ",
        torch::headeronly::toString(x.scalar_type()));
}

inline void check_same_device(const char* op, const char* argument, const Tensor& x,
                              const Tensor& like) {
  check(x.is_cuda() == like.is_cuda() && x.get_device_index() == like.get_device_index(), op,
        argument, "expected the device of x");
}

}  // namespace pyfacelat
