// What the CPU and the CUDA op share: argument checks and the form of the results.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/check.h"
#include "common/layout.h"

namespace pyfacelat {

constexpr const char* kModulatedConv2d = "modulated_conv2d";

using OptionalTensor = std::optional<Tensor>;

inline double act_slope(const std::string& act, double alpha) {
  if (act == "linear") return 1;
  if (act == "relu") return 0;
  check(act == "lrelu", kModulatedConv2d, "act", "expected linear, relu or lrelu, got ", act);
  return alpha;
}

inline void check_inputs(const Tensor& x, const Tensor& weight, const Tensor& styles,
                         const OptionalTensor& demod, const OptionalTensor& noise,
                         const OptionalTensor& bias, double gain) {
  check_dim(kModulatedConv2d, "x", x, 4);
  check_dim(kModulatedConv2d, "weight", weight, 4);
  check(weight.size(1) == x.size(1), kModulatedConv2d, "weight", "expected ", x.size(1),
        " input channels, got shape ", shape_text(weight));
  auto vector = [&](const char* name, const Tensor& t, std::vector<int64_t> shape) {
    check(sizes_of(t) == shape, kModulatedConv2d, name, "unexpected shape ", shape_text(t));
    check_same_dtype(kModulatedConv2d, name, t, x);
    check_same_device(kModulatedConv2d, name, t, x);
  };
  check_same_dtype(kModulatedConv2d, "weight", weight, x);
  check_same_device(kModulatedConv2d, "weight", weight, x);
  vector("styles", styles, {x.size(0), x.size(1)});
  if (demod) vector("demod", *demod, {x.size(0), weight.size(0)});
  if (bias) vector("bias", *bias, {weight.size(0)});
  if (noise) {
    check_dim(kModulatedConv2d, "noise", *noise, 4);
    check_same_dtype(kModulatedConv2d, "noise", *noise, x);
    check_same_device(kModulatedConv2d, "noise", *noise, x);
  }
  check(gain > 0, kModulatedConv2d, "gain", "expected a number > 0, got ", gain);
}

inline void check_noise(const OptionalTensor& noise, int64_t n, int64_t h, int64_t w) {
  if (!noise) return;
  check((noise->size(0) == 1 || noise->size(0) == n) && noise->size(1) == 1 &&
            noise->size(2) == h && noise->size(3) == w,
        kModulatedConv2d, "noise", "expected [1 or ", n, ",1,", h, ",", w, "], got ",
        shape_text(*noise));
}

inline void check_gradient(const Tensor& dy, const Tensor& y, const Tensor& x) {
  check(sizes_of(dy) == sizes_of(y), kModulatedConv2d, "dy", "expected the shape of y, ",
        shape_text(y), ", got ", shape_text(dy));
  check_same_dtype(kModulatedConv2d, "dy", dy, x);
}

// Which gradients are wanted, and all of them; one that is not wanted has shape [0].
enum Need { kX = 1, kWeight = 2, kStyles = 4, kDemod = 8, kNoise = 16, kBias = 32 };
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

}  // namespace pyfacelat
