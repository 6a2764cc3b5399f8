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
    return v * (sign > 0 ? Vec{} + positive : Vec{} + negative);
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

  // One tile, `lanes` channels from c on. kInside: no pixel of it is outside of the image, and the
  // channels fill a register.
  template <bool kInside, Input kInput>
  static void input_tile(const Job& job, const Place& at, int64_t c, int64_t lanes, float* v,
                         int64_t plane) {
    if (kInside) lanes = LANES;
    Vec scale = {}, shift = {};
    if constexpr (kInput == Input::kScaled)
      scale = load_part(job.in_scale + at.image * job.in + c, lanes);
    if constexpr (kInput == Input::kAffine) {
      scale = load_part(job.in_scale + c, lanes);
      shift = load_part(job.in_shift + c, lanes);
    }
    const int64_t pixel = job.in, line = job.w * pixel;
    int64_t start = ((at.image * job.h + at.y - 1) * job.w + at.x - 1) * pixel + c;
    Vec rows[kPlanes];
#pragma GCC unroll 6
    for (int i = 0; i < kPoints; ++i, start += line) {
      const bool outside = !kInside && (at.y + i < 1 || at.y + i > job.h);
      Vec d[kPoints];
#pragma GCC unroll 6
      for (int j = 0; j < kPoints; ++j) {
        if (!kInside && (outside || at.x + j < 1 || at.x + j > job.w)) {
          d[j] = Vec{};
          continue;
        }
        const float* p = job.x + start + j * pixel;
        // The columns that the next tile does not share: rows are too short for the processor to
        // see where this goes.
        if (kInside && j >= kPoints - kTile) __builtin_prefetch(p + kTile * pixel);
        const Vec value = load_part(p, lanes);
        if constexpr (kInput == Input::kPlain) d[j] = value;
        if constexpr (kInput == Input::kScaled) d[j] = value * scale;
        if constexpr (kInput == Input::kAffine) {
          const Vec sum = value * scale + shift;
          d[j] = sum > 0 ? sum : Vec{};
        }
        if constexpr (kInput == Input::kGated) {
          const float* gate = job.in_gate + start + j * pixel;
          if (kInside && j >= kPoints - kTile) __builtin_prefetch(gate + kTile * pixel);
          d[j] = slope(value, load_part(gate, lanes), job.gate_positive, job.gate_negative);
        }
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

  template <Input kInput>
  static void input_tiles(const Job& job, int64_t first, int64_t count, int64_t block, float* v) {
    const int64_t row = job.v_row(), plane = block * row;
    for (int64_t t = 0; t < count; ++t, v += row) {
      const Place at(job, first + t);
      const bool inside = at.y > 0 && at.x > 0 && at.y + kTile < job.h && at.x + kTile < job.w;
      int64_t c = 0;
      if (inside)
        for (; c + LANES <= job.in; c += LANES)
          input_tile<true, kInput>(job, at, c, LANES, v, plane);
      for (; c < job.in; c += LANES)
        input_tile<false, kInput>(job, at, c, job.in - c < LANES ? job.in - c : LANES, v, plane);
    }
  }

  static void input(const Job& job, int64_t first, int64_t count, int64_t block, float* v) {
    switch (job.input) {
      case Input::kPlain:
        return input_tiles<Input::kPlain>(job, first, count, block, v);
      case Input::kScaled:
        return input_tiles<Input::kScaled>(job, first, count, block, v);
      case Input::kAffine:
        return input_tiles<Input::kAffine>(job, first, count, block, v);
      case Input::kGated:
        return input_tiles<Input::kGated>(job, first, count, block, v);
    }
  }

  // c[R, C * LANES] = a[R, depth] b[depth, C * LANES], summed kRun products at a time: a sum of 512
  // in a row would double the error.
  template <int R, int C>
  static void block(const float* __restrict__ a, int64_t a_row, const float* __restrict__ b,
                    int64_t depth, float* __restrict__ c, int64_t c_row) {
    for (int64_t from = 0; from < depth; from += kRun) {
      const int64_t to = depth - from < kRun ? depth : from + kRun;
      Vec sum[R][C] = {};
      for (int64_t k = from; k < to; ++k) {
        Vec w[C];
#pragma GCC unroll 8
        for (int j = 0; j < C; ++j) w[j] = load(b + k * kPanel + j * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          const float s = a[i * a_row + k];
#pragma GCC unroll 8
          for (int j = 0; j < C; ++j) sum[i][j] += s * w[j];
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < C; ++j) {
          float* to_c = c + i * c_row + j * LANES;
          store(to_c, from ? load(to_c) + sum[i][j] : sum[i][j]);
        }
    }
  }

  using Block = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t);

  struct Blocks {
    Block wide[ROWS + 1], narrow[ROWS + 1];  // by number of tiles

    Blocks() { fill<ROWS>(); }

    template <int R>
    void fill() {
      wide[R] = block<R, COLUMNS>;
      narrow[R] = block<R, 1>;
      if constexpr (R > 1) fill<R - 1>();
    }
  };

  static void multiply(const Job& job, int64_t count, int64_t panel, int64_t panels, const float* v,
                       float* m) {
    const Blocks table;
    const int64_t v_row = job.v_row(), m_row = Job::m_row(panels);
    const int64_t blocks = (count + ROWS - 1) / ROWS;  // of nearly equal numbers of tiles
    for (int64_t plane = 0; plane < kPlanes; ++plane) {
      for (int64_t p = 0; p < panels; ++p) {
        const float* u = job.u + ((panel + p) * kPlanes + plane) * job.in * kPanel;
        const int64_t channels = job.out - (panel + p) * kPanel;
        for (int64_t j = 0; j < kPanel && j < channels; j += kWidth) {
          const Block* by_tiles = channels - j > LANES ? table.wide : table.narrow;
          for (int64_t b = 0; b < blocks; ++b) {
            const int64_t from = b * count / blocks, to = (b + 1) * count / blocks;
            by_tiles[to - from](v + (plane * count + from) * v_row, v_row, u + j, job.in,
                                m + (plane * count + from) * m_row + p * kPanel + j, m_row);
          }
        }
      }
    }
  }

  // One tile, `lanes` channels from c on. kWhole: the image holds all of it, and the channels fill
  // a register.
  template <bool kWhole, Output kOutput>
  static void output_tile(const Job& job, const Place& at, int64_t c, int64_t lanes, const float* m,
                          int64_t plane) {
    const int64_t high = kWhole || job.h - at.y > kTile ? kTile : job.h - at.y;
    const int64_t wide = kWhole || job.w - at.x > kTile ? kTile : job.w - at.x;
    if (kWhole) lanes = LANES;
    const int64_t pixel = job.out, line = job.w * pixel;
    int64_t start = ((at.image * job.h + at.y) * job.w + at.x) * pixel + c;
    Vec scale = Vec{} + 1, shift = {};
    if constexpr (kOutput == Output::kMasked) {
      scale = load_part(job.out_scale + c, lanes);
      shift = load_part(job.out_shift + c, lanes);
    } else if (job.bias) {
      shift = load_part(job.bias + c, lanes);
    }
    if (kOutput == Output::kStyled && job.out_scale)
      scale = load_part(job.out_scale + at.image * job.out + c, lanes);
    const float* noise = nullptr;
    if (kOutput == Output::kStyled && job.noise)
      noise = job.noise + at.image * job.noise_step + at.y * job.w + at.x;
    const float positive = job.positive, negative = job.negative, limit = job.limit;
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
#pragma GCC unroll 4
    for (int64_t i = 0; i < kTile; ++i, start += line) {
      if (!kWhole && i >= high) break;
      Vec out[kTile];
      interpolate(rows + i * kPoints, 1, out);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kTile; ++j) {
        if (!kWhole && j >= wide) break;
        float* y = job.y + start + j * pixel;
        Vec v;
        if constexpr (kOutput == Output::kMasked) {
          const Vec before = load_part(job.out_gate + start + j * pixel, lanes) * scale + shift;
          v = before > 0 ? out[j] * scale : Vec{};
        } else {
          if constexpr (kOutput == Output::kStyled) {
            out[j] = out[j] * scale;
            if (noise) out[j] += noise[i * job.w + j];
          }
          v = out[j] + shift;
          v = slope(v, v, positive, negative);
          if constexpr (kOutput == Output::kStyled) {
            v = v > limit ? Vec{} + limit : v;
            v = v < -limit ? Vec{} - limit : v;
          }
        }
        store_part(y, v, lanes);
      }
    }
  }

  template <Output kOutput>
  static void output_tiles(const Job& job, int64_t first, int64_t count, int64_t panel,
                           int64_t panels, const float* m) {
    const int64_t row = Job::m_row(panels), plane = count * row;
    const int64_t from = panel * kPanel;
    const int64_t to = job.out < from + panels * kPanel ? job.out : from + panels * kPanel;
    for (int64_t t = 0; t < count; ++t, m += row) {
      const Place at(job, first + t);
      const bool whole = at.y + kTile <= job.h && at.x + kTile <= job.w;
      int64_t c = from;
      if (whole)
        for (; c + LANES <= to; c += LANES)
          output_tile<true, kOutput>(job, at, c, LANES, m + (c - from), plane);
      for (; c < to; c += LANES)
        output_tile<false, kOutput>(job, at, c, to - c < LANES ? to - c : LANES, m + (c - from),
                                    plane);
    }
  }

  static void output(const Job& job, int64_t first, int64_t count, int64_t panel, int64_t panels,
                     const float* m) {
    switch (job.output) {
      case Output::kActivated:
        return output_tiles<Output::kActivated>(job, first, count, panel, panels, m);
      case Output::kStyled:
        return output_tiles<Output::kStyled>(job, first, count, panel, panels, m);
      case Output::kMasked:
        return output_tiles<Output::kMasked>(job, first, count, panel, panels, m);
    }
  }

  static const Kernels* kernels(const char* name) {
    static const Kernels found{name, input, multiply, output};
    return &found;
  }
};

}  // namespace

}  // namespace pyfacelat::conv3x3
