// CUDA implementation of pyfacelat::upfirdn2d (schema and formula: pyfacelat/ops/upfirdn2d.py).
#include "upfirdn2d/upfirdn2d_cuda.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/cuda.h"
#include "common/layout.h"
#include "upfirdn2d/upfirdn2d_op.h"

namespace pyfacelat {
namespace {

// The taps stay on the device: reading them here would stop the host until the GPU has caught up.
Tensor upfirdn2d_cuda(const Tensor& x, const Tensor& f, int64_t up, int64_t down,
                      std::vector<int64_t> pad, bool flip, double gain) {
  constexpr const char* kOp = "upfirdn2d";
  check_same_device(kOp, "f", f, x);
  const int device = x.get_device_index();
  const DeviceScope scope(kOp, device);
  const bool last = is_channels_last(x);
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const UpfirdnShape s = upfirdn_shape(x, &f, up, down, pad, last);
  const int dtype = dtype_code(kOp, x);
  const Tensor dense = as_format(x, format);
  const ScalarType wide = dtype == simt::kDouble ? ScalarType::Double : ScalarType::Float;
  const Tensor taps = torch::stable::contiguous(torch::stable::to(f, wide));
  Tensor y = empty_as(x, {x.size(0), x.size(1), s.oh, s.ow}, format);
  const int code = pyfacelat_upfirdn2d_cuda(dtype, dense.const_data_ptr(), taps.const_data_ptr(),
                                            y.mutable_data_ptr(), &s, f.dim() == 1, flip, gain,
                                            current_stream(kOp, device));
  check_launch(kOp, code, device);
  return y;
}

}  // namespace
}  // namespace pyfacelat

PYFACELAT_CUDA_LIBRARY(m) { m.impl("upfirdn2d", TORCH_BOX(&pyfacelat::upfirdn2d_cuda)); }
