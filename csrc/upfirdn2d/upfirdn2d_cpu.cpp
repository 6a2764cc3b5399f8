// CPU implementation of pyfacelat::upfirdn2d (schema and formula: pyfacelat/ops/upfirdn2d.py).
#include "upfirdn2d/upfirdn2d_cpu.h"

#include <torch/csrc/stable/library.h>

#include "common/layout.h"
#include "upfirdn2d/upfirdn2d_op.h"

namespace pyfacelat {

namespace {

constexpr const char* kOp = "upfirdn2d";

std::vector<double> read_taps(const Tensor& f) {
  // Taps are few: a detour over float64 spares a loop for every dtype.
  Tensor wide = torch::stable::contiguous(torch::stable::to(f, ScalarType::Double));
  const double* data = static_cast<const double*>(wide.data_ptr());
  return {data, data + wide.numel()};
}

}  // namespace

UpfirdnParams upfirdn_params(const Tensor& x, const Tensor* f, int64_t up, int64_t down,
                             const std::vector<int64_t>& pad, bool flip, double gain, bool x_last) {
  UpfirdnParams p;
  static_cast<UpfirdnShape&>(p) = upfirdn_shape(x, f, up, down, pad, x_last);
  const bool line = f && f->dim() == 1;
  std::vector<double> taps = f ? read_taps(*f) : std::vector<double>{1.0};
  if (!flip) std::reverse(taps.begin(), taps.end());
  if (line) {
    p.separable = true;
    p.row = p.column = taps;
  } else {
    // float32 taps of an outer product are themselves rounded; in float64 nothing may be assumed.
    const double tolerance = x.scalar_type() == ScalarType::Double ? 1e-15 : 1e-7;
    p.separable = split_filter(taps, p.fh, p.fw, tolerance, p.column, p.row);
    p.full = taps;
  }
  for (double& t : p.column) t *= gain;
  for (double& t : p.full) t *= gain;
  return p;
}

Tensor upfirdn2d_cpu(const Tensor& x, const Tensor& f, int64_t up, int64_t down,
                     std::vector<int64_t> pad, bool flip, double gain) {
  const bool last = is_channels_last(x);
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const UpfirdnParams p = upfirdn_params(x, &f, up, down, pad, flip, gain, last);
  const Tensor dense = as_format(x, format);
  Tensor y = empty_as(x, {x.size(0), x.size(1), p.oh, p.ow}, format);
  dispatch_float(kOp, x, [&]<class T>() {
    upfirdn_rows<T>(p, static_cast<const T*>(dense.data_ptr()), static_cast<T*>(y.data_ptr()),
                    [](int64_t, int64_t, T*) {});
  });
  return y;
}

}  // namespace pyfacelat

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("upfirdn2d", TORCH_BOX(&pyfacelat::upfirdn2d_cpu));
}
