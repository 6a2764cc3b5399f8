// CPU implementation of pyfacelat::heatmap_loss (schema, formulas: pyfacelat/ops/heatmap_loss.py).
//
// One pass over the maps: direction out, and the sum of each landmark. In NCHW a block is one map,
// in NHWC some rows of an image with one sum a landmark; blocks are added in order, so that threads
// do not change a bit. The target of points is made row by row, in cache.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/convert.h"
#include "common/dispatch.h"
#include "common/layout.h"
#include "common/simd.h"

namespace pyfacelat::heatmap_loss {
namespace {

constexpr const char* kOp = "heatmap_loss";
constexpr double kTiny = 1e-16, kEps = 1e-8;  // as in heatmap_loss.py
constexpr int64_t kBlock = 1 << 14;           // elements of a block in NHWC
constexpr int64_t kGrain = 1 << 15;           // elements a thread should have at least

enum class Reduction { kL2, kL1, kMse, kPerLandmark };
constexpr const char* kNames[] = {"l2", "l1", "mse", "per_landmark"};

Reduction parse(const std::string& name) {
  for (int i = 0; i < 4; ++i)
    if (name == kNames[i]) return static_cast<Reduction>(i);
  fail(kOp, "reduction", "expected l2, l1, mse or per_landmark, got '", name, "'");
}

// d = a - t; returns the sum of its squares.
template <class A>
PYFACELAT_CLONES A squared(const A* __restrict__ a, const A* __restrict__ t, A* __restrict__ d,
                           int64_t n) {
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) {
    const A apart = a[i] - t[i];
    d[i] = apart;
    total += apart * apart;
  }
  return total;
}

// d = sign(a - t); returns the sum of |a - t|.
template <class A>
PYFACELAT_CLONES A absolute(const A* __restrict__ a, const A* __restrict__ t, A* __restrict__ d,
                            int64_t n) {
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) {
    const A apart = a[i] - t[i];
    d[i] = static_cast<A>(apart > A(0)) - static_cast<A>(apart < A(0));
    total += std::abs(apart);
  }
  return total;
}

// The same for `pixels` pixels of k numbers each, with a total a number.
template <class A>
PYFACELAT_CLONES void squared_each(const A* __restrict__ a, const A* __restrict__ t,
                                   A* __restrict__ d, A* __restrict__ totals, int64_t pixels,
                                   int64_t k) {
  for (int64_t p = 0; p < pixels * k; p += k)
    for (int64_t i = 0; i < k; ++i) {
      const A apart = a[p + i] - t[p + i];
      d[p + i] = apart;
      totals[i] += apart * apart;
    }
}

template <class A>
PYFACELAT_CLONES void absolute_each(const A* __restrict__ a, const A* __restrict__ t,
                                    A* __restrict__ d, A* __restrict__ totals, int64_t pixels,
                                    int64_t k) {
  for (int64_t p = 0; p < pixels * k; p += k)
    for (int64_t i = 0; i < k; ++i) {
      const A apart = a[p + i] - t[p + i];
      d[p + i] = static_cast<A>(apart > A(0)) - static_cast<A>(apart < A(0));
      totals[i] += std::abs(apart);
    }
}

// y[i] = x[i] * f[i * kStep]: with kStep 0 all by one factor.
template <class A, int kStep>
PYFACELAT_CLONES void product(const A* __restrict__ x, const A* __restrict__ f, A* __restrict__ y,
                              int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * f[i * kStep];
}

template <class T>
struct Call {
  using A = accumulate_t<T>;
  const T* maps;
  const A* target;  // maps, or points
  const A* weights;
  T* direction;
  A *value, *scale;
  int64_t n, k, h, w;
  bool shared_target, shared_weights, points;
  Reduction reduction;
  double sigma;

  int64_t pixels() const { return h * w; }
  int64_t target_image(int64_t i) const { return shared_target ? 0 : i; }
};

// exp(-(centre - position)^2 / (2 sigma^2)) for each cell along an axis.
template <class A>
void gaussian(A position, int64_t cells, double sigma, A* out, int64_t step) {
  const A centre = position * static_cast<A>(cells);
  for (int64_t i = 0; i < cells; ++i) {
    const A apart = static_cast<A>(i) + A(0.5) - centre;
    out[i * step] = std::exp(-(apart * apart) / static_cast<A>(2 * sigma * sigma));
  }
}

// Widens `n` numbers where T is a 16-bit type, and hands over float buffers for both sides; narrows
// the direction afterwards.
template <class T, class F>
void in_float(const T* a, T* d, int64_t n, std::vector<accumulate_t<T>>& buffer, const F& f) {
  if constexpr (std::is_same_v<T, accumulate_t<T>>) {
    f(a, d);
  } else {
    buffer.resize(2 * n);
    widen<T>(reinterpret_cast<const uint16_t*>(a), buffer.data(), n);
    f(static_cast<const float*>(buffer.data()), buffer.data() + n);
    narrow<T>(buffer.data() + n, reinterpret_cast<uint16_t*>(d), n);
  }
}

template <class T>
void run_maps(const Call<T>& c, std::vector<double>& sums) {
  using A = accumulate_t<T>;
  const int64_t size = c.pixels();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(size, 1));
  torch::stable::parallel_for(0, c.n * c.k, grain, [&](int64_t begin, int64_t end) {
    std::vector<A> drawn, buffer, along(c.h + c.w);
    if (c.points) drawn.resize(size);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = c.target_image(i / c.k) * c.k + i % c.k;
      const A* t = c.target + at * size;
      if (c.points) {
        gaussian<A>(c.target[2 * at], c.w, c.sigma, along.data(), 1);
        gaussian<A>(c.target[2 * at + 1], c.h, c.sigma, along.data() + c.w, 1);
        for (int64_t y = 0; y < c.h; ++y)
          product<A, 0>(along.data(), along.data() + c.w + y, drawn.data() + y * c.w, c.w);
        t = drawn.data();
      }
      in_float<T>(c.maps + i * size, c.direction + i * size, size, buffer, [&](const A* a, A* d) {
        sums[i] =
            c.reduction == Reduction::kL1 ? absolute<A>(a, t, d, size) : squared<A>(a, t, d, size);
      });
    }
  });
}

template <class T>
void run_pixels(const Call<T>& c, std::vector<double>& sums) {
  using A = accumulate_t<T>;
  const int64_t row = c.w * c.k;
  const int64_t rows = std::max<int64_t>(1, kBlock / std::max<int64_t>(row, 1));
  const int64_t per_image = (c.h + rows - 1) / rows;
  std::vector<A> parts(c.n * per_image * c.k, A(0));
  std::vector<A> across, along;  // of the points: [image][cell][landmark]
  if (c.points) {
    const int64_t images = c.shared_target ? 1 : c.n;
    across.resize(images * c.w * c.k);
    along.resize(images * c.h * c.k);
    for (int64_t i = 0; i < images * c.k; ++i) {
      const int64_t n = i / c.k, k = i % c.k;
      gaussian<A>(c.target[2 * i], c.w, c.sigma, across.data() + n * c.w * c.k + k, c.k);
      gaussian<A>(c.target[2 * i + 1], c.h, c.sigma, along.data() + n * c.h * c.k + k, c.k);
    }
  }
  torch::stable::parallel_for(
      0, c.n * per_image, std::max<int64_t>(1, kGrain / kBlock), [&](int64_t begin, int64_t end) {
        std::vector<A> drawn, buffer;
        if (c.points) drawn.resize(row);
        for (int64_t i = begin; i < end; ++i) {
          const int64_t n = i / per_image, first = i % per_image * rows;
          const int64_t image = c.target_image(n);
          A* totals = parts.data() + i * c.k;
          for (int64_t y = first; y < std::min(first + rows, c.h); ++y) {
            const int64_t offset = (n * c.h + y) * row;
            const A* t = c.target + (image * c.h + y) * row;
            if (c.points) {
              const A* factors = along.data() + (image * c.h + y) * c.k;
              for (int64_t x = 0; x < c.w; ++x)
                product<A, 1>(across.data() + (image * c.w + x) * c.k, factors,
                              drawn.data() + x * c.k, c.k);
              t = drawn.data();
            }
            in_float<T>(c.maps + offset, c.direction + offset, row, buffer, [&](const A* a, A* d) {
              c.reduction == Reduction::kL1 ? absolute_each<A>(a, t, d, totals, c.w, c.k)
                                            : squared_each<A>(a, t, d, totals, c.w, c.k);
            });
          }
        }
      });
  for (int64_t i = 0; i < c.n * per_image; ++i)
    for (int64_t k = 0; k < c.k; ++k) sums[i / per_image * c.k + k] += double(parts[i * c.k + k]);
}

// The value of one image and what each landmark's direction is multiplied by.
template <class T>
void finish(const Call<T>& c, int64_t n, const double* sums) {
  using A = accumulate_t<T>;
  const A* w = c.weights + (c.shared_weights ? 0 : n * c.k);
  A* scale = c.scale + n * c.k;
  double value = 0, total = 0;
  for (int64_t k = 0; k < c.k; ++k) total += w[k];
  total = std::max(total, kEps);
  const double cells = static_cast<double>(c.pixels());
  for (int64_t k = 0; k < c.k; ++k) {
    const double weight = w[k], norm = std::sqrt(sums[k] + kEps);
    switch (c.reduction) {
      case Reduction::kL2:
        value += weight * weight * sums[k];
        break;
      case Reduction::kL1:
        value += weight * sums[k];
        scale[k] = w[k];
        break;
      case Reduction::kMse:
        value += weight * sums[k] / (cells * c.k);
        scale[k] = static_cast<A>(2 * weight / (cells * c.k));
        break;
      case Reduction::kPerLandmark:
        value += weight * norm / total;
        scale[k] = static_cast<A>(weight / (norm * total));
        break;
    }
  }
  if (c.reduction == Reduction::kL2) {
    const bool near = value < kTiny;
    value = std::sqrt(std::max(value, kTiny));
    for (int64_t k = 0; k < c.k; ++k)
      scale[k] = near ? A(0) : static_cast<A>(double(w[k]) * w[k] / value);
  }
  c.value[n] = static_cast<A>(value);
}

std::tuple<Tensor, Tensor, Tensor> heatmap_loss_cpu(const Tensor& maps, const Tensor& target,
                                                    const Tensor& weights,
                                                    const std::string& reduction, double sigma) {
  check_dim(kOp, "maps", maps, 4);
  const bool points = target.dim() == 3;
  std::vector<int64_t> expected = sizes_of(maps);
  if (points) expected = {maps.size(0), maps.size(1), 2};
  if (target.dim() > 0 && target.size(0) == 1) expected[0] = 1;
  check(sizes_of(target) == expected, kOp, "target", "expected heat maps like ", shape_text(maps),
        " or points [N,K,2], got ", shape_text(target));
  check(weights.dim() == 2 && (weights.size(0) == 1 || weights.size(0) == maps.size(0)) &&
            weights.size(1) == maps.size(1),
        kOp, "weights", "expected one number a landmark of ", shape_text(maps), ", got ",
        shape_text(weights));
  const ScalarType wide =
      maps.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const Tensor* t : {&target, &weights})
    check(t->scalar_type() == wide, kOp, t == &target ? "target" : "weights", "expected ",
          torch::headeronly::toString(wide), ", got ",
          torch::headeronly::toString(t->scalar_type()));
  const Reduction kind = parse(reduction);

  const bool last = is_channels_last(maps);
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const Tensor from = as_format(maps, format);
  const Tensor to = as_format(target, points ? MemoryFormat::Contiguous : format);
  const Tensor shares = as_format(weights, MemoryFormat::Contiguous);
  const int64_t n = maps.size(0), k = maps.size(1);
  const auto empty = [&](const std::vector<int64_t>& sizes) {
    return torch::stable::empty(
        torch::headeronly::IntHeaderOnlyArrayRef(sizes.data(), sizes.size()), wide, std::nullopt,
        maps.device(), std::nullopt, MemoryFormat::Contiguous);
  };
  Tensor value = empty({n}), scale = empty({n, k});
  Tensor direction = empty_as(maps, sizes_of(maps), format);
  dispatch_float(kOp, maps, [&]<class T>() {
    using A = accumulate_t<T>;
    const Call<T> call{static_cast<const T*>(from.const_data_ptr()),
                       static_cast<const A*>(to.const_data_ptr()),
                       static_cast<const A*>(shares.const_data_ptr()),
                       static_cast<T*>(direction.mutable_data_ptr()),
                       static_cast<A*>(value.mutable_data_ptr()),
                       static_cast<A*>(scale.mutable_data_ptr()),
                       n,
                       k,
                       maps.size(2),
                       maps.size(3),
                       target.size(0) == 1,
                       weights.size(0) == 1,
                       points,
                       kind,
                       sigma};
    std::vector<double> sums(n * k, 0.0);
    if (last) {
      run_pixels<T>(call, sums);
    } else {
      run_maps<T>(call, sums);
    }
    for (int64_t i = 0; i < n; ++i) finish<T>(call, i, sums.data() + i * k);
  });
  return {value, scale, direction};
}

}  // namespace
}  // namespace pyfacelat::heatmap_loss

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("heatmap_loss", TORCH_BOX(&pyfacelat::heatmap_loss::heatmap_loss_cpu));
}
