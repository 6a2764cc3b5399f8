// CPU implementation of pyfacelat::upfirdn2d (schema and formula: pyfacelat/ops/upfirdn2d.py).
#include "upfirdn2d/upfirdn2d_cpu.h"

#include <torch/csrc/stable/library.h>

#include "common/layout.h"

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
  check_dim(kOp, "x", x, 4);
  check(pad.size() == 4, kOp, "pad", "expected (left, right, top, bottom), got ", pad.size(),
        " values");
  check(up >= 1 && down >= 1, kOp, "up, down", "expected numbers >= 1, got ", up, " and ", down);
  UpfirdnParams p;
  p.planes = x_last ? x.size(0) : x.size(0) * x.size(1);
  p.lanes = x_last ? x.size(1) : 1;
  p.h = x.size(2);
  p.w = x.size(3);
  p.up = up;
  p.down = down;
  p.pad_x = pad[0];
  p.pad_y = pad[2];
  const bool line = f && f->dim() == 1;
  check(!f || line || f->dim() == 2, kOp, "f", "expected 1 or 2 dimensions");
  p.fh = f ? f->size(0) : 1;
  p.fw = f ? f->size(line ? 0 : 1) : 1;
  check(p.fh >= 1 && p.fw >= 1, kOp, "f", "expected at least one tap");
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
  p.oh = output_size(p.h, up, down, pad[2], pad[3], p.fh);
  p.ow = output_size(p.w, up, down, pad[0], pad[1], p.fw);
  check(p.oh >= 1 && p.ow >= 1, kOp, "pad", "the padded image is smaller than the filter");
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
