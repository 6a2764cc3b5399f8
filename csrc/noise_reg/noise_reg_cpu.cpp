// CPU implementation of pyfacelat::noise_reg (schema, formula: pyfacelat/ops/noise_reg.py).
//
// Down the pyramid, depth by depth for all maps: the sums of a level and the means that are the
// next one, in one pass. Then up again: a level's own gradient plus a quarter of the coarser
// level's. Work is cut into blocks of rows of fixed size, whose sums are added in order: threads do
// not change a bit.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/check.h"
#include "common/layout.h"
#include "common/simd.h"
#include "noise_reg/noise_reg.h"

namespace pyfacelat::noise_reg {
namespace {

constexpr const char* kOp = "noise_reg";
// Pixels of a block: about 10 us of work; two of them a thread at least.
constexpr int64_t kBlock = 1 << 14;
constexpr int64_t kGrain = 2;

// sums[0] += v . (v moved by one, around the edge), sums[1] += v . above
template <class T>
PYFACELAT_CLONES void row_products(const T* __restrict__ v, const T* __restrict__ above, int64_t w,
                                   double* sums) {
  T x = v[0] * v[w - 1], y = v[0] * above[0];
#pragma omp simd reduction(+ : x, y)
  for (int64_t i = 1; i < w; ++i) {
    x += v[i] * v[i - 1];
    y += v[i] * above[i];
  }
  sums[0] += x;
  sums[1] += y;
}

template <class T>
PYFACELAT_CLONES void row_means(const T* __restrict__ a, const T* __restrict__ b,
                                T* __restrict__ out, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = T(0.25) * ((a[2 * i] + a[2 * i + 1]) + (b[2 * i] + b[2 * i + 1]));
}

// out[i] = coarse[i / 2] / 4; zero where coarse (of w / 2 elements, or null) has nothing.
template <class T>
PYFACELAT_CLONES void row_enlarged(const T* __restrict__ coarse, T* __restrict__ out, int64_t w) {
  if (!coarse) {
    std::fill_n(out, w, T(0));
    return;
  }
  for (int64_t i = 0; i < w / 2; ++i) {
    const T quarter = T(0.25) * coarse[i];
    out[2 * i] = quarter;
    out[2 * i + 1] = quarter;
  }
  if (w % 2) out[w - 1] = T(0);
}

// out += x (left + right) + y (above + below)
template <class T>
PYFACELAT_CLONES void row_gradient(const T* __restrict__ v, const T* __restrict__ above,
                                   const T* __restrict__ below, T x, T y, T* __restrict__ out,
                                   int64_t w) {
  const auto ends = [=](int64_t i, int64_t left, int64_t right) PYFACELAT_INLINE_LAMBDA {
    out[i] += x * (v[left] + v[right]) + y * (above[i] + below[i]);
  };
  ends(0, w - 1, w > 1 ? 1 : 0);
  for (int64_t i = 1; i < w - 1; ++i)
    out[i] += x * (v[i - 1] + v[i + 1]) + y * (above[i] + below[i]);
  if (w > 1) ends(w - 1, w - 2, 0);
}

// Rows [first, end) of level `level` (an index into its depth) of image n.
struct Block {
  int64_t n, level, first, end;
};

std::vector<Block> blocks_of(const std::vector<Level>& levels, int64_t n) {
  std::vector<Block> blocks;
  for (int64_t i = 0; i < n; ++i)
    for (size_t k = 0; k < levels.size(); ++k) {
      // An even number of rows: a block halves by itself.
      const int64_t rows = std::max<int64_t>(2, kBlock / std::max<int64_t>(levels[k].w, 1) & ~1);
      for (int64_t row = 0; row < levels[k].h; row += rows)
        blocks.push_back({i, int64_t(k), row, std::min(row + rows, levels[k].h)});
    }
  return blocks;
}

template <class F>
void for_blocks(const std::vector<Block>& blocks, const F& f) {
  torch::stable::parallel_for(0, blocks.size(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i, blocks[i]);
  });
}

struct Slope {
  double x = 0, y = 0;  // first the sums of products, then 2 X / pixels and 2 Y / pixels
};

template <class T>
struct Run {
  const Pyramid& shape;
  int64_t count;                           // images
  const std::vector<const T*>& maps;       // first element of each
  const std::vector<int64_t>& distance;    // from one image to the next, of each map
  std::vector<T> means, gradients;         // count * shape.coarse
  std::vector<std::vector<Slope>> slopes;  // by depth: [image][level]

  Run(const Pyramid& shape, int64_t count, const std::vector<const T*>& maps,
      const std::vector<int64_t>& distance)
      : shape(shape),
        count(count),
        maps(maps),
        distance(distance),
        means(count * shape.coarse),
        gradients(count * shape.coarse),
        slopes(shape.by_depth.size()) {}

  const T* values(size_t depth, const Level& level, int64_t n) const {
    return depth == 0 ? maps[level.map] + n * distance[level.map]
                      : means.data() + n * shape.coarse + level.offset;
  }

  // The level below `level`, which is not the last of its map.
  const Level& below(size_t depth, const Level& level) const {
    for (const Level& other : shape.by_depth[depth + 1])
      if (other.map == level.map) return other;
    return level;
  }

  void down(size_t depth, double* value) {
    const std::vector<Level>& levels = shape.by_depth[depth];
    const std::vector<Block> blocks = blocks_of(levels, count);
    std::vector<Slope> parts(blocks.size());
    for_blocks(blocks, [&](int64_t i, const Block& block) {
      const Level& level = levels[block.level];
      const T* v = values(depth, level, block.n);
      double sums[2] = {0, 0};
      for (int64_t y = block.first; y < block.end; ++y)
        row_products(v + y * level.w, v + (y ? y - 1 : level.h - 1) * level.w, level.w, sums);
      parts[i] = {sums[0], sums[1]};
      if (level.last) return;
      const Level& next = below(depth, level);
      T* out = means.data() + block.n * shape.coarse + next.offset;
      for (int64_t y = block.first / 2; y < block.end / 2; ++y)
        row_means(v + 2 * y * level.w, v + (2 * y + 1) * level.w, out + y * next.w, next.w);
    });
    slopes[depth].assign(count * levels.size(), {});
    for (size_t i = 0; i < blocks.size(); ++i) {
      Slope& s = slopes[depth][blocks[i].n * levels.size() + blocks[i].level];
      s.x += parts[i].x;
      s.y += parts[i].y;
    }
    for (size_t i = 0; i < slopes[depth].size(); ++i) {
      Slope& s = slopes[depth][i];
      const double pixels = static_cast<double>(levels[i % levels.size()].pixels());
      const double x = s.x / pixels, y = s.y / pixels;
      value[i / levels.size()] += x * x + y * y;
      s = {2 * x / pixels, 2 * y / pixels};
    }
  }

  void up(size_t depth, T* packed) {
    const std::vector<Level>& levels = shape.by_depth[depth];
    for_blocks(blocks_of(levels, count), [&](int64_t, const Block& block) {
      const Level& level = levels[block.level];
      const T* v = values(depth, level, block.n);
      T* out = depth == 0 ? packed + block.n * shape.packed + level.offset
                          : gradients.data() + block.n * shape.coarse + level.offset;
      const Slope s = slopes[depth][block.n * levels.size() + block.level];
      const Level* next = level.last ? nullptr : &below(depth, level);
      for (int64_t y = block.first; y < block.end; ++y) {
        const T* coarse = next && y / 2 < next->h ? gradients.data() + block.n * shape.coarse +
                                                        next->offset + y / 2 * next->w
                                                  : nullptr;
        row_enlarged(coarse, out + y * level.w, level.w);
        row_gradient(v + y * level.w, v + (y ? y - 1 : level.h - 1) * level.w,
                     v + (y + 1 < level.h ? y + 1 : 0) * level.w, static_cast<T>(s.x),
                     static_cast<T>(s.y), out + y * level.w, level.w);
      }
    });
  }
};

template <class T>
void run(const Pyramid& shape, int64_t count, const std::vector<Tensor>& maps, Tensor& value,
         Tensor& gradient) {
  std::vector<const T*> data;
  std::vector<int64_t> distance;
  for (const Tensor& m : maps) {
    data.push_back(static_cast<const T*>(m.const_data_ptr()));
    distance.push_back(m.stride(0));
  }
  Run<T> pass(shape, count, data, distance);
  std::vector<double> sums(count, 0.0);
  const size_t depths = shape.by_depth.size();
  for (size_t depth = 0; depth < depths; ++depth) pass.down(depth, sums.data());
  for (size_t depth = depths; depth-- > 0;)
    pass.up(depth, static_cast<T*>(gradient.mutable_data_ptr()));
  std::copy(sums.begin(), sums.end(), static_cast<T*>(value.mutable_data_ptr()));
}

// x itself where each image is dense, as a map inside packed ones is, else a copy.
Tensor with_dense_images(const Tensor& x) {
  const bool dense =
      (x.size(2) == 1 || x.stride(2) == 1) && (x.size(1) == 1 || x.stride(1) == x.size(2));
  return dense ? x : as_format(x, MemoryFormat::Contiguous);
}

std::tuple<Tensor, Tensor> noise_reg_cpu(std::vector<Tensor> maps) {
  check(!maps.empty(), kOp, "maps", "expected at least one noise map, got none");
  std::vector<int64_t> heights, widths;
  for (Tensor& m : maps) {
    check_dim(kOp, "maps", m, 3);
    check(m.size(0) == maps[0].size(0), kOp, "maps", "expected ", maps[0].size(0),
          " images in each, got shape ", shape_text(m));
    check_same_dtype(kOp, "maps", m, maps[0]);
    heights.push_back(m.size(1));
    widths.push_back(m.size(2));
    m = with_dense_images(m);
  }
  const Pyramid shape = pyramid_of(heights, widths);
  for (const auto& levels : shape.by_depth)
    for (const Level& level : levels)
      check(level.pixels() > 0, kOp, "maps", "expected maps whose pyramids have no empty level");
  const int64_t count = maps[0].size(0);
  Tensor value = empty_as(maps[0], {count}, MemoryFormat::Contiguous);
  Tensor gradient = empty_as(maps[0], {count, shape.packed}, MemoryFormat::Contiguous);
  switch (count ? maps[0].scalar_type() : ScalarType::Undefined) {
    case ScalarType::Undefined:
      break;
    case ScalarType::Float:
      run<float>(shape, count, maps, value, gradient);
      break;
    case ScalarType::Double:
      run<double>(shape, count, maps, value, gradient);
      break;
    default:
      fail(kOp, "maps", "expected float32 or float64, got ",
           torch::headeronly::toString(maps[0].scalar_type()));
  }
  return {value, gradient};
}

}  // namespace
}  // namespace pyfacelat::noise_reg

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("noise_reg", TORCH_BOX(&pyfacelat::noise_reg::noise_reg_cpu));
}
