// upfirdn2d on tensors, for its own op and for modulated_conv2d.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/check.h"
#include "upfirdn2d/upfirdn2d.h"
#include "upfirdn2d/upfirdn2d_rows.h"

namespace pyfacelat {

// Elements that make a parallel task worth its start.
constexpr int64_t kRowGrain = 1 << 15;

// Shapes, paddings and taps of upfirdn2d(x [N,C,H,W], f [fh,fw] or [taps] or null); pad is
// (left, right, top, bottom). x_last tells whether x is to be read as NHWC.
UpfirdnParams upfirdn_params(const Tensor& x, const Tensor* f, int64_t up, int64_t down,
                             const std::vector<int64_t>& pad, bool flip, double gain, bool x_last);

// Runs the op into y; sink(plane, row, T* y_row) is called on each row when it is done.
template <class T, class Sink>
void upfirdn_rows(const UpfirdnParams& p, const T* x, T* y, const Sink& sink) {
  const int64_t row_size = p.ow * p.lanes;
  if (p.planes * p.oh * row_size == 0) return;
  const int64_t grain = std::max<int64_t>(1, kRowGrain / row_size);
  torch::stable::parallel_for(0, p.planes * p.oh, grain, [&](int64_t begin, int64_t end) {
    rows::Engine<T, accumulate_t<T>> engine(p);
    for (int64_t i = begin; i < end; ++i) {
      T* out = y + i * row_size;
      engine.row(x + i / p.oh * p.h * p.w * p.lanes, i % p.oh, out);
      sink(i / p.oh, i % p.oh, out);
    }
  });
}

Tensor upfirdn2d_cpu(const Tensor& x, const Tensor& f, int64_t up, int64_t down,
                     std::vector<int64_t> pad, bool flip, double gain);

}  // namespace pyfacelat
