// The arithmetic of lpips_diff on a block of pixels, in both memory layouts.
//
// Both ops bring x to unit length by the same functions, and u goes through memory before anything
// is subtracted from it: equal features then have a distance of exactly zero.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/simd.h"

namespace pyfacelat::lpips_diff {

// A block of pixels, with the distances from a pixel to the next and from a channel to the next:
// one of the two is 1.
struct Shape {
  int64_t pixels, channels, pixel_step, channel_step;
};

template <class A>
struct Unit {
  A scale = 0;    // 1 / (|x| + eps); 0 where x is 0
  A inverse = 0;  // 1 / |x|; 0 where x is 0
};

template <class A>
PYFACELAT_INLINE Unit<A> unit_of(A squared) {
  if (!(squared > A(0))) return {};
  const A length = std::sqrt(squared);
  return {A(1) / (length + A(1e-10)), A(1) / length};
}

// ---- one pixel, channels side by side ----

template <class A>
PYFACELAT_CLONES A squares(const A* __restrict__ x, int64_t n) {
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += x[i] * x[i];
  return total;
}

// y = x * scale
template <class A>
PYFACELAT_CLONES void scaled(const A* __restrict__ x, A scale, A* __restrict__ y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale;
}

// sums[0] = sum of lin (u - t)^2, sums[1] = sum of lin (u - t) u
template <class A>
PYFACELAT_CLONES void compared(const A* __restrict__ u, const A* __restrict__ t,
                               const A* __restrict__ lin, int64_t n, A* sums) {
  A square = 0, along = 0;
#pragma omp simd reduction(+ : square, along)
  for (int64_t i = 0; i < n; ++i) {
    const A apart = u[i] - t[i], weighted = lin[i] * apart;
    square += weighted * apart;
    along += weighted * u[i];
  }
  sums[0] = square;
  sums[1] = along;
}

// g = a lin (u - t) - b u
template <class A>
PYFACELAT_CLONES void slope(const A* __restrict__ u, const A* __restrict__ t,
                            const A* __restrict__ lin, A a, A b, A* __restrict__ g, int64_t n) {
  for (int64_t i = 0; i < n; ++i) g[i] = a * (lin[i] * (u[i] - t[i])) - b * u[i];
}

// ---- one channel of several pixels ----

template <class A>
PYFACELAT_CLONES void add_squares(const A* __restrict__ x, A* __restrict__ totals, int64_t n) {
  for (int64_t i = 0; i < n; ++i) totals[i] += x[i] * x[i];
}

template <class A>
PYFACELAT_CLONES void scaled_each(const A* __restrict__ x, const A* __restrict__ scale,
                                  A* __restrict__ y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale[i];
}

template <class A>
PYFACELAT_CLONES void compare_each(const A* __restrict__ u, const A* __restrict__ t, A lin,
                                   A* __restrict__ square, A* __restrict__ along, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const A apart = u[i] - t[i], weighted = lin * apart;
    square[i] += weighted * apart;
    along[i] += weighted * u[i];
  }
}

template <class A>
PYFACELAT_CLONES void slope_each(const A* __restrict__ u, const A* __restrict__ t, A lin,
                                 const A* __restrict__ a, const A* __restrict__ b,
                                 A* __restrict__ g, int64_t n) {
  for (int64_t i = 0; i < n; ++i) g[i] = a[i] * (lin * (u[i] - t[i])) - b[i] * u[i];
}

// Vectors that a thread reuses from block to block.
template <class A>
struct Scratch {
  std::vector<A> u, rows;
  A* take(int64_t elements, int64_t pixels) {
    if (int64_t(u.size()) < elements) u.resize(elements);
    if (int64_t(rows.size()) < 5 * pixels) rows.resize(5 * pixels);
    return rows.data();
  }
};

template <class A>
void lengths_of(const A* x, const Shape& p, A* totals) {
  std::fill_n(totals, p.pixels, A(0));
  for (int64_t c = 0; c < p.channels; ++c) add_squares<A>(x + c * p.channel_step, totals, p.pixels);
}

// u of a block; all three have the shape p, except that u's channels may be further apart.
template <class A>
void unit_block(const A* x, A* u, int64_t u_step, const Shape& p, Scratch<A>& scratch) {
  if (p.channel_step == 1) {
    for (int64_t i = 0; i < p.pixels; ++i) {
      const A* from = x + i * p.pixel_step;
      scaled<A>(from, unit_of(squares<A>(from, p.channels)).scale, u + i * u_step, p.channels);
    }
    return;
  }
  A* scale = scratch.take(0, p.pixels);
  lengths_of(x, p, scale);
  for (int64_t i = 0; i < p.pixels; ++i) scale[i] = unit_of(scale[i]).scale;
  for (int64_t c = 0; c < p.channels; ++c)
    scaled_each<A>(x + c * p.channel_step, scale, u + c * u_step, p.pixels);
}

// Gradient of a block and its part of the value. The target's step between channels (or pixels,
// whichever is not 1) is t_step; `weights` has one number a pixel, or is null: then all are `even`.
template <class A>
double compare_block(const A* x, const A* t, int64_t t_step, const A* lin, const A* weights, A even,
                     A* g, const Shape& p, Scratch<A>& scratch) {
  double value = 0;
  if (p.channel_step == 1) {
    scratch.take(p.channels, 0);
    A* u = scratch.u.data();
    for (int64_t i = 0; i < p.pixels; ++i) {
      const A* from = x + i * p.pixel_step;
      const Unit<A> unit = unit_of(squares<A>(from, p.channels));
      const A m = weights ? weights[i] : even;
      A sums[2];
      scaled<A>(from, unit.scale, u, p.channels);
      compared<A>(u, t + i * t_step, lin, p.channels, sums);
      value += static_cast<double>(m * sums[0]);
      slope<A>(u, t + i * t_step, lin, A(2) * m * unit.scale, A(2) * m * sums[1] * unit.inverse,
               g + i * p.pixel_step, p.channels);
    }
    return value;
  }
  A* a = scratch.take(p.pixels, p.pixels);
  A *u = scratch.u.data(), *b = a + p.pixels, *square = b + p.pixels, *along = square + p.pixels,
    *scale = along + p.pixels;
  lengths_of(x, p, b);
  for (int64_t i = 0; i < p.pixels; ++i) {
    const Unit<A> unit = unit_of(b[i]);
    const A m = A(2) * (weights ? weights[i] : even);
    scale[i] = unit.scale;
    a[i] = m * unit.scale;
    b[i] = m * unit.inverse;
  }
  std::fill_n(square, 2 * p.pixels, A(0));
  for (int64_t c = 0; c < p.channels; ++c) {
    scaled_each<A>(x + c * p.channel_step, scale, u, p.pixels);
    compare_each<A>(u, t + c * t_step, lin[c], square, along, p.pixels);
  }
  for (int64_t i = 0; i < p.pixels; ++i) {
    value += static_cast<double>((weights ? weights[i] : even) * square[i]);
    b[i] *= along[i];
  }
  for (int64_t c = 0; c < p.channels; ++c) {
    scaled_each<A>(x + c * p.channel_step, scale, u, p.pixels);
    slope_each<A>(u, t + c * t_step, lin[c], a, b, g + c * p.channel_step, p.pixels);
  }
  return value;
}

}  // namespace pyfacelat::lpips_diff
