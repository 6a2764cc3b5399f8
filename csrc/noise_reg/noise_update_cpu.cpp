// CPU implementation of pyfacelat::noise_update (schema, formula: pyfacelat/ops/noise_reg.py).
//
// Two passes over memory: Adam together with the mean and the spread of every block while it is in
// cache; then, with the blocks' statistics merged in order, mean 0 and RMS 1.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "common/check.h"
#include "common/layout.h"
#include "common/simd.h"

namespace pyfacelat::noise_reg {
namespace {

constexpr const char* kOp = "noise_update";
constexpr int64_t kBlock = 4096;  // elements: five arrays of float are 80 KB, in the second cache
constexpr int64_t kGrain = 4;

template <class T>
struct Adam {
  T rate, correction1, correction2, factor;
  T rest1, beta2, rest2, eps;  // rest = 1 - beta, taken before rounding to T
};

// regular may be null.
template <class T>
PYFACELAT_CLONES void adam(T* __restrict__ x, T* __restrict__ first, T* __restrict__ second,
                           const T* __restrict__ gradient, const T* __restrict__ regular, Adam<T> p,
                           int64_t n) {
  const T rate = p.rate / p.correction1, correction2 = p.correction2, eps = p.eps;
  const T rest1 = p.rest1, beta2 = p.beta2, rest2 = p.rest2, factor = p.factor;
  const auto move = [=](int64_t i, T g) PYFACELAT_INLINE_LAMBDA {
    const T m = first[i] + rest1 * (g - first[i]);
    const T v = second[i] * beta2 + rest2 * g * g;
    first[i] = m;
    second[i] = v;
    x[i] -= rate * (m / (std::sqrt(v) / correction2 + eps));
  };
  if (regular) {
    for (int64_t i = 0; i < n; ++i) move(i, gradient[i] + factor * regular[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) move(i, gradient[i]);
  }
}

template <class T>
PYFACELAT_CLONES double sum(const T* __restrict__ x, int64_t n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

template <class T>
PYFACELAT_CLONES double squares_about(const T* __restrict__ x, T mean, int64_t n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += (x[i] - mean) * (x[i] - mean);
  return total;
}

template <class T>
PYFACELAT_CLONES void standardise(T* __restrict__ x, T mean, T scale, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = (x[i] - mean) * scale;
}

// `count` numbers with their mean and the sum of their squares about it.
struct Statistics {
  double count = 0, mean = 0, squares = 0;

  // Merges another set (Chan, Golub & LeVeque 1979).
  void add(const Statistics& other) {
    const double together = count + other.count, apart = other.mean - mean;
    mean += apart * other.count / together;
    squares += other.squares + apart * apart * count * other.count / together;
    count = together;
  }
};

struct Block {
  int64_t n, map, first, count;  // first: within the map
};

template <class T>
void run(Tensor& maps, Tensor& first, Tensor& second, const std::vector<Tensor>& gradients,
         const Tensor& rates, const std::vector<int64_t>& pixels, bool normalise,
         const std::optional<Tensor>& regular, double beta1, double beta2, double eps) {
  const int64_t count = maps.size(0), packed = maps.size(1);
  const T* table = static_cast<const T*>(rates.const_data_ptr());
  const Adam<T> p{table[0],
                  table[1],
                  table[2],
                  table[3],
                  static_cast<T>(1 - beta1),
                  static_cast<T>(beta2),
                  static_cast<T>(1 - beta2),
                  static_cast<T>(eps)};
  T* x = static_cast<T*>(maps.mutable_data_ptr());
  T* m = static_cast<T*>(first.mutable_data_ptr());
  T* v = static_cast<T*>(second.mutable_data_ptr());
  const T* r = regular ? static_cast<const T*>(regular->const_data_ptr()) : nullptr;
  std::vector<const T*> g;
  for (const Tensor& t : gradients) g.push_back(static_cast<const T*>(t.const_data_ptr()));
  std::vector<int64_t> offsets;
  for (int64_t total = 0; int64_t size : pixels) {
    offsets.push_back(total);
    total += size;
  }

  std::vector<Block> blocks;
  for (int64_t n = 0; n < count; ++n)
    for (size_t k = 0; k < pixels.size(); ++k)
      for (int64_t i = 0; i < pixels[k]; i += kBlock)
        blocks.push_back({n, int64_t(k), i, std::min(kBlock, pixels[k] - i)});
  std::vector<Statistics> parts(blocks.size());
  const auto for_blocks = [&](const auto& f) {
    torch::stable::parallel_for(0, blocks.size(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(i, blocks[i]);
    });
  };
  for_blocks([&](int64_t i, const Block& b) {
    const int64_t at = b.n * packed + offsets[b.map] + b.first;
    adam<T>(x + at, m + at, v + at, g[b.map] + b.n * pixels[b.map] + b.first, r ? r + at : nullptr,
            p, b.count);
    if (!normalise) return;
    const double mean = sum<T>(x + at, b.count) / static_cast<double>(b.count);
    const double about = static_cast<double>(static_cast<T>(mean));
    // The squares are about the rounded mean; their own mean is as far off as the rounding.
    const double squares = squares_about<T>(x + at, static_cast<T>(mean), b.count);
    const double off = mean - about;
    parts[i] = {double(b.count), mean, std::max(0.0, squares - off * off * b.count)};
  });
  if (!normalise) return;
  std::vector<Statistics> whole(count * pixels.size());
  for (size_t i = 0; i < blocks.size(); ++i)
    whole[blocks[i].n * pixels.size() + blocks[i].map].add(parts[i]);
  for_blocks([&](int64_t, const Block& b) {
    const Statistics& s = whole[b.n * pixels.size() + b.map];
    standardise<T>(x + b.n * packed + offsets[b.map] + b.first, static_cast<T>(s.mean),
                   static_cast<T>(1 / std::sqrt(s.squares / s.count)), b.count);
  });
}

void noise_update_cpu(Tensor maps, Tensor first, Tensor second, std::vector<Tensor> gradients,
                      const Tensor& rates, std::vector<int64_t> sizes,
                      const std::optional<Tensor>& regular, double beta1, double beta2,
                      double eps) {
  check_dim(kOp, "maps", maps, 2);
  const auto check_like = [&](const char* name, const Tensor& t) {
    check(sizes_of(t) == sizes_of(maps), kOp, name, "expected the shape of maps, ",
          shape_text(maps), ", got ", shape_text(t));
    check_same_dtype(kOp, name, t, maps);
    check(t.is_contiguous(), kOp, name, "expected a contiguous tensor");
  };
  check_like("maps", maps);
  check_like("first", first);
  check_like("second", second);
  check(rates.numel() == 4, kOp, "rates", "expected 4 numbers, got shape ", shape_text(rates));
  check_same_dtype(kOp, "rates", rates, maps);
  check(sizes.size() % 2 == 0, kOp, "sizes", "expected heights and widths, got ", sizes.size(),
        " numbers");

  const bool normalise = !sizes.empty();
  std::vector<int64_t> pixels;
  int64_t total = 0;
  for (size_t i = 0; i < sizes.size(); i += 2) pixels.push_back(sizes[i] * sizes[i + 1]);
  if (!normalise) pixels.push_back(maps.size(1));
  check(gradients.size() == pixels.size(), kOp, "gradients", "expected ", pixels.size(), ", got ",
        gradients.size());
  for (size_t i = 0; i < pixels.size(); ++i) {
    check(pixels[i] > 0 || !normalise, kOp, "sizes", "expected positive ones");
    check(gradients[i].numel() == maps.size(0) * pixels[i], kOp, "gradients", "number ", i,
          ": expected ", maps.size(0), " times ", pixels[i], " elements, got shape ",
          shape_text(gradients[i]));
    check_same_dtype(kOp, "gradients", gradients[i], maps);
    gradients[i] = as_format(gradients[i], MemoryFormat::Contiguous);
    total += pixels[i];
  }
  check(total == maps.size(1), kOp, "sizes", "expected ", maps.size(1), " pixels, got ", total);
  std::optional<Tensor> dense;
  if (regular) {
    dense = as_format(*regular, MemoryFormat::Contiguous);
    check_like("regular", *dense);
  }
  const Tensor table = as_format(rates, MemoryFormat::Contiguous);
  switch (maps.scalar_type()) {
    case ScalarType::Float:
      return run<float>(maps, first, second, gradients, table, pixels, normalise, dense, beta1,
                        beta2, eps);
    case ScalarType::Double:
      return run<double>(maps, first, second, gradients, table, pixels, normalise, dense, beta1,
                         beta2, eps);
    default:
      fail(kOp, "maps", "expected float32 or float64, got ",
           torch::headeronly::toString(maps.scalar_type()));
  }
}

}  // namespace
}  // namespace pyfacelat::noise_reg

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("noise_update", TORCH_BOX(&pyfacelat::noise_reg::noise_update_cpu));
}
