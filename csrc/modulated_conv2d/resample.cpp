#include "modulated_conv2d/resample.h"

#include <array>
#include <utility>

#include "common/layout.h"
#include "upfirdn2d/upfirdn2d.h"

namespace pyfacelat {

namespace {

using torch::stable::detail::from;

// Maps below this many output pixels convolve faster in NCHW: torch leaves most of them to a GEMM,
// whose NHWC form copies the weights (512 channels at 8x8 on one core: 4 ms against 16 ms; from
// 32x32 on NHWC wins, 1.7 times at 64 channels and 256x256). Tensor cores want NHWC throughout.
constexpr int64_t kSmallMap = 20 * 20;

MemoryFormat conv_format(const Tensor& x, int64_t pixels) {
  const bool small = !x.is_cuda() && x.size(0) * pixels < kSmallMap;
  return small ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast;
}

Tensor flip_taps(const Tensor& w) {
  const std::vector<int64_t> dims = {2, 3};
  std::array<StableIValue, 2> stack{from(w), from(dims)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::flip", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

struct MapSize {
  int64_t h, w;
};

MapSize filter_size(const std::optional<Tensor>& f) {
  return {f ? f->size(0) : 1, f ? f->size(f->dim() - 1) : 1};
}

Tensor ones_like_filter(const Tensor& x) {
  const std::array<int64_t, 2> size{1, 1};
  return torch::stable::full({size.data(), 2}, 1.0, x.scalar_type(), std::nullopt, x.device());
}

// The op of that name, on whatever device x is.
Tensor call_upfirdn2d(const Tensor& x, const std::optional<Tensor>& f, int64_t up, int64_t down,
                      const std::vector<int64_t>& pad, bool flip, double gain) {
  std::array<StableIValue, 7> stack{
      from(x),   from(f ? *f : ones_like_filter(x)), from(up), from(down), from(pad), from(flip),
      from(gain)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("pyfacelat::upfirdn2d", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Size of the step's output for an input of the given size.
MapSize step_size(const ResampleStep& step, MapSize input, const Tensor& weight,
                  const std::optional<Tensor>& f) {
  if (step.fir) {
    const MapSize taps = filter_size(f);
    return {output_size(input.h, step.up, step.down, step.pad[2], step.pad[3], taps.h),
            output_size(input.w, step.up, step.down, step.pad[0], step.pad[1], taps.w)};
  }
  const int64_t kh = weight.size(2),
                kw = weight.size(3);  // the same for either order of its channels
  if (step.transposed) return {(input.h - 1) * step.stride + kh, (input.w - 1) * step.stride + kw};
  return {output_size(input.h, 1, step.stride, step.pad[0], step.pad[0], kh),
          output_size(input.w, 1, step.stride, step.pad[1], step.pad[1], kw)};
}

// Gradients of one convolution step; `kernel` from step_kernel.
MapGradients convolve_backward(const ResampleStep& step, const Tensor& dy, const Tensor& x,
                               const Tensor& kernel, bool need_x, bool need_weight) {
  const MemoryFormat format = conv_format(dy, dy.size(2) * dy.size(3));
  const std::vector<int64_t> stride = {step.stride, step.stride}, one = {1, 1}, zero = {0, 0};
  const std::array<bool, 3> mask{need_x, need_weight, false};
  std::array<StableIValue, 11> stack{
      from(as_format(dy, format)),
      from(as_format(x, format)),
      from(kernel),
      from(std::nullopt),
      from(stride),
      from(step.pad),
      from(one),
      from(step.transposed),
      from(zero),
      from(int64_t{1}),
      from(torch::headeronly::HeaderOnlyArrayRef<bool>(mask.data(), 3))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::convolution_backward", "", stack.data(), TORCH_ABI_VERSION));
  MapGradients out{torch::stable::detail::to<Tensor>(stack[0]),
                   torch::stable::detail::to<Tensor>(stack[1])};
  torch::stable::detail::to<Tensor>(stack[2]);  // takes the undefined bias gradient off the stack
  if (need_weight) {
    if (step.transposed) out.weight = torch::stable::transpose(out.weight, 0, 1);
    if (step.flip) out.weight = flip_taps(out.weight);
    out.weight = as_format(out.weight, MemoryFormat::Contiguous);
  }
  return out;
}

// The transpose of a FIR step takes dy back to the size of the step's input.
Tensor filter_transposed(const ResampleStep& step, const Tensor& dy, const std::optional<Tensor>& f,
                         MapSize input) {
  const MapSize taps = filter_size(f);
  const std::vector<int64_t> pad = {
      taps.w - 1 - step.pad[0], (input.w - 1) * step.up + 1 - dy.size(3) * step.down + step.pad[0],
      taps.h - 1 - step.pad[2], (input.h - 1) * step.up + 1 - dy.size(2) * step.down + step.pad[2]};
  return call_upfirdn2d(dy, f, step.down, step.up, pad, true, step.gain);
}

}  // namespace

std::vector<ResampleStep> resample_steps(const Tensor& weight, const std::optional<Tensor>& f,
                                         int64_t up, int64_t down, int64_t padding,
                                         bool flip_weight) {
  const int64_t kh = weight.size(2), kw = weight.size(3);
  const auto [fh, fw] = filter_size(f);
  int64_t left = padding, right = padding, top = padding, bottom = padding;
  if (up > 1) {
    left += (fw + up - 1) / 2;
    right += (fw - up) / 2 - ((fw - up) % 2 < 0);  // rounds down, as Python does
    top += (fh + up - 1) / 2;
    bottom += (fh - up) / 2 - ((fh - up) % 2 < 0);
  }
  if (down > 1) {
    left += (fw - down + 1) / 2 - ((fw - down + 1) % 2 < 0);
    right += (fw - down) / 2 - ((fw - down) % 2 < 0);
    top += (fh - down + 1) / 2 - ((fh - down + 1) % 2 < 0);
    bottom += (fh - down) / 2 - ((fh - down) % 2 < 0);
  }
  const ResampleStep conv{.fir = false, .pad = {0, 0}, .flip = !flip_weight};
  auto fir = [](int64_t u, int64_t d, std::vector<int64_t> pad, double gain) {
    return ResampleStep{.fir = true, .up = u, .down = d, .pad = std::move(pad), .gain = gain};
  };
  if (up == 1 && down == 1) {  // no filter here, so all four paddings are equal
    ResampleStep step = conv;
    step.pad = {top, left};
    return {step};
  }
  const bool point = kh == 1 && kw == 1;
  if (up == 1) {
    if (point) return {fir(1, down, {left, right, top, bottom}, 1), conv};
    ResampleStep strided = conv;
    strided.stride = down;
    return {fir(1, 1, {left, right, top, bottom}, 1), strided};
  }
  const double gain = static_cast<double>(up * up);
  std::vector<ResampleStep> steps;
  if (point) {
    steps = {conv, fir(up, 1, {left, right, top, bottom}, gain)};
  } else {
    const ResampleStep spread{
        .fir = false, .pad = {0, 0}, .stride = up, .transposed = true, .flip = flip_weight};
    steps = {
        spread,
        fir(1, 1, {left - (kw - 1), right - (kw - up), top - (kh - 1), bottom - (kh - up)}, gain)};
  }
  if (down > 1) steps.push_back(fir(1, down, {0, 0, 0, 0}, 1));
  return steps;
}

Tensor step_kernel(const ResampleStep& step, const Tensor& weight) {
  const Tensor w = step.flip ? flip_taps(weight) : weight;
  return step.transposed ? torch::stable::transpose(w, 0, 1) : w;
}

Tensor convolve(const ResampleStep& step, const Tensor& x, const Tensor& kernel) {
  const MapSize out = step_size(step, {x.size(2), x.size(3)}, kernel, std::nullopt);
  const std::vector<int64_t> stride = {step.stride, step.stride}, one = {1, 1}, zero = {0, 0};
  std::array<StableIValue, 9> stack{from(as_format(x, conv_format(x, out.h * out.w))),
                                    from(kernel),
                                    from(std::nullopt),
                                    from(stride),
                                    from(step.pad),
                                    from(one),
                                    from(step.transposed),
                                    from(zero),
                                    from(int64_t{1})};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

Tensor filter(const ResampleStep& step, const Tensor& x, const std::optional<Tensor>& f) {
  return call_upfirdn2d(x, f, step.up, step.down, step.pad, false, step.gain);
}

MapGradients map_backward(const std::vector<ResampleStep>& steps, Tensor dy, const Tensor& input,
                          const Tensor& weight, const std::optional<Tensor>& f, bool need_x,
                          bool need_weight) {
  // Last step first. A FIR step needs the size of its input, the convolution its input: filters
  // stand before it when downsampling only.
  std::vector<MapSize> sizes = {{input.size(2), input.size(3)}};
  for (const ResampleStep& step : steps) sizes.push_back(step_size(step, sizes.back(), weight, f));
  Tensor entry = input;
  for (size_t i = 0; steps[i].fir; ++i) entry = filter(steps[i], entry, f);
  MapGradients out{std::move(dy), {}};
  for (size_t i = steps.size(); i-- > 0;) {
    if (steps[i].fir) {
      out.x = filter_transposed(steps[i], out.x, f, sizes[i]);
      continue;
    }
    MapGradients g = convolve_backward(steps[i], out.x, entry, step_kernel(steps[i], weight),
                                       need_x, need_weight);
    out.weight = g.weight;
    if (!need_x) break;
    out.x = as_format(g.x, MemoryFormat::ChannelsLast);
  }
  return out;
}

}  // namespace pyfacelat
