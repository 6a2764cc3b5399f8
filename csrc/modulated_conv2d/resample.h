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

struct MapSize {
  int64_t h, w;
};

std::vector<ResampleStep> resample_steps(const Tensor& weight, const std::optional<Tensor>& f,
                                         int64_t up, int64_t down, int64_t padding,
                                         bool flip_weight);

// Size of the step's output for an input of the given size.
MapSize step_size(const ResampleStep& step, MapSize input, const Tensor& weight,
                  const std::optional<Tensor>& f);

// The step's kernel as aten's convolution takes it.
Tensor step_kernel(const ResampleStep& step, const Tensor& weight);

// One convolution step; `kernel` from step_kernel. Any dense layout in and out.
Tensor convolve(const ResampleStep& step, const Tensor& x, const Tensor& kernel);

struct ConvolutionGradients {
  Tensor x, weight;  // weight: shape of the op's argument, where it was asked for
};

ConvolutionGradients convolve_backward(const ResampleStep& step, const Tensor& dy, const Tensor& x,
                                       const Tensor& kernel, bool need_x, bool need_weight);

// One FIR step forwards, and its transpose, which takes dy back to the step's input size.
Tensor filter(const ResampleStep& step, const Tensor& x, const std::optional<Tensor>& f);
Tensor filter_transposed(const ResampleStep& step, const Tensor& dy, const std::optional<Tensor>& f,
                         MapSize input);

}  // namespace pyfacelat
