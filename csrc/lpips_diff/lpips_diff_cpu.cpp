// CPU implementation of pyfacelat::lpips_unit and lpips_diff (schema, formulas:
// pyfacelat/ops/lpips_diff.py).
//
// Blocks of pixels of a size that depends on the shape alone, each read once from memory; their
// values are added in order: threads do not change a bit. The 16-bit types are widened block by
// block.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>
#include <type_traits>

#include "common/convert.h"
#include "common/dispatch.h"
#include "common/layout.h"
#include "lpips_diff/lpips_diff.h"

namespace pyfacelat::lpips_diff {
namespace {

// Elements of a block: three operands of float are 192 KB, in the second cache.
constexpr int64_t kBlock = 1 << 14;
constexpr int64_t kGrain = 2;
// Pixels of a block in NCHW: shorter rows would not fill vectors, longer ones leave the caches.
constexpr int64_t kShortest = 64;

// How x's pixels are cut into blocks.
struct Blocks {
  int64_t count, pixels, channels, size, per_image;
  bool last;

  Blocks(const Tensor& x, bool last)
      : count(x.size(0)),
        pixels(x.size(2) * x.size(3)),
        channels(x.size(1)),
        size(std::max<int64_t>(last ? 1 : kShortest, kBlock / std::max<int64_t>(channels, 1))),
        per_image((pixels + size - 1) / size),
        last(last) {}

  // f(image, block, first pixel, offset of its first element, shape)
  template <class F>
  void run(const F& f) const {
    torch::stable::parallel_for(0, count * per_image, kGrain, [&](int64_t begin, int64_t end) {
      auto body = f();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / per_image, first = i % per_image * size;
        const Shape shape{std::min(size, pixels - first), channels, last ? channels : 1,
                          last ? 1 : pixels};
        body(n, i, first, n * pixels * channels + first * shape.pixel_step, shape);
      }
    });
  }
};

// The block as 16-bit numbers lie in memory: calls f(offset in memory, offset in a dense copy,
// length) for every stretch.
template <class F>
void stretches(const Shape& p, const F& f) {
  if (p.channel_step == 1) return f(int64_t(0), int64_t(0), p.pixels * p.channels);
  for (int64_t c = 0; c < p.channels; ++c) f(c * p.channel_step, c * p.pixels, p.pixels);
}

// The dense copy's shape.
Shape dense(const Shape& p) {
  return p.channel_step == 1 ? p : Shape{p.pixels, p.channels, 1, p.pixels};
}

template <class T>
void widen_block(const T* x, std::vector<float>& out, const Shape& p) {
  out.resize(p.pixels * p.channels);
  stretches(p, [&](int64_t from, int64_t to, int64_t n) {
    widen<T>(reinterpret_cast<const uint16_t*>(x) + from, out.data() + to, n);
  });
}

template <class T>
void run_unit(const T* x, accumulate_t<T>* u, const Blocks& blocks) {
  using A = accumulate_t<T>;
  blocks.run([&] {
    return [=, scratch = Scratch<A>(), wide = std::vector<A>()](
               int64_t, int64_t, int64_t, int64_t offset, const Shape& p) mutable {
      const int64_t step = p.channel_step == 1 ? p.pixel_step : p.channel_step;
      if constexpr (std::is_same_v<T, A>) {
        unit_block<A>(x + offset, u + offset, step, p, scratch);
      } else {
        widen_block<T>(x + offset, wide, p);
        unit_block<A>(wide.data(), u + offset, step, dense(p), scratch);
      }
    };
  });
}

template <class T>
struct Operands {
  using A = accumulate_t<T>;
  const T* x;
  const A *target, *lin, *weights;      // weights may be null
  int64_t target_image, weights_image;  // from an image to the next; 0: one for all
  T* gradient;
  A* value;
};

template <class T>
void run_diff(const Operands<T>& o, const Blocks& blocks) {
  using A = accumulate_t<T>;
  const A even = A(1) / static_cast<A>(std::max<int64_t>(blocks.pixels, 1));
  std::vector<double> parts(blocks.count * blocks.per_image);
  double* sums = parts.data();
  blocks.run([&] {
    return [=, scratch = Scratch<A>(), wide = std::vector<A>(), slopes = std::vector<A>()](
               int64_t n, int64_t block, int64_t first, int64_t offset, const Shape& p) mutable {
      const int64_t step = p.channel_step == 1 ? p.pixel_step : p.channel_step;
      const A* t = o.target + n * o.target_image + first * p.pixel_step;
      const A* m = o.weights ? o.weights + n * o.weights_image + first : nullptr;
      if constexpr (std::is_same_v<T, A>) {
        sums[block] = compare_block<A>(o.x + offset, t, step, o.lin, m, even, o.gradient + offset,
                                       p, scratch);
      } else {
        widen_block<T>(o.x + offset, wide, p);
        slopes.resize(wide.size());
        sums[block] = compare_block<A>(wide.data(), t, step, o.lin, m, even, slopes.data(),
                                       dense(p), scratch);
        stretches(p, [&](int64_t to, int64_t from, int64_t length) {
          narrow<T>(slopes.data() + from, reinterpret_cast<uint16_t*>(o.gradient + offset) + to,
                    length);
        });
      }
    };
  });
  for (int64_t n = 0; n < blocks.count; ++n) {
    double total = 0;
    for (int64_t i = 0; i < blocks.per_image; ++i) total += parts[n * blocks.per_image + i];
    o.value[n] = static_cast<A>(total);
  }
}

ScalarType accumulated(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Tensor empty_wide(const Tensor& x, const std::vector<int64_t>& sizes, MemoryFormat format) {
  return torch::stable::empty(torch::headeronly::IntHeaderOnlyArrayRef(sizes.data(), sizes.size()),
                              accumulated(x), std::nullopt, x.device(), std::nullopt, format);
}

Tensor lpips_unit_cpu(const Tensor& x) {
  check_dim("lpips_unit", "x", x, 4);
  const bool last = is_channels_last(x);
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const Tensor from = as_format(x, format);
  Tensor u = empty_wide(x, sizes_of(x), format);
  if (x.numel() == 0) return u;
  dispatch_float("lpips_unit", x, [&]<class T>() {
    run_unit<T>(static_cast<const T*>(from.const_data_ptr()),
                static_cast<accumulate_t<T>*>(u.mutable_data_ptr()), Blocks(x, last));
  });
  return u;
}

std::tuple<Tensor, Tensor> lpips_diff_cpu(const Tensor& x, const Tensor& target, const Tensor& lin,
                                          const std::optional<Tensor>& weights) {
  const char* op = "lpips_diff";
  check_dim(op, "x", x, 4);
  check_dim(op, "target", target, 4);
  const auto wide = [&](const char* name, const Tensor& t) {
    check(t.scalar_type() == accumulated(x), op, name, "expected ",
          torch::headeronly::toString(accumulated(x)), ", got ",
          torch::headeronly::toString(t.scalar_type()));
  };
  wide("target", target);
  wide("lin", lin);
  std::vector<int64_t> expected = sizes_of(x);
  if (target.size(0) == 1) expected[0] = 1;
  check(sizes_of(target) == expected, op, "target", "expected the shape of x, ", shape_text(x),
        ", or one image of it, got ", shape_text(target));
  check(lin.dim() == 1 && lin.size(0) == x.size(1), op, "lin", "expected shape [", x.size(1),
        "], got ", shape_text(lin));
  if (weights) {
    wide("weights", *weights);
    check(weights->dim() == 3 && (weights->size(0) == 1 || weights->size(0) == x.size(0)) &&
              weights->size(1) == x.size(2) && weights->size(2) == x.size(3),
          op, "weights", "expected one number a pixel of ", shape_text(x), ", got ",
          shape_text(*weights));
  }
  const bool last = is_channels_last(x);
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const Tensor from = as_format(x, format), to = as_format(target, format);
  const Tensor lins = as_format(lin, MemoryFormat::Contiguous);
  std::optional<Tensor> shares;
  if (weights) shares = as_format(*weights, MemoryFormat::Contiguous);
  Tensor gradient = empty_as(x, sizes_of(x), format);
  Tensor value = empty_wide(x, {x.size(0)}, MemoryFormat::Contiguous);
  if (x.size(0) == 0) return {value, gradient};
  dispatch_float(op, x, [&]<class T>() {
    using A = accumulate_t<T>;
    const Blocks blocks(x, last);
    run_diff<T>(
        {static_cast<const T*>(from.const_data_ptr()), static_cast<const A*>(to.const_data_ptr()),
         static_cast<const A*>(lins.const_data_ptr()),
         shares ? static_cast<const A*>(shares->const_data_ptr()) : nullptr,
         to.size(0) == 1 ? 0 : blocks.pixels * blocks.channels,
         shares && shares->size(0) > 1 ? blocks.pixels : 0,
         static_cast<T*>(gradient.mutable_data_ptr()), static_cast<A*>(value.mutable_data_ptr())},
        blocks);
  });
  return {value, gradient};
}

}  // namespace
}  // namespace pyfacelat::lpips_diff

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("lpips_unit", TORCH_BOX(&pyfacelat::lpips_diff::lpips_unit_cpu));
  m.impl("lpips_diff", TORCH_BOX(&pyfacelat::lpips_diff::lpips_diff_cpu));
}
