// The CPU engine of upfirdn2d: output rows one at a time, in two passes that stay in cache.
//
// For an output row, first the (at most fh) input rows that reach it are combined into a line of
// w * lanes numbers with zeros at both ends, then the line is filtered along x. Both passes run
// over contiguous memory in either layout. A filter that is no outer product adds up fh such lines.
// modulated_conv2d uses the same engine and finishes each row (`sink`) while it is in cache.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "common/dispatch.h"
#include "common/simd.h"
#include "upfirdn2d/upfirdn2d.h"

namespace pyfacelat::rows {

// Loops unrolled for up to this many taps; longer filters go round again. 4 is StyleGAN2's filter.
constexpr int kTaps = 4;

// out[i] (+)= sum_{t < kN} c[t] * in_t[i]
template <class T, class A, int kN, bool kAdd>
PYFACELAT_CLONES void combine(A* __restrict__ out, const T* __restrict__ a, const T* __restrict__ b,
                              const T* __restrict__ c, const T* __restrict__ d, const A* coef,
                              int64_t n) {
  const A c0 = coef[0], c1 = coef[kN > 1 ? 1 : 0], c2 = coef[kN > 2 ? 2 : 0],
          c3 = coef[kN > 3 ? 3 : 0];
  for (int64_t i = 0; i < n; ++i) {
    A sum = c0 * static_cast<A>(a[i]);
    if constexpr (kN > 1) sum += c1 * static_cast<A>(b[i]);
    if constexpr (kN > 2) sum += c2 * static_cast<A>(c[i]);
    if constexpr (kN > 3) sum += c3 * static_cast<A>(d[i]);
    if constexpr (kAdd) sum += out[i];
    out[i] = sum;
  }
}

// As combine, for any number of inputs.
template <class T, class A>
void combine_all(A* out, const T* const* in, const A* coef, int count, int64_t n, bool add) {
  if (count == 0 && !add) std::fill_n(out, n, A(0));
  for (int t = 0; t < count; t += kTaps, add = true) {
    const int here = std::min(count - t, kTaps);
    const T* p[kTaps];
    for (int i = 0; i < kTaps; ++i) p[i] = in[t + std::min(i, here - 1)];
    const A* c = coef + t;
    auto run = [&]<int kN>(std::integral_constant<int, kN>) {
      add ? combine<T, A, kN, true>(out, p[0], p[1], p[2], p[3], c, n)
          : combine<T, A, kN, false>(out, p[0], p[1], p[2], p[3], c, n);
    };
    switch (here) {
      case 1:
        run(std::integral_constant<int, 1>());
        break;
      case 2:
        run(std::integral_constant<int, 2>());
        break;
      case 3:
        run(std::integral_constant<int, 3>());
        break;
      default:
        run(std::integral_constant<int, 4>());
    }
  }
}

// The first kN of `count` pixels, each `lanes` wide, spread to or gathered from every second pixel.
template <class A>
PYFACELAT_CLONES void interleave(A* __restrict__ out, const A* __restrict__ even,
                                 const A* __restrict__ odd, int64_t pairs, int64_t lanes) {
  if (lanes == 1) {
    for (int64_t i = 0; i < pairs; ++i) {
      out[2 * i] = even[i];
      out[2 * i + 1] = odd[i];
    }
    return;
  }
  for (int64_t i = 0; i < pairs; ++i)
    for (int64_t j = 0; j < lanes; ++j) {
      out[2 * i * lanes + j] = even[i * lanes + j];
      out[(2 * i + 1) * lanes + j] = odd[i * lanes + j];
    }
}

template <class A>
PYFACELAT_CLONES void deinterleave(A* __restrict__ even, A* __restrict__ odd,
                                   const A* __restrict__ in, int64_t pairs, int64_t lanes) {
  if (lanes == 1) {
    for (int64_t i = 0; i < pairs; ++i) {
      even[i] = in[2 * i];
      odd[i] = in[2 * i + 1];
    }
    return;
  }
  for (int64_t i = 0; i < pairs; ++i)
    for (int64_t j = 0; j < lanes; ++j) {
      even[i * lanes + j] = in[2 * i * lanes + j];
      odd[i * lanes + j] = in[(2 * i + 1) * lanes + j];
    }
}

// Below this many lanes a pixel is too short to vectorise along, and rows are split by phase
// instead.
constexpr int64_t kWidePixel = 16;

// One worker's buffers and tap lists.
template <class T, class A>
class Engine {
 public:
  explicit Engine(const UpfirdnParams& p) : p_(p) {
    // Zeros to the left and right of the line, enough for every tap of every output pixel.
    const int64_t first = floor_div(-p.pad_x, p.up);
    const int64_t last = floor_div((p.ow - 1) * p.down + p.fw - 1 - p.pad_x, p.up);
    left_ = std::max<int64_t>(0, -first) + 1;
    right_ = std::max<int64_t>(0, last - (p.w - 1)) + 2;
    line_.assign((left_ + p.w + right_) * p.lanes, A(0));
    sum_.resize(p.ow * p.lanes);
    if (p.lanes < kWidePixel && (p.up == 2 || p.down == 2)) {
      const int64_t half = std::max((p.ow + 1) / 2 + 1, (left_ + p.w + right_ + 1) / 2) * p.lanes;
      even_.resize(half);
      odd_.resize(half);
    }
    rows_.resize(p.fh);
    row_coef_.resize(p.fh);
    taps_.resize(p.fw);
    tap_coef_.resize(p.fw);
  }

  // y[ow * lanes] = row m of the output of plane x.
  void row(const T* x, int64_t m, T* y) {
    constexpr bool kSame = std::is_same_v<T, A>;
    A* out = kSame ? reinterpret_cast<A*>(y) : sum_.data();
    A* line = line_.data() + left_ * p_.lanes;
    const int64_t width = p_.w * p_.lanes;
    int count = 0;
    bool add = false;
    for (int64_t k = 0; k < p_.fh; ++k) {
      const int64_t t = m * p_.down + k - p_.pad_y;
      if (t < 0 || t % p_.up || t / p_.up >= p_.h) continue;
      rows_[count] = x + t / p_.up * width;
      if (p_.separable) {
        row_coef_[count++] = static_cast<A>(p_.column[k]);
        continue;
      }
      const A one = 1;
      combine_all<T, A>(line, rows_.data(), &one, 1, width, false);
      along(line, p_.full.data() + k * p_.fw, out, add);
      add = true;
    }
    if (p_.separable) {
      combine_all<T, A>(line, rows_.data(), row_coef_.data(), count, width, false);
      along(line, p_.row.data(), out, false);
    } else if (!add) {
      std::fill_n(out, p_.ow * p_.lanes, A(0));
    }
    if constexpr (!kSame)
      for (int64_t i = 0; i < p_.ow * p_.lanes; ++i) y[i] = static_cast<T>(out[i]);
  }

 private:
  static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

  // Taps of the outputs whose first one reads at t0 (in stuffed pixels): list of (column,
  // coefficient).
  int list_taps(const double* g, int64_t t0, int64_t* column) {
    int count = 0;
    for (int64_t k = 0; k < p_.fw; ++k) {
      const int64_t t = t0 + k;
      if ((t % p_.up + p_.up) % p_.up) continue;
      column[count] = floor_div(t, p_.up);
      tap_coef_[count++] = static_cast<A>(g[k]);
    }
    return count;
  }

  // out[ow] (+)= line filtered with g[fw]; line[0] is column 0 of the image.
  void along(const A* line, const double* g, A* out, bool add) {
    const int64_t lanes = p_.lanes;
    std::vector<int64_t>& column = columns_;
    column.resize(p_.fw);
    if (p_.up == 1 && p_.down == 1) {
      const int count = list_taps(g, -p_.pad_x, column.data());
      for (int i = 0; i < count; ++i) taps_[i] = line + column[i] * lanes;
      combine_all<A, A>(out, taps_.data(), tap_coef_.data(), count, p_.ow * lanes, add);
    } else if (lanes < kWidePixel && p_.up == 2 && p_.down == 1 && !add) {
      A* phase[2] = {even_.data(), odd_.data()};
      for (int r = 0; r < 2; ++r) {
        const int count = list_taps(g, r - p_.pad_x, column.data());
        for (int i = 0; i < count; ++i) taps_[i] = line + column[i] * lanes;
        combine_all<A, A>(phase[r], taps_.data(), tap_coef_.data(), count,
                          (p_.ow + 1 - r) / 2 * lanes, false);
      }
      interleave(out, phase[0], phase[1], p_.ow / 2, lanes);
      if (p_.ow % 2) std::copy_n(phase[0] + p_.ow / 2 * lanes, lanes, out + (p_.ow - 1) * lanes);
    } else if (lanes < kWidePixel && p_.up == 1 && p_.down == 2) {
      // line - left_ pixels is the start of the buffer: pixel j there is column j - left_.
      deinterleave(even_.data(), odd_.data(), line - left_ * lanes, (left_ + p_.w + right_) / 2,
                   lanes);
      for (int64_t k = 0; k < p_.fw; ++k) {
        const int64_t j = k - p_.pad_x + left_;
        taps_[k] = (j % 2 ? odd_.data() : even_.data()) + j / 2 * lanes;
        tap_coef_[k] = static_cast<A>(g[k]);
      }
      combine_all<A, A>(out, taps_.data(), tap_coef_.data(), static_cast<int>(p_.fw), p_.ow * lanes,
                        add);
    } else {
      for (int64_t r = 0; r < std::min(p_.up, p_.ow); ++r) {
        // Outputs r, r + up, r + 2 up, ... have the same taps, `down` columns further each time.
        const int count = list_taps(g, r * p_.down - p_.pad_x, column.data());
        for (int64_t m = r, step = 0; m < p_.ow; m += p_.up, step += p_.down) {
          for (int i = 0; i < count; ++i) taps_[i] = line + (column[i] + step) * lanes;
          combine_all<A, A>(out + m * lanes, taps_.data(), tap_coef_.data(), count, lanes, add);
        }
      }
    }
  }

  const UpfirdnParams& p_;
  int64_t left_, right_;
  std::vector<A> line_, sum_, even_, odd_, row_coef_, tap_coef_;
  std::vector<const T*> rows_;
  std::vector<const A*> taps_;
  std::vector<int64_t> columns_;
};

}  // namespace pyfacelat::rows
