// CPU implementation of pyfacelat::conv3x3_pack: values of every kernel's polynomial at the 6x6
// points (definition: reference_pack in pyfacelat/ops/conv3x3.py), in double, rounded once.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/layout.h"
#include "common/simd.h"
#include "conv3x3/winograd.h"

namespace pyfacelat {

namespace {

using conv3x3::kPanel;
using conv3x3::kPlanes;
using conv3x3::kPoints;

constexpr const char* kOp = "conv3x3_pack";

// G: rows are the points 0, a, -a, b, -b and infinity.
struct Evaluation {
  double at[kPoints][3] = {};

  Evaluation() {
    const double a = conv3x3::kA, b = conv3x3::kB, points[] = {0, a, -a, b, -b};
    for (int i = 0; i < kPoints - 1; ++i) {
      double norm = 1;
      for (double other : points) norm *= other == points[i] ? 1 : points[i] - other;
      for (int k = 0; k < 3; ++k)
        at[i][k] = (k == 0 ? 1 : k == 1 ? points[i] : points[i] * points[i]) / norm;
    }
    at[kPoints - 1][2] = 1;
  }
};

// Where the taps of the kernel from input channel c to output channel o are: at weight[o * out_step
// + c * in_step + (flipped ? 8 - tap : tap)].
struct Taps {
  int64_t in, out, in_step, out_step;
  bool flipped;
};

// One panel: packed[36, in, kPanel].
template <class T>
PYFACELAT_CLONES void pack_panel(const T* weight, T* packed, int64_t first, Taps taps,
                                 const Evaluation& g) {
  const int64_t lanes = std::min<int64_t>(kPanel, taps.out - first);
  for (int64_t c = 0; c < taps.in; ++c) {
    double tap[9][kPanel] = {}, half[kPoints][3][kPanel];
    for (int64_t o = 0; o < lanes; ++o) {
      const T* from = weight + (first + o) * taps.out_step + c * taps.in_step;
      for (int k = 0; k < 9; ++k) tap[k][o] = static_cast<double>(from[taps.flipped ? 8 - k : k]);
    }
    for (int i = 0; i < kPoints; ++i)
      for (int k = 0; k < 3; ++k)
        for (int o = 0; o < kPanel; ++o)
          half[i][k][o] =
              g.at[i][0] * tap[k][o] + g.at[i][1] * tap[3 + k][o] + g.at[i][2] * tap[6 + k][o];
    for (int i = 0; i < kPoints; ++i)
      for (int j = 0; j < kPoints; ++j) {
        T* to = packed + ((i * kPoints + j) * taps.in + c) * kPanel;
        for (int o = 0; o < kPanel; ++o)
          to[o] = static_cast<T>(g.at[j][0] * half[i][0][o] + g.at[j][1] * half[i][1][o] +
                                 g.at[j][2] * half[i][2][o]);
      }
  }
}

Tensor conv3x3_pack_cpu(const Tensor& weight, bool transposed) {
  check_dim(kOp, "weight", weight, 4);
  check(weight.size(2) == 3 && weight.size(3) == 3, kOp, "weight", "expected a 3x3 kernel, got ",
        shape_text(weight));
  const Tensor dense = as_format(weight, MemoryFormat::Contiguous);
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const Taps taps = transposed ? Taps{rows, columns, columns * 9, 9, true}
                               : Taps{columns, rows, 9, columns * 9, false};
  const int64_t panels = (taps.out + kPanel - 1) / kPanel;
  Tensor packed = empty_as(weight, {panels, kPlanes, taps.in, kPanel}, MemoryFormat::Contiguous);
  const Evaluation g;
  dispatch_float(kOp, weight, [&]<class T>() {
    const T* from = static_cast<const T*>(dense.data_ptr());
    T* to = static_cast<T*>(packed.data_ptr());
    torch::stable::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        pack_panel<T>(from, to + p * kPlanes * taps.in * kPanel, p * kPanel, taps, g);
    });
  });
  return packed;
}

}  // namespace

}  // namespace pyfacelat

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("conv3x3_pack", TORCH_BOX(&pyfacelat::conv3x3_pack_cpu));
}
