// CPU implementation of pyfacelat::modulated_conv2d (schema, formulas:
// pyfacelat/ops/modulated_conv2d.py).
//
// A pass that scales the input, torch's own convolutions (oneDNN) on the unchanged weights, and one
// pass for everything after them; with packed weights a 3x3 layer is all three at once (conv3x3.h).
// An upsampling layer's FIR filter hands each finished row to that
// pass while the row is in cache. The backward is one pass over dy and y, the transposed
// convolution, one pass for the styles. Sums run over blocks of fixed size, so that threads do not
// change a bit.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <memory>
#include <string>
#include <tuple>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/layout.h"
#include "conv3x3/conv3x3.h"
#include "modulated_conv2d/modulated_conv2d.h"
#include "modulated_conv2d/modulated_conv2d_op.h"
#include "modulated_conv2d/resample.h"
#include "upfirdn2d/upfirdn2d_cpu.h"

namespace pyfacelat {

namespace {

constexpr const char* kOp = kModulatedConv2d;
constexpr int64_t kBlock =
    1 << 14;                    // elements of a block: two operands of float fit in L2 with room
constexpr int64_t kLanes = 16;  // shorter pixels are taken several at a time

template <class T>
T* data_of(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

template <class T, class A>
std::vector<A> read(const OptionalTensor& t, int64_t size, A otherwise) {
  if (!t) return std::vector<A>(size, otherwise);
  const Tensor dense = as_format(*t, MemoryFormat::Contiguous);
  const T* data = data_of<T>(dense);
  std::vector<A> out(size);
  for (int64_t i = 0; i < size; ++i) out[i] = static_cast<A>(data[i]);
  return out;
}

// `rows` vectors of `lanes` numbers, each repeated `times` times.
template <class A>
std::vector<A> repeat(const std::vector<A>& in, int64_t lanes, int64_t times) {
  if (times == 1 || lanes == 0) return in;
  std::vector<A> out;
  out.reserve(in.size() * times);
  for (auto row = in.begin(); row < in.end(); row += lanes)
    for (int64_t i = 0; i < times; ++i) out.insert(out.end(), row, row + lanes);
  return out;
}

// Calls run(n, first pixel, pixels, block) over all pixels of n images in blocks of fixed size.
struct Blocks {
  int64_t n, pixels, size, per_image;

  Blocks(int64_t n, int64_t pixels, int64_t lanes)
      : n(n),
        pixels(pixels),
        size(std::max<int64_t>(kLanes, kBlock / std::max<int64_t>(lanes, 1))),
        per_image((pixels + size - 1) / size) {}

  int64_t count() const { return n * per_image; }

  template <class F>
  void run(const F& f) const {
    torch::stable::parallel_for(0, count(), 2, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % per_image * size;
        f(i / per_image, first, std::min(size, pixels - first), i);
      }
    });
  }
};

// out[n, lanes] = sums over an image's blocks of parts[block, times * lanes].
template <class A>
std::vector<double> total(const Blocks& blocks, const std::vector<A>& parts, int64_t lanes,
                          int64_t times) {
  std::vector<double> out(blocks.n * lanes, 0.0);
  for (int64_t i = 0; i < blocks.count(); ++i)
    for (int64_t r = 0; r < times; ++r)
      for (int64_t c = 0; c < lanes; ++c)
        out[i / blocks.per_image * lanes + c] +=
            static_cast<double>(parts[(i * times + r) * lanes + c]);
  return out;
}

template <class T>
Tensor write(const Tensor& like, const std::vector<int64_t>& shape,
             const std::vector<double>& values) {
  Tensor out = empty_as(like, shape, MemoryFormat::Contiguous);
  T* data = data_of<T>(out);
  for (size_t i = 0; i < values.size(); ++i) data[i] = static_cast<T>(values[i]);
  return out;
}

// x * styles, NHWC.
template <class T>
Tensor modulated(const Tensor& x, const Tensor& styles) {
  using A = accumulate_t<T>;
  const Tensor in = as_format(x, MemoryFormat::ChannelsLast);
  Tensor out = empty_as(x, sizes_of(x), MemoryFormat::ChannelsLast);
  const int64_t n = x.size(0), lanes = x.size(1), pixels = x.size(2) * x.size(3);
  const std::vector<A> s = read<T, A>(styles, n * lanes, A(1));
  const T* from = data_of<T>(in);
  T* to = data_of<T>(out);
  Blocks(n, pixels, lanes).run([&](int64_t i, int64_t first, int64_t count, int64_t) {
    const int64_t offset = (i * pixels + first) * lanes;
    modconv::modulate<T, A>(from + offset, to + offset, s.data() + i * lanes, count, lanes);
  });
  return out;
}

// weight * styles for a single image: cheaper than scaling a large map.
template <class T>
Tensor modulated_weight(const Tensor& weight, const Tensor& styles) {
  using A = accumulate_t<T>;
  const Tensor in = as_format(weight, MemoryFormat::Contiguous);
  Tensor out = empty_as(weight, sizes_of(weight), MemoryFormat::Contiguous);
  const int64_t i = weight.size(1), taps = weight.size(2) * weight.size(3);
  const std::vector<A> s = repeat(repeat(read<T, A>(styles, i, A(1)), 1, taps), i * taps, 1);
  modconv::modulate<T, A>(data_of<T>(in), data_of<T>(out), s.data(), weight.size(0), i * taps);
  return out;
}

// The packed weight of a layer that conv3x3 computes faster, else nothing.
OptionalTensor packed_if_faster(const char* name, const OptionalTensor& packed, const Tensor& x,
                                const Tensor& weight, const std::vector<ResampleStep>& steps,
                                int64_t out) {
  const ResampleStep& step = steps[0];
  const bool plain = steps.size() == 1 && !step.fir && step.stride == 1 && !step.transposed &&
                     !step.flip && step.pad == std::vector<int64_t>{1, 1} && weight.size(2) == 3 &&
                     weight.size(3) == 3;
  if (!plain || !conv3x3::pays(x)) return std::nullopt;
  return conv3x3::packed_weight(kOp, name, packed, x, out);
}

// The whole layer in one go.
Tensor styled(const Tensor& x, const Tensor& packed, const Tensor& styles,
              const OptionalTensor& demod, const OptionalTensor& noise, const OptionalTensor& bias,
              int64_t out, modconv::Slopes<float> slopes) {
  const int64_t n = x.size(0), h = x.size(2), w = x.size(3);
  check_noise(noise, n, h, w);
  auto dense = [](const OptionalTensor& t) {
    return t ? OptionalTensor(as_format(*t, MemoryFormat::Contiguous)) : std::nullopt;
  };
  auto data = [](const OptionalTensor& t) { return t ? data_of<float>(*t) : nullptr; };
  const Tensor input = as_format(x, MemoryFormat::ChannelsLast);
  const OptionalTensor s = dense(styles), d = dense(demod), map = dense(noise), b = dense(bias);
  Tensor y = empty_as(x, {n, out, h, w}, MemoryFormat::ChannelsLast);
  conv3x3::Job job = conv3x3::job_of(input, packed, y);
  job.input = conv3x3::Input::kScaled;
  job.in_scale = data(s);
  job.output = conv3x3::Output::kStyled;
  job.out_scale = data(d), job.noise = data(map), job.bias = data(b);
  job.noise_step = map && map->size(0) > 1 ? h * w : 0;
  job.positive = slopes.positive, job.negative = slopes.negative, job.limit = slopes.limit;
  conv3x3::run(job);
  return y;
}

template <class T>
Tensor forward(const Tensor& x, const Tensor& weight, const Tensor& styles,
               const OptionalTensor& demod, const OptionalTensor& noise, const OptionalTensor& bias,
               const OptionalTensor& f, const std::vector<ResampleStep>& steps,
               modconv::Slopes<accumulate_t<T>> slopes, const OptionalTensor& packed) {
  using A = accumulate_t<T>;
  const int64_t n = x.size(0), o = weight.size(0);
  if constexpr (std::is_same_v<T, float>)
    if (auto u = packed_if_faster("packed", packed, x, weight, steps, o))
      return styled(x, *u, styles, demod, noise, bias, o, slopes);
  const bool scale_weight = n == 1 && weight.numel() < x.numel();
  const Tensor w = scale_weight ? modulated_weight<T>(weight, styles) : weight;
  Tensor z = scale_weight ? as_format(x, MemoryFormat::ChannelsLast) : modulated<T>(x, styles);
  const bool fused = steps.back().fir;
  for (size_t i = 0; i + fused < steps.size(); ++i)
    z = steps[i].fir ? filter(steps[i], z, f) : convolve(steps[i], z, step_kernel(steps[i], w));
  z = as_format(z, MemoryFormat::ChannelsLast);

  OptionalTensor map;  // the noise, dense
  if (noise) map = as_format(*noise, MemoryFormat::Contiguous);
  const T* noise_data = map ? data_of<T>(*map) : nullptr;
  const int64_t noise_step = map && map->size(0) > 1 ? map->size(2) * map->size(3) : 0;
  const int64_t times = !noise && o < kLanes ? kLanes : 1;
  const std::vector<A> d = repeat(read<T, A>(demod, n * o, A(1)), o, times);
  const std::vector<A> b = repeat(read<T, A>(bias, o, A(0)), o, times);
  // `count` pixels of image i from pixel `first` on, at y.
  auto finish = [&](int64_t i, int64_t first, int64_t count, T* y) {
    const T* shift = noise_data ? noise_data + i * noise_step + first : nullptr;
    const A* scale = d.data() + i * o * times;
    modconv::finish<T, A>(y, shift, scale, b.data(), count / times, o * times, slopes);
    const int64_t rest = count % times;
    if (rest)
      modconv::finish<T, A>(y + (count - rest) * o, shift, scale, b.data(), 1, rest * o, slopes);
  };

  if (fused) {
    const ResampleStep& step = steps.back();
    const UpfirdnParams p =
        upfirdn_params(z, f ? &*f : nullptr, step.up, step.down, step.pad, false, step.gain, true);
    check_noise(noise, n, p.oh, p.ow);
    Tensor y = empty_as(x, {n, o, p.oh, p.ow}, MemoryFormat::ChannelsLast);
    upfirdn_rows<T>(p, data_of<T>(z), data_of<T>(y),
                    [&](int64_t i, int64_t row, T* line) { finish(i, row * p.ow, p.ow, line); });
    return y;
  }
  check_noise(noise, n, z.size(2), z.size(3));
  const int64_t pixels = z.size(2) * z.size(3);
  T* y = data_of<T>(z);  // the convolution's own output: nobody else holds it
  Blocks(n, pixels, o).run([&](int64_t i, int64_t first, int64_t count, int64_t) {
    finish(i, first, count, y + (i * pixels + first) * o);
  });
  return z;
}

template <class T>
Gradients backward(const Tensor& dy, const Tensor& y, const Tensor& x, const Tensor& weight,
                   const Tensor& styles, const OptionalTensor& demod, const OptionalTensor& noise,
                   const OptionalTensor& bias, const OptionalTensor& f,
                   const std::vector<ResampleStep>& steps, modconv::Slopes<accumulate_t<T>> slopes,
                   int64_t needs, const OptionalTensor& packed_back) {
  using A = accumulate_t<T>;
  const int64_t n = x.size(0), in = x.size(1), o = weight.size(0);
  const int64_t pixels = y.size(2) * y.size(3);
  auto none = [&] { return empty_as(x, {0}, MemoryFormat::Contiguous); };
  Gradients out{none(), none(), none(), none(), none(), none()};

  // dz, and the sums for bias, demodulation and noise, in one pass.
  Tensor dz = empty_as(x, sizes_of(y), MemoryFormat::ChannelsLast);
  {
    const Tensor g = as_format(dy, MemoryFormat::ChannelsLast),
                 v = as_format(y, MemoryFormat::ChannelsLast);
    OptionalTensor map;
    if (noise) map = as_format(*noise, MemoryFormat::Contiguous);
    const T* noise_data = map ? data_of<T>(*map) : nullptr;
    const int64_t noise_step = map && map->size(0) > 1 ? pixels : 0;
    const bool need_noise = noise && needs & kNoise;
    const int64_t times = !noise && o < kLanes ? kLanes : 1;
    const std::vector<A> d = repeat(read<T, A>(demod, n * o, A(1)), o, times);
    const std::vector<A> b = repeat(read<T, A>(bias, o, A(0)), o, times);
    const Blocks blocks(n, pixels, o);
    std::vector<A> sum_b(blocks.count() * o * times, A(0)), sum_d(blocks.count() * o * times, A(0));
    std::vector<A> dnoise(need_noise ? n * pixels : 0);
    const T *from = data_of<T>(g), *value = data_of<T>(v);
    T* to = data_of<T>(dz);
    blocks.run([&](int64_t i, int64_t first, int64_t count, int64_t block) {
      const int64_t offset = (i * pixels + first) * o;
      const T* shift = noise_data ? noise_data + i * noise_step + first : nullptr;
      A* total_noise = need_noise ? dnoise.data() + i * pixels + first : nullptr;
      A *part_b = sum_b.data() + block * o * times, *part_d = sum_d.data() + block * o * times;
      const A* scale = d.data() + i * o * times;
      auto run = [&](int64_t at, int64_t many, int64_t lanes) {
        modconv::finish_backward<T, A>(from + at, value + at, shift, scale, b.data(), to + at,
                                       part_b, part_d, total_noise, many, lanes, slopes);
      };
      run(offset, count / times, o * times);
      const int64_t rest = count % times;
      if (rest) run(offset + (count - rest) * o, 1, rest * o);
    });
    if (bias && needs & kBias) {
      const std::vector<double> each = total(blocks, sum_b, o, times);
      std::vector<double> all(o, 0.0);
      for (int64_t i = 0; i < n * o; ++i) all[i % o] += each[i];
      std::get<5>(out) = write<T>(x, {o}, all);
    }
    if (demod && needs & kDemod) {
      std::vector<double> each = total(blocks, sum_d, o, times);
      const std::vector<double> scale = read<T, double>(demod, n * o, 1.0);
      for (int64_t i = 0; i < n * o; ++i) each[i] /= scale[i];
      std::get<3>(out) = write<T>(x, {n, o}, each);
    }
    if (need_noise) {
      const int64_t maps = noise->size(0);
      Tensor all = empty_as(x, sizes_of(*noise), MemoryFormat::Contiguous);
      T* data = data_of<T>(all);
      for (int64_t p = 0; p < maps * pixels; ++p) {
        A sum = 0;
        for (int64_t i = p / pixels; i < n; i += maps) sum += dnoise[i * pixels + p % pixels];
        data[p] = static_cast<T>(sum);
      }
      std::get<4>(out) = all;
    }
  }
  if (!(needs & (kX | kStyles | kWeight))) return out;

  const bool need_x = needs & (kX | kStyles), need_weight = needs & kWeight;
  const Tensor input = as_format(x, MemoryFormat::ChannelsLast);
  auto u = packed_if_faster("packed_back", packed_back, dz, weight, steps, in);
  if (u && !need_weight) {
    const Tensor dx = empty_as(x, sizes_of(x), MemoryFormat::ChannelsLast);
    conv3x3::run(conv3x3::job_of(dz, *u, dx));
    dz = dx;
  } else {
    const Tensor entry = need_weight ? modulated<T>(x, styles) : input;
    MapGradients through =
        map_backward(steps, std::move(dz), entry, weight, f, need_x, need_weight);
    if (need_weight) std::get<1>(out) = through.weight;
    if (!need_x) return out;
    dz = std::move(through.x);
  }

  const std::vector<A> s = read<T, A>(styles, n * in, A(1));
  const int64_t area = x.size(2) * x.size(3);
  const Blocks blocks(n, area, in);
  std::vector<A> sum_s(blocks.count() * in, A(0));
  T* g = data_of<T>(dz);
  const T* v = data_of<T>(input);
  blocks.run([&](int64_t i, int64_t first, int64_t count, int64_t block) {
    const int64_t offset = (i * area + first) * in;
    modconv::modulate_backward<T, A>(g + offset, v + offset, s.data() + i * in,
                                     sum_s.data() + block * in, count, in);
  });
  if (needs & kX) std::get<0>(out) = dz;
  if (needs & kStyles) std::get<2>(out) = write<T>(x, {n, in}, total(blocks, sum_s, in, 1));
  return out;
}

Tensor modulated_conv2d_cpu(const Tensor& x, const Tensor& weight, const Tensor& styles,
                            OptionalTensor demod, OptionalTensor noise, OptionalTensor bias,
                            OptionalTensor f, int64_t up, int64_t down, int64_t padding,
                            bool flip_weight, std::string act, double alpha, double gain,
                            double clamp, OptionalTensor packed) {
  check_inputs(x, weight, styles, demod, noise, bias, gain);
  const std::vector<ResampleStep> steps = resample_steps(weight, f, up, down, padding, flip_weight);
  Tensor y;
  dispatch_float(kOp, x, [&]<class T>() {
    const modconv::Slopes<accumulate_t<T>> slopes(act_slope(act, alpha), gain, clamp);
    y = forward<T>(x, weight, styles, demod, noise, bias, f, steps, slopes, packed);
  });
  return y;
}

Gradients modulated_conv2d_backward_cpu(const Tensor& dy, const Tensor& y, const Tensor& x,
                                        const Tensor& weight, const Tensor& styles,
                                        OptionalTensor demod, OptionalTensor noise,
                                        OptionalTensor bias, OptionalTensor f, int64_t up,
                                        int64_t down, int64_t padding, bool flip_weight,
                                        std::string act, double alpha, double gain, double clamp,
                                        int64_t needs, OptionalTensor packed_back) {
  check_inputs(x, weight, styles, demod, noise, bias, gain);
  check_gradient(dy, y, x);
  check_noise(noise, x.size(0), y.size(2), y.size(3));
  const std::vector<ResampleStep> steps = resample_steps(weight, f, up, down, padding, flip_weight);
  std::optional<Gradients> out;
  dispatch_float(kOp, x, [&]<class T>() {
    const modconv::Slopes<accumulate_t<T>> slopes(act_slope(act, alpha), gain, clamp);
    out = backward<T>(dy, y, x, weight, styles, demod, noise, bias, f, steps, slopes, needs,
                      packed_back);
  });
  return *out;
}

}  // namespace

}  // namespace pyfacelat

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("modulated_conv2d", TORCH_BOX(&pyfacelat::modulated_conv2d_cpu));
  m.impl("modulated_conv2d_backward", TORCH_BOX(&pyfacelat::modulated_conv2d_backward_cpu));
}
