// The linear map of modulated_conv2d as a chain of convolutions and FIR filters, and its transpose.
// The same plan as resample_steps in pyfacelat/ops/conv2d_resample.py, where its paddings are
// derived.
#pragma once

#include <optional>
#include <vector>

#include "common/check.h"

namespace pyfacelat {

struct ResampleStep {
  bool fir;
  // FIR
  int64_t up = 1, down = 1;
  std::vector<int64_t> pad;  // left, right, top, bottom; for a convolution: vertical, horizontal
  double gain = 1;
  // convolution
  int64_t stride = 1;
  bool transposed = false, flip = false;
};

std::vector<ResampleStep> resample_steps(const Tensor& weight, const std::optional<Tensor>& f,
                                         int64_t up, int64_t down, int64_t padding,
                                         bool flip_weight);

// The step's kernel as aten's convolution takes it.
Tensor step_kernel(const ResampleStep& step, const Tensor& weight);

// One convolution step; `kernel` from step_kernel. Any dense layout in and out.
Tensor convolve(const ResampleStep& step, const Tensor& x, const Tensor& kernel);

// One FIR step.
Tensor filter(const ResampleStep& step, const Tensor& x, const std::optional<Tensor>& f);

struct MapGradients {
  Tensor x, weight;  // each where it was asked for; weight has the shape of the op's argument
};

// Back through the whole map, from dy at its output. Of `input` only the size counts where the
// weight's gradient is not asked for.
MapGradients map_backward(const std::vector<ResampleStep>& steps, Tensor dy, const Tensor& input,
                          const Tensor& weight, const std::optional<Tensor>& f, bool need_x,
                          bool need_weight);

}  // namespace pyfacelat
