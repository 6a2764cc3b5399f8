// The kernels of winograd.h for the instruction set that the including file is compiled for.
//
// Everything is in an anonymous namespace: were it shared between files, the linker would keep one
// copy, and an older processor would meet instructions that it lacks. For the same reason nothing
// of the standard library is used here.
#pragma once

#include "conv3x3/winograd.h"

namespace pyfacelat::conv3x3 {

namespace {

// REGISTER is a vector of floats; a block is ROWS tiles by COLUMNS registers of output channels.
template <class REGISTER, int ROWS, int COLUMNS>
struct Winograd {
  using Vec = REGISTER;
  static constexpr int LANES = sizeof(Vec) / sizeof(float);
  static constexpr int64_t kRun = 128;
  static constexpr int kWidth = LANES * COLUMNS;  // output channels of a block

  static inline __attribute__((always_inline)) Vec load(const float* p) {
    Vec v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }

  static inline __attribute__((always_inline)) void store(float* p, Vec v) {
    __builtin_memcpy(p, &v, sizeof v);
  }

  // The first `count` lanes; the others are zero.
  static inline __attribute__((always_inline)) Vec load_part(const float* p, int64_t count) {
    if (count >= LANES) return load(p);
    Vec v = {};
    __builtin_memcpy(&v, p, count * sizeof(float));
    return v;
  }

  static inline __attribute__((always_inline)) void store_part(float* p, Vec v, int64_t count) {
    if (count >= LANES) return store(p, v);
    __builtin_memcpy(p, &v, count * sizeof(float));
  }

  static inline __attribute__((always_inline)) Vec slope(Vec v, Vec sign, float positive,
                                                         float negative) {
    const Vec p = v * positive, n = v * negative;
    return sign > 0 ? p : n;
  }

  // B^T d.
  static inline __attribute__((always_inline)) void evaluate(const Vec* d, int64_t step, Vec* out) {
    constexpr float a2 = kA * kA, b2 = kB * kB;
    const Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step],
              d5 = d[5 * step];
    out[0] = d0 * (a2 * b2) + (d4 - d2 * (a2 + b2));
    const Vec even_a = d4 - d2 * b2, odd_a = d3 - d1 * b2;
    out[1] = even_a + odd_a * kA;
    out[2] = even_a - odd_a * kA;
    const Vec even_b = d4 - d2 * a2, odd_b = d3 - d1 * a2;
    out[3] = even_b + odd_b * kB;
    out[4] = even_b - odd_b * kB;
    out[5] = d1 * (a2 * b2) + (d5 - d3 * (a2 + b2));
  }

  // A^T m.
  static inline __attribute__((always_inline)) void interpolate(const Vec* m, int64_t step,
                                                                Vec* out) {
    constexpr float a2 = kA * kA, b2 = kB * kB;
    const Vec m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    const Vec sum_a = m1 + m2, odd_a = (m1 - m2) * kA, sum_b = m3 + m4, odd_b = (m3 - m4) * kB;
    out[0] = m[0] + sum_a + sum_b;
    out[1] = odd_a + odd_b;
    out[2] = sum_a * a2 + sum_b * b2;
    out[3] = odd_a * a2 + (odd_b * b2 + m[5 * step]);
  }

  struct Place {
    int64_t image, y, x;  // of the tile's first output
    Place(const Job& job, int64_t tile)
        : image(tile / (job.rows() * job.columns())),
          y(tile / job.columns() % job.rows() * kTile),
          x(tile % job.columns() * kTile) {}
  };

  // One tile, `lanes` channels from c on. kInside: no pixel of it is outside of the image.
  template <bool kInside, bool kGated>
  static void input_tile(const Job& job, const Place& at, int64_t c, int64_t lanes, float* v,
                         int64_t plane) {
    if (kInside) lanes = LANES;
    Vec rows[kPlanes];
    const bool scaled = job.in_scale != nullptr;
    const Vec scale = scaled ? load_part(job.in_scale + at.image * job.in + c, lanes) : Vec{} + 1;
#pragma GCC unroll 6
    for (int i = 0; i < kPoints; ++i) {
      const int64_t y = at.y + i - 1;
      Vec d[kPoints];
#pragma GCC unroll 6
      for (int j = 0; j < kPoints; ++j) {
        const int64_t x = at.x + j - 1;
        if (!kInside && (y < 0 || y >= job.h || x < 0 || x >= job.w)) {
          d[j] = Vec{};
          continue;
        }
        const int64_t offset = ((at.image * job.h + y) * job.w + x) * job.in + c;
        d[j] = load_part(job.x + offset, lanes);
        if (kGated)
          d[j] = slope(d[j], load_part(job.gate + offset, lanes), job.gate_positive,
                       job.gate_negative);
        d[j] *= scale;
      }
      evaluate(d, 1, rows + i * kPoints);
    }
#pragma GCC unroll 6
    for (int j = 0; j < kPoints; ++j) {
      Vec column[kPoints];
      evaluate(rows + j, kPoints, column);
#pragma GCC unroll 6
      for (int i = 0; i < kPoints; ++i) store(v + (i * kPoints + j) * plane + c, column[i]);
    }
  }

  template <bool kGated>
  static void input_tiles(const Job& job, int64_t first, int64_t count, int64_t block, float* v) {
    const int64_t row = job.v_row(), plane = block * row;
    for (int64_t t = 0; t < count; ++t, v += row) {
      const Place at(job, first + t);
      const bool inside = at.y > 0 && at.x > 0 && at.y + kTile < job.h && at.x + kTile < job.w;
      int64_t c = 0;
      if (inside)
        for (; c + LANES <= job.in; c += LANES)
          input_tile<true, kGated>(job, at, c, LANES, v, plane);
      for (; c < job.in; c += LANES) {
        const int64_t lanes = job.in - c < LANES ? job.in - c : LANES;
        input_tile<false, kGated>(job, at, c, lanes, v, plane);
      }
    }
  }

  static void input(const Job& job, int64_t first, int64_t count, int64_t block, float* v) {
    job.gate ? input_tiles<true>(job, first, count, block, v)
             : input_tiles<false>(job, first, count, block, v);
  }

  // c[R, kWidth] = a[R, depth] b[depth, kWidth], summed kRun products at a time: a sum of 512 in a
  // row would double the error.
  template <int R>
  static void block(const float* __restrict__ a, int64_t a_row, const float* __restrict__ b,
                    int64_t depth, float* __restrict__ c, int64_t c_row) {
    for (int64_t from = 0; from < depth; from += kRun) {
      const int64_t to = depth - from < kRun ? depth : from + kRun;
      Vec sum[R][COLUMNS] = {};
      for (int64_t k = from; k < to; ++k) {
        Vec w[COLUMNS];
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; ++j) w[j] = load(b + k * kPanel + j * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          const float s = a[i * a_row + k];
#pragma GCC unroll 8
          for (int j = 0; j < COLUMNS; ++j) sum[i][j] += s * w[j];
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; ++j) {
          float* to_c = c + i * c_row + j * LANES;
          store(to_c, from ? load(to_c) + sum[i][j] : sum[i][j]);
        }
    }
  }

  using Block = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t);

  template <int R>
  static void fill(Block* table) {
    table[R] = block<R>;
    if constexpr (R > 1) fill<R - 1>(table);
  }

  static void multiply(const Job& job, int64_t count, int64_t panel, int64_t panels, const float* v,
                       float* m) {
    Block table[ROWS + 1];
    fill<ROWS>(table);
    const int64_t v_row = job.v_row(), m_row = Job::m_row(panels);
    const int64_t blocks = (count + ROWS - 1) / ROWS;  // of nearly equal numbers of tiles
    for (int64_t plane = 0; plane < kPlanes; ++plane) {
      for (int64_t p = 0; p < panels; ++p) {
        const float* u = job.u + ((panel + p) * kPlanes + plane) * job.in * kPanel;
        for (int64_t j = 0; j < kPanel; j += kWidth)
          for (int64_t b = 0; b < blocks; ++b) {
            const int64_t from = b * count / blocks, to = (b + 1) * count / blocks;
            table[to - from](v + (plane * count + from) * v_row, v_row, u + j, job.in,
                             m + (plane * count + from) * m_row + p * kPanel + j, m_row);
          }
      }
    }
  }

  // One tile, `lanes` channels from c on.
  template <bool kWhole>
  static void output_tile(const Job& job, const Place& at, int64_t c, int64_t lanes, const float* m,
                          int64_t plane) {
    const int64_t high = kWhole || job.h - at.y > kTile ? kTile : job.h - at.y;
    const int64_t wide = kWhole || job.w - at.x > kTile ? kTile : job.w - at.x;
    if (kWhole) lanes = LANES;
    const Vec scale =
        job.out_scale ? load_part(job.out_scale + at.image * job.out + c, lanes) : Vec{} + 1;
    const Vec bias = job.bias ? load_part(job.bias + c, lanes) : Vec{};
    const float positive = job.positive, negative = job.negative;
    Vec rows[kTile * kPoints];
#pragma GCC unroll 6
    for (int j = 0; j < kPoints; ++j) {
      Vec column[kPoints], out[kTile];
#pragma GCC unroll 6
      for (int i = 0; i < kPoints; ++i) column[i] = load(m + (i * kPoints + j) * plane);
      interpolate(column, 1, out);
#pragma GCC unroll 4
      for (int i = 0; i < kTile; ++i) rows[i * kPoints + j] = out[i];
    }
    float* y = job.y + ((at.image * job.h + at.y) * job.w + at.x) * job.out + c;
#pragma GCC unroll 4
    for (int64_t i = 0; i < kTile; ++i, y += job.w * job.out) {
      if (!kWhole && i >= high) break;
      Vec out[kTile];
      interpolate(rows + i * kPoints, 1, out);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kTile; ++j) {
        if (!kWhole && j >= wide) break;
        const Vec z = out[j] * scale + bias;
        store_part(y + j * job.out, slope(z, z, positive, negative), lanes);
      }
    }
  }

  static void output(const Job& job, int64_t first, int64_t count, int64_t panel, int64_t panels,
                     const float* m) {
    const int64_t row = Job::m_row(panels), plane = count * row;
    const int64_t from = panel * kPanel;
    const int64_t to = job.out < from + panels * kPanel ? job.out : from + panels * kPanel;
    for (int64_t t = 0; t < count; ++t, m += row) {
      const Place at(job, first + t);
      const bool whole = at.y + kTile <= job.h && at.x + kTile <= job.w;
      int64_t c = from;
      if (whole)
        for (; c + LANES <= to; c += LANES)
          output_tile<true>(job, at, c, LANES, m + (c - from), plane);
      for (; c < to; c += LANES)
        output_tile<false>(job, at, c, to - c < LANES ? to - c : LANES, m + (c - from), plane);
    }
  }

  static const Kernels* kernels(const char* name) {
    static const Kernels found{name, input, multiply, output};
    return &found;
  }
};

}  // namespace

}  // namespace pyfacelat::conv3x3
