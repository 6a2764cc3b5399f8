// Shapes that the CPU op noise_reg works on: the levels of each map's pyramid of 2x2 means.
#pragma once

#include <cstdint>
#include <vector>

namespace pyfacelat::noise_reg {

// The pyramid's last level is the first one of at most this many rows.
constexpr int64_t kSmallest = 8;

struct Level {
  int64_t map, h, w;
  int64_t offset;  // first element: of an item's packed maps at depth 0, below that of its pyramid
  bool last;       // whether nothing is below

  int64_t pixels() const { return h * w; }
};

// by_depth[d] has the levels that are means over 2^d x 2^d pixels, in the order of the maps.
struct Pyramid {
  std::vector<std::vector<Level>> by_depth;
  int64_t packed = 0;  // elements of one item's maps
  int64_t coarse = 0;  // elements of one item's levels below them
};

inline Pyramid pyramid_of(const std::vector<int64_t>& heights, const std::vector<int64_t>& widths) {
  Pyramid p;
  for (size_t m = 0; m < heights.size(); ++m) {
    int64_t h = heights[m], w = widths[m];
    for (size_t depth = 0;; ++depth, h /= 2, w /= 2) {
      if (p.by_depth.size() == depth) p.by_depth.emplace_back();
      int64_t& used = depth == 0 ? p.packed : p.coarse;
      p.by_depth[depth].push_back({static_cast<int64_t>(m), h, w, used, h <= kSmallest});
      used += h * w;
      if (h <= kSmallest) break;
    }
  }
  return p;
}

}  // namespace pyfacelat::noise_reg
