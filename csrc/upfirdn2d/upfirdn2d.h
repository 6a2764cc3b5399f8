// Shape rule and parameters of upfirdn2d, shared by its implementations. No torch in here.
//
// Each plane is an image [h, w, lanes], dense. NCHW tensors have planes = N * C and lanes = 1, NHWC
// tensors planes = N and lanes = C. One axis, with g the filter as a correlation and gain folded
// in:
//   y[m] = sum_k g[k] u[m * down + k - pad],  u[t] = x[t / up] where up divides t and x has it,
//   else 0
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace pyfacelat {

inline int64_t output_size(int64_t n, int64_t up, int64_t down, int64_t pad0, int64_t pad1,
                           int64_t taps) {
  int64_t room = n * up + pad0 + pad1 - taps;
  return room < 0 ? 0 : room / down + 1;
}

struct UpfirdnShape {
  int64_t planes, lanes;
  int64_t h, w;          // input
  int64_t oh, ow;        // output
  int64_t up, down;      // both axes
  int64_t pad_y, pad_x;  // before the first row and column; negative crops
  int64_t fh, fw;        // taps
};

struct UpfirdnParams : UpfirdnShape {
  bool separable;              // then row and column hold the filter, else full does
  std::vector<double> column;  // [fh], vertical taps
  std::vector<double> row;     // [fw], horizontal taps
  std::vector<double> full;    // [fh, fw]
};

// Whether f [fh, fw] is an outer product up to `tolerance` times its largest tap; fills its
// factors. Two passes of fh and fw taps then do the work of one with fh * fw.
inline bool split_filter(const std::vector<double>& f, int64_t fh, int64_t fw, double tolerance,
                         std::vector<double>& column, std::vector<double>& row) {
  int64_t best = 0;
  for (int64_t i = 1; i < fh * fw; ++i)
    if (std::abs(f[i]) > std::abs(f[best])) best = i;
  const double peak = f[best];
  if (peak == 0) return false;
  column.resize(fh);
  row.resize(fw);
  for (int64_t y = 0; y < fh; ++y) column[y] = f[y * fw + best % fw];
  for (int64_t x = 0; x < fw; ++x) row[x] = f[best / fw * fw + x] / peak;
  for (int64_t y = 0; y < fh; ++y)
    for (int64_t x = 0; x < fw; ++x)
      if (!(std::abs(f[y * fw + x] - column[y] * row[x]) <= tolerance * std::abs(peak)))
        return false;
  return true;
}

}  // namespace pyfacelat
