// CPU implementation of pyfacelat::conv3x3 (schema, formulas: pyfacelat/ops/conv3x3.py).
//
// float32 maps run as Winograd's F(4x4, 3x3) where that pays (conv3x3.h). Other types, and maps of
// few channels or pixels, take torch's convolution between passes of their own.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <optional>
#include <string>

#include "common/dispatch.h"
#include "common/simd.h"
#include "conv3x3/conv3x3.h"

namespace pyfacelat {

namespace {

using conv3x3::floats;
using conv3x3::Job;
using torch::stable::detail::from;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "conv3x3";
constexpr int64_t kSmallMap = 20 * 20;  // pixels, as in modulated_conv2d/resample.cpp

// ---- what surrounds torch's convolution ----

Tensor convolve(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                bool transposed) {
  const std::vector<int64_t> one = {1, 1}, zero = {0, 0};
  // torch's NHWC convolution of a small map copies the weights first.
  const bool small = x.size(0) * x.size(2) * x.size(3) < kSmallMap;
  const Tensor in = as_format(x, small ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast);
  std::array<StableIValue, 9> stack{from(in),         from(weight), from(bias),
                                    from(one),        from(one),    from(one),
                                    from(transposed), from(zero),   from(int64_t{1})};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION));
  return as_format(torch::stable::detail::to<Tensor>(stack[0]), MemoryFormat::ChannelsLast);
}

template <class T, class A>
PYFACELAT_CLONES void scale_by_sign(const T* from, const T* sign, T* to, int64_t count, A positive,
                                    A negative) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i)
    to[i] = static_cast<T>(static_cast<A>(from[i]) *
                           (static_cast<A>(sign[i]) > 0 ? positive : negative));
}

// to = max(x * scale + shift, 0), or with `masked` to = masked * scale where that is positive.
template <class T, class A>
PYFACELAT_CLONES void affine_relu(const T* x, const T* scale, const T* shift, const T* masked,
                                  T* to, int64_t pixels, int64_t lanes) {
  for (int64_t p = 0; p < pixels; ++p, x += lanes, to += lanes) {
#pragma omp simd
    for (int64_t c = 0; c < lanes; ++c) {
      const A factor = static_cast<A>(scale[c]);
      const A v = static_cast<A>(x[c]) * factor + static_cast<A>(shift[c]);
      to[c] = static_cast<T>(v > 0 ? (masked ? static_cast<A>(masked[c]) * factor : v) : A(0));
    }
    if (masked) masked += lanes;
  }
}

struct Slopes {
  double positive, negative;
};

// x * slope by the sign of `sign`, all channels_last; `out` may be x.
void activate(const Tensor& x, const Tensor& sign, const Tensor& out, Slopes slopes) {
  dispatch_float(kOp, x, [&]<class T>() {
    using A = accumulate_t<T>;
    const T *source = static_cast<const T*>(x.data_ptr()),
            *signs = static_cast<const T*>(sign.data_ptr());
    T* to = static_cast<T*>(out.data_ptr());
    torch::stable::parallel_for(0, x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      scale_by_sign<T, A>(source + begin, signs + begin, to + begin, end - begin,
                          static_cast<A>(slopes.positive), static_cast<A>(slopes.negative));
    });
  });
}

// The input's affine map and relu; with `masked` its transpose, from that to dx.
Tensor prepare(const Tensor& x, const Tensor& scale, const Tensor& shift,
               const OptionalTensor& masked) {
  Tensor out = empty_as(x, sizes_of(x), MemoryFormat::ChannelsLast);
  const int64_t lanes = x.size(1), pixels = x.size(0) * x.size(2) * x.size(3);
  dispatch_float(kOp, x, [&]<class T>() {
    const T *source = static_cast<const T*>(x.data_ptr()),
            *factors = static_cast<const T*>(scale.data_ptr()),
            *shifts = static_cast<const T*>(shift.data_ptr()),
            *gradient = masked ? static_cast<const T*>(masked->data_ptr()) : nullptr;
    T* to = static_cast<T*>(out.data_ptr());
    const int64_t grain = (1 << 15) / std::max<int64_t>(lanes, 1) + 1;
    torch::stable::parallel_for(0, pixels, grain, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * lanes;
      affine_relu<T, accumulate_t<T>>(source + at, factors, shifts,
                                      gradient ? gradient + at : nullptr, to + at, end - begin,
                                      lanes);
    });
  });
  return out;
}

// ---- arguments ----

Slopes act_slopes(const std::string& act, double alpha, double gain) {
  check(act == "linear" || act == "relu" || act == "lrelu", kOp, "act",
        "expected linear, relu or lrelu, got ", act);
  check(gain > 0, kOp, "gain", "expected a number > 0, got ", gain);
  const double low = act == "linear" ? 1 : act == "relu" ? 0 : alpha;
  return {gain, gain * low};
}

void check_weight(const Tensor& weight, const Tensor& x) {
  check_dim(kOp, "weight", weight, 4);
  check(weight.size(2) == 3 && weight.size(3) == 3, kOp, "weight", "expected a 3x3 kernel, got ",
        shape_text(weight));
  check_same_dtype(kOp, "weight", weight, x);
}

// A dense vector of one number for each channel.
OptionalTensor vector(const char* name, const OptionalTensor& t, int64_t channels,
                      const Tensor& x) {
  if (!t) return std::nullopt;
  check(sizes_of(*t) == std::vector<int64_t>{channels}, kOp, name, "expected shape [", channels,
        "], got ", shape_text(*t));
  check_same_dtype(kOp, name, *t, x);
  return as_format(*t, MemoryFormat::Contiguous);
}

void check_affine(const OptionalTensor& scale, const OptionalTensor& shift) {
  check(scale.has_value() == shift.has_value(), kOp, "in_shift",
        "expected exactly where there is an in_scale");
}

// ---- the op ----

Tensor conv3x3_cpu(const Tensor& x, const Tensor& weight, const Tensor& packed,
                   const Tensor& packed_back, OptionalTensor bias, std::string act, double alpha,
                   double gain, OptionalTensor in_scale, OptionalTensor in_shift) {
  check_dim(kOp, "x", x, 4);
  check_weight(weight, x);
  const int64_t in = x.size(1), out = weight.size(0);
  check(weight.size(1) == in, kOp, "weight", "expected ", in, " input channels, got shape ",
        shape_text(weight));
  const OptionalTensor b = vector("bias", bias, out, x),
                       scale = vector("in_scale", in_scale, in, x),
                       shift = vector("in_shift", in_shift, in, x);
  check_affine(scale, shift);
  const Slopes slopes = act_slopes(act, alpha, gain);
  const Tensor input = as_format(x, MemoryFormat::ChannelsLast);
  const OptionalTensor u = conv3x3::packed_weight(kOp, "packed", packed, x, out);
  if (!u || !conv3x3::pays(x)) {
    Tensor y =
        convolve(scale ? prepare(input, *scale, *shift, std::nullopt) : input, weight, b, false);
    activate(y, y, y, slopes);
    return y;
  }
  Tensor y = empty_as(x, {x.size(0), out, x.size(2), x.size(3)}, MemoryFormat::ChannelsLast);
  Job job = conv3x3::job_of(input, *u, y);
  if (scale) {
    job.input = conv3x3::Input::kAffine;
    job.in_scale = floats(*scale), job.in_shift = floats(*shift);
  }
  job.bias = b ? floats(*b) : nullptr;
  job.positive = static_cast<float>(slopes.positive);
  job.negative = static_cast<float>(slopes.negative);
  conv3x3::run(job);
  return y;
}

Tensor conv3x3_backward_cpu(const Tensor& dy, const Tensor& y, const Tensor& weight,
                            const Tensor& packed_back, std::string act, double alpha, double gain,
                            OptionalTensor x, OptionalTensor in_scale, OptionalTensor in_shift) {
  check_dim(kOp, "dy", dy, 4);
  check(sizes_of(dy) == sizes_of(y), kOp, "dy", "expected the shape of y, ", shape_text(y),
        ", got ", shape_text(dy));
  check_same_dtype(kOp, "dy", dy, y);
  check_weight(weight, dy);
  check(weight.size(0) == dy.size(1), kOp, "weight", "expected ", dy.size(1),
        " output channels, got shape ", shape_text(weight));
  const int64_t in = weight.size(1);
  const std::vector<int64_t> shape = {dy.size(0), in, dy.size(2), dy.size(3)};
  const OptionalTensor scale = vector("in_scale", in_scale, in, dy),
                       shift = vector("in_shift", in_shift, in, dy);
  check_affine(scale, shift);
  OptionalTensor before;
  if (scale) {
    check(x.has_value() && sizes_of(*x) == shape, kOp, "x",
          "expected the input beside an in_scale");
    check_same_dtype(kOp, "x", *x, dy);
    before = as_format(*x, MemoryFormat::ChannelsLast);
  }
  const Slopes slopes = act_slopes(act, alpha, gain);
  const Tensor gradient = as_format(dy, MemoryFormat::ChannelsLast);
  const Tensor output = as_format(y, MemoryFormat::ChannelsLast);
  const OptionalTensor u = conv3x3::packed_weight(kOp, "packed_back", packed_back, dy, in);
  if (!u || !conv3x3::pays(dy)) {
    const Tensor dz = empty_as(dy, sizes_of(dy), MemoryFormat::ChannelsLast);
    activate(gradient, output, dz, slopes);
    const Tensor dv = convolve(dz, weight, std::nullopt, true);
    return scale ? prepare(*before, *scale, *shift, dv) : dv;
  }
  Tensor dx = empty_as(dy, shape, MemoryFormat::ChannelsLast);
  Job job = conv3x3::job_of(gradient, *u, dx);
  job.gate_positive = static_cast<float>(slopes.positive);
  job.gate_negative = static_cast<float>(slopes.negative);
  if (slopes.positive != 1 || slopes.negative != 1) {
    job.input = conv3x3::Input::kGated;
    job.in_gate = floats(output);
  }
  if (scale) {
    job.output = conv3x3::Output::kMasked;
    job.out_gate = floats(*before);
    job.out_scale = floats(*scale), job.out_shift = floats(*shift);
  }
  conv3x3::run(job);
  return dx;
}

}  // namespace

}  // namespace pyfacelat

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&pyfacelat::conv3x3_cpu));
  m.impl("conv3x3_backward", TORCH_BOX(&pyfacelat::conv3x3_backward_cpu));
}
