// CUDA implementation of pyfacelat::modulated_conv2d (schema, formulas:
// pyfacelat/ops/modulated_conv2d.py).
//
// One kernel scales the input, torch's convolution (cuDNN) runs on the unchanged weights, an
// upsampling layer's FIR filter follows, and one kernel does everything after that. The backward is
// one kernel over dy and y, the transposed map, and one kernel for the styles; each sum it yields
// takes a second, small one. Nothing is read back to the host.
#include "modulated_conv2d/modulated_conv2d_cuda.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/cuda.h"
#include "common/layout.h"
#include "modulated_conv2d/modulated_conv2d_op.h"
#include "modulated_conv2d/resample.h"

namespace pyfacelat {
namespace {

using modconv::Activation;
using modconv::Extent;

constexpr const char* kOp = kModulatedConv2d;

const void* data_of(const OptionalTensor& t) { return t ? t->const_data_ptr() : nullptr; }

OptionalTensor dense(const OptionalTensor& t) {
  return t ? OptionalTensor(as_format(*t, MemoryFormat::Contiguous)) : std::nullopt;
}

Tensor nhwc(const Tensor& x) { return as_format(x, MemoryFormat::ChannelsLast); }

// What every launch of a call shares.
struct Launcher {
  int device, dtype;
  void* stream;

  explicit Launcher(const Tensor& x)
      : device(x.get_device_index()),
        dtype(dtype_code(kOp, x)),
        stream(current_stream(kOp, device)) {}

  void check(int code) const { check_launch(kOp, code, device); }

  // x seen as images of pixels; the pointers decide with it whether channels move in packs.
  Extent extent(const Tensor& x, std::initializer_list<const void*> pointers) const {
    const int64_t lanes = x.size(1);
    return {x.size(0), x.size(2) * x.size(3), lanes, modconv::is_packed(dtype, lanes, pointers)};
  }

  // Room for partial sums.
  Tensor wide(const Tensor& like, int64_t numel) const {
    const std::vector<int64_t> size = {numel};
    return torch::stable::empty(torch::headeronly::IntHeaderOnlyArrayRef(size.data(), size.size()),
                                dtype == simt::kDouble ? ScalarType::Double : ScalarType::Float,
                                std::nullopt, like.device());
  }

  // Sums of part [groups, rows, columns] over the rows, as a tensor of the given shape.
  Tensor reduce(const Tensor& like, const std::vector<int64_t>& shape, const Tensor& part,
                const void* divisor, int64_t groups, int64_t rows, int64_t columns) const {
    Tensor out = empty_as(like, shape, MemoryFormat::Contiguous);
    check(pyfacelat_reduce_cuda(dtype, part.const_data_ptr(), divisor, out.mutable_data_ptr(),
                                groups, rows, columns, stream));
    return out;
  }
};

Tensor modulated(const Launcher& launch, const Tensor& x, const Tensor& styles) {
  const Tensor in = nhwc(x), s = as_format(styles, MemoryFormat::Contiguous);
  Tensor out = empty_as(x, sizes_of(x), MemoryFormat::ChannelsLast);
  const Extent e =
      launch.extent(in, {in.const_data_ptr(), s.const_data_ptr(), out.const_data_ptr()});
  launch.check(pyfacelat_modulate_cuda(launch.dtype, in.const_data_ptr(), s.const_data_ptr(),
                                       out.mutable_data_ptr(), &e, launch.stream));
  return out;
}

Tensor modulated_conv2d_cuda(const Tensor& x, const Tensor& weight, const Tensor& styles,
                             OptionalTensor demod, OptionalTensor noise, OptionalTensor bias,
                             OptionalTensor f, int64_t up, int64_t down, int64_t padding,
                             bool flip_weight, std::string act, double alpha, double gain,
                             double clamp, OptionalTensor /*packed: for CPUs*/) {
  check_inputs(x, weight, styles, demod, noise, bias, gain);
  const DeviceScope scope(kOp, x.get_device_index());
  const Launcher launch(x);
  const Activation activation{act_slope(act, alpha), gain, clamp};
  Tensor y = modulated(launch, x, styles);
  for (const ResampleStep& step : resample_steps(weight, f, up, down, padding, flip_weight))
    y = step.fir ? filter(step, y, f) : convolve(step, y, step_kernel(step, weight));
  y = nhwc(y);  // the last step's own output: nobody else holds it
  check_noise(noise, x.size(0), y.size(2), y.size(3));
  const OptionalTensor d = dense(demod), map = dense(noise), b = dense(bias);
  const Extent e = launch.extent(y, {y.const_data_ptr(), data_of(d), data_of(b)});
  launch.check(pyfacelat_finish_cuda(launch.dtype, y.mutable_data_ptr(), data_of(d), data_of(map),
                                     map ? map->size(0) : 1, data_of(b), &e, &activation,
                                     launch.stream));
  return y;
}

Gradients modulated_conv2d_backward_cuda(const Tensor& dy, const Tensor& y, const Tensor& x,
                                         const Tensor& weight, const Tensor& styles,
                                         OptionalTensor demod, OptionalTensor noise,
                                         OptionalTensor bias, OptionalTensor f, int64_t up,
                                         int64_t down, int64_t padding, bool flip_weight,
                                         std::string act, double alpha, double gain, double clamp,
                                         int64_t needs, OptionalTensor /*packed_back*/) {
  check_inputs(x, weight, styles, demod, noise, bias, gain);
  check_gradient(dy, y, x);
  check_noise(noise, x.size(0), y.size(2), y.size(3));
  const DeviceScope scope(kOp, x.get_device_index());
  const Launcher launch(x);
  const Activation activation{act_slope(act, alpha), gain, clamp};
  const std::vector<ResampleStep> steps = resample_steps(weight, f, up, down, padding, flip_weight);
  const int64_t n = x.size(0), o = weight.size(0), pixels = y.size(2) * y.size(3);
  auto none = [&] { return empty_as(x, {0}, MemoryFormat::Contiguous); };
  Gradients out{none(), none(), none(), none(), none(), none()};

  // dz, and the sums for bias, demodulation and noise, in one pass.
  Tensor dz = empty_as(x, sizes_of(y), MemoryFormat::ChannelsLast);
  {
    const Tensor g = nhwc(dy), v = nhwc(y);
    const OptionalTensor d = dense(demod), map = dense(noise), b = dense(bias);
    const Extent e = launch.extent(
        v, {g.const_data_ptr(), v.const_data_ptr(), dz.const_data_ptr(), data_of(d), data_of(b)});
    const modconv::Cut cut = modconv::cut_of(launch.dtype, e);
    const auto room = [&](bool wanted, int64_t numel) {
      return wanted ? OptionalTensor(launch.wide(x, numel)) : std::nullopt;
    };
    const auto target = [](OptionalTensor& t) { return t ? t->mutable_data_ptr() : nullptr; };
    OptionalTensor sum_b = room(b && needs & kBias, n * cut.chunks * o);
    OptionalTensor sum_d = room(d && needs & kDemod, n * cut.chunks * o);
    OptionalTensor sum_noise = room(map && needs & kNoise, n * cut.runs * pixels);
    const int64_t maps = map ? map->size(0) : 1;
    launch.check(pyfacelat_finish_backward_cuda(
        launch.dtype, g.const_data_ptr(), v.const_data_ptr(), data_of(d), data_of(map), maps,
        data_of(b), dz.mutable_data_ptr(), target(sum_b), target(sum_d), target(sum_noise), &e,
        &activation, launch.stream));
    if (sum_b) std::get<5>(out) = launch.reduce(x, {o}, *sum_b, nullptr, 1, n * cut.chunks, o);
    if (sum_d) std::get<3>(out) = launch.reduce(x, {n, o}, *sum_d, data_of(d), n, cut.chunks, o);
    if (sum_noise)
      std::get<4>(out) =
          launch.reduce(x, sizes_of(*map), *sum_noise, nullptr, maps, n / maps * cut.runs, pixels);
  }
  if (!(needs & (kX | kStyles | kWeight))) return out;

  const bool need_x = needs & (kX | kStyles), need_weight = needs & kWeight;
  const Tensor entry = need_weight ? modulated(launch, x, styles) : nhwc(x);
  MapGradients through = map_backward(steps, std::move(dz), entry, weight, f, need_x, need_weight);
  if (need_weight) std::get<1>(out) = through.weight;
  if (!need_x) return out;
  dz = std::move(through.x);

  const Tensor input = nhwc(x), s = as_format(styles, MemoryFormat::Contiguous);
  const Extent e =
      launch.extent(input, {dz.const_data_ptr(), input.const_data_ptr(), s.const_data_ptr()});
  const modconv::Cut cut = modconv::cut_of(launch.dtype, e);
  const Tensor sum_s = launch.wide(x, n * cut.chunks * e.lanes);
  launch.check(pyfacelat_modulate_backward_cuda(launch.dtype, dz.mutable_data_ptr(),
                                                input.const_data_ptr(), s.const_data_ptr(),
                                                sum_s.mutable_data_ptr(), &e, launch.stream));
  if (needs & kX) std::get<0>(out) = dz;
  if (needs & kStyles)
    std::get<2>(out) = launch.reduce(x, {n, e.lanes}, sum_s, nullptr, n, cut.chunks, e.lanes);
  return out;
}

}  // namespace
}  // namespace pyfacelat

PYFACELAT_CUDA_LIBRARY(m) {
  m.impl("modulated_conv2d", TORCH_BOX(&pyfacelat::modulated_conv2d_cuda));
  m.impl("modulated_conv2d_backward", TORCH_BOX(&pyfacelat::modulated_conv2d_backward_cuda));
}
