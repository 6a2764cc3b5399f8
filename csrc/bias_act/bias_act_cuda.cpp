// CUDA implementation of pyfacelat::bias_act (schema and formulas: pyfacelat/ops/bias_act.py).
#include "bias_act/bias_act_cuda.h"

#include <torch/csrc/stable/library.h>

#include "bias_act/bias_act_op.h"
#include "common/cuda.h"

namespace pyfacelat::bias_act {
namespace {

Tensor apply(const char* op, const Tensor* dy, const Tensor& x, const std::optional<Tensor>& b,
             int64_t dim, const std::string& act, double alpha, double gain, double clamp) {
  const int device = x.get_device_index();
  const DeviceScope scope(op, device);
  const Call call = prepare(op, dy, x, b, dim, act, alpha, gain, clamp);
  const Params& p = call.params;
  if (p.numel == 0) return call.out;
  const int code = pyfacelat_bias_act_cuda(
      dtype_code(op, x), call.dy ? call.dy->const_data_ptr() : nullptr, call.x.const_data_ptr(),
      call.b ? call.b->const_data_ptr() : nullptr, call.out.mutable_data_ptr(), p.numel, p.channels,
      p.inner, static_cast<int>(call.act), p.alpha, p.gain, p.clamp, current_stream(op, device));
  check_launch(op, code, device);
  return call.out;
}

Tensor bias_act_cuda(const Tensor& x, const std::optional<Tensor>& b, int64_t dim,
                     const std::string& act, double alpha, double gain, double clamp) {
  return apply("bias_act", nullptr, x, b, dim, act, alpha, gain, clamp);
}

Tensor bias_act_grad_cuda(const Tensor& dy, const Tensor& x, const std::optional<Tensor>& b,
                          int64_t dim, const std::string& act, double alpha, double gain,
                          double clamp) {
  return apply("bias_act_grad", &dy, x, b, dim, act, alpha, gain, clamp);
}

}  // namespace
}  // namespace pyfacelat::bias_act

PYFACELAT_CUDA_LIBRARY(m) {
  m.impl("bias_act", TORCH_BOX(&pyfacelat::bias_act::bias_act_cuda));
  m.impl("bias_act_grad", TORCH_BOX(&pyfacelat::bias_act::bias_act_grad_cuda));
}
