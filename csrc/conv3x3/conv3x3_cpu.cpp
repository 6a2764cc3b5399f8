// CPU implementation of pyfacelat::conv3x3 (schema, formulas: pyfacelat/ops/conv3x3.py).
//
// float32 maps run as Winograd's F(4x4, 3x3) where that measures faster (kWinograd below), on one
// block of tiles after another, so that the transformed block stays in the cache of its core. Other
// types, and maps of few channels or pixels, take torch's convolution. A result does not depend on
// the number of threads, nor on the rest of the batch.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/layout.h"
#include "common/simd.h"
#include "conv3x3/winograd.h"

namespace pyfacelat {

namespace {

using conv3x3::Job;
using conv3x3::Kernels;
using torch::stable::detail::from;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "conv3x3";

// ---- instruction sets ----

const Kernels* supported(int level) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (level >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    if (const Kernels* found = conv3x3::avx512_kernels()) return found;
  if (level >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    if (const Kernels* found = conv3x3::avx2_kernels()) return found;
#endif
  return conv3x3::portable_kernels();
}

const Kernels* kernels = supported(2);

// ---- the work on blocks of tiles ----

// Memory of this thread that grows and is kept: fresh pages would cost more than the transforms.
float* scratch(int which, int64_t floats) {
  struct Buffer {
    std::unique_ptr<float[]> data;
    int64_t size = 0;
  };
  thread_local std::array<Buffer, 2> buffers;
  constexpr int64_t kLine = 16;  // floats of a cache line
  Buffer& b = buffers[which];
  if (b.size < floats) {
    b.data.reset();
    b.data.reset(new float[floats + kLine]);
    b.size = floats;
  }
  const auto address = reinterpret_cast<uintptr_t>(b.data.get());
  return b.data.get() + (-address / sizeof(float)) % kLine;
}

// Tiles of a block: enough of them to pay for reading the weights, few enough for V to stay near.
int64_t block_tiles(int64_t in) { return std::clamp<int64_t>(in / 4 / 12 * 12, 24, 60); }

constexpr int64_t kPanelsAtOnce = 2;
// Up to here all threads share the transformed input and each takes some of the output channels.
constexpr int64_t kFewTiles = 128;

void run(const Job& job) {
  const Kernels& k = *kernels;
  const int64_t tiles = job.tiles(), panels = job.panels();
  auto products = [&](int64_t first, int64_t count, const float* v, int64_t from, int64_t to) {
    for (int64_t p = from; p < to; p += kPanelsAtOnce) {
      const int64_t n = std::min(kPanelsAtOnce, to - p);
      float* m = scratch(1, conv3x3::kPlanes * count * Job::m_row(n));
      k.multiply(job, count, p, n, v, m);
      k.output(job, first, count, p, n, m);
    }
  };
  if (tiles <= kFewTiles) {
    float* v = scratch(0, conv3x3::kPlanes * tiles * job.v_row());
    torch::stable::parallel_for(0, tiles, 4, [&](int64_t begin, int64_t end) {
      k.input(job, begin, end - begin, tiles, v + begin * job.v_row());
    });
    torch::stable::parallel_for(
        0, panels, 1, [&](int64_t begin, int64_t end) { products(0, tiles, v, begin, end); });
    return;
  }
  const int64_t size = block_tiles(job.in);
  torch::stable::parallel_for(0, (tiles + size - 1) / size, 1, [&](int64_t begin, int64_t end) {
    float* v = scratch(0, conv3x3::kPlanes * size * job.v_row());
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * size, count = std::min(size, tiles - first);
      k.input(job, first, count, count, v);
      products(first, count, v, 0, panels);
    }
  });
}

// ---- which algorithm ----

bool winograd(const Tensor& x, const Tensor& packed, int64_t out) {
  return x.scalar_type() == ScalarType::Float && packed.numel() > 0 && x.size(1) >= 8 && out >= 8 &&
         x.size(2) * x.size(3) >= 16;
}

Tensor convolve(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                bool transposed) {
  const std::vector<int64_t> one = {1, 1}, zero = {0, 0};
  std::array<StableIValue, 9> stack{from(x),          from(weight), from(bias),
                                    from(one),        from(one),    from(one),
                                    from(transposed), from(zero),   from(int64_t{1})};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// ---- arguments ----

struct Slopes {
  double positive, negative;
};

Slopes act_slopes(const std::string& act, double alpha, double gain) {
  check(act == "linear" || act == "relu" || act == "lrelu", kOp, "act",
        "expected linear, relu or lrelu, got ", act);
  check(gain > 0, kOp, "gain", "expected a number > 0, got ", gain);
  const double low = act == "linear" ? 1 : act == "relu" ? 0 : alpha;
  return {gain, gain * low};
}

// Dense; nothing where nothing was packed.
Tensor check_packed(const char* name, const Tensor& packed, int64_t in, int64_t out) {
  if (packed.numel() == 0) return packed;
  const std::vector<int64_t> expected = {(out + conv3x3::kPanel - 1) / conv3x3::kPanel,
                                         conv3x3::kPlanes, in, conv3x3::kPanel};
  check(sizes_of(packed) == expected, kOp, name,
        "expected what conv3x3_pack makes of this weight, got shape ", shape_text(packed));
  return as_format(packed, MemoryFormat::Contiguous);
}

void check_weight(const Tensor& weight, const Tensor& x) {
  check_dim(kOp, "weight", weight, 4);
  check(weight.size(2) == 3 && weight.size(3) == 3, kOp, "weight", "expected a 3x3 kernel, got ",
        shape_text(weight));
  check_same_dtype(kOp, "weight", weight, x);
}

float* floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }

Job job_of(const Tensor& x, const Tensor& packed, const Tensor& y) {
  Job job;
  job.n = x.size(0), job.in = x.size(1), job.h = x.size(2), job.w = x.size(3);
  job.out = y.size(1);
  job.x = floats(x), job.u = floats(packed), job.y = floats(y);
  return job;
}

template <class T, class A>
PYFACELAT_CLONES void scale_by_sign(const T* from, const T* sign, T* to, int64_t count, A positive,
                                    A negative) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i)
    to[i] = static_cast<T>(static_cast<A>(from[i]) *
                           (static_cast<A>(sign[i]) > 0 ? positive : negative));
}

// x * slope by the sign of `sign`, both channels_last; in place where out is x.
void activate(const Tensor& x, const Tensor& sign, const Tensor& out, Slopes slopes) {
  dispatch_float(kOp, x, [&]<class T>() {
    using A = accumulate_t<T>;
    const T *source = static_cast<const T*>(x.data_ptr()),
            *signs = static_cast<const T*>(sign.data_ptr());
    T* to = static_cast<T*>(out.data_ptr());
    torch::stable::parallel_for(0, x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      scale_by_sign<T, A>(source + begin, signs + begin, to + begin, end - begin,
                          static_cast<A>(slopes.positive), static_cast<A>(slopes.negative));
    });
  });
}

Tensor conv3x3_cpu(const Tensor& x, const Tensor& weight, const Tensor& packed,
                   const Tensor& packed_back, OptionalTensor bias, std::string act, double alpha,
                   double gain) {
  check_dim(kOp, "x", x, 4);
  check_weight(weight, x);
  check(weight.size(1) == x.size(1), kOp, "weight", "expected ", x.size(1),
        " input channels, got shape ", shape_text(weight));
  const Tensor values = check_packed("packed", packed, x.size(1), weight.size(0));
  const int64_t out = weight.size(0);
  if (bias) {
    check(sizes_of(*bias) == std::vector<int64_t>{out}, kOp, "bias", "expected shape [", out,
          "], got ", shape_text(*bias));
    check_same_dtype(kOp, "bias", *bias, x);
  }
  const Slopes slopes = act_slopes(act, alpha, gain);
  const Tensor input = as_format(x, MemoryFormat::ChannelsLast);
  if (!winograd(x, packed, out)) {
    Tensor y = as_format(convolve(input, weight, bias, false), MemoryFormat::ChannelsLast);
    activate(y, y, y, slopes);
    return y;
  }
  Tensor y = empty_as(x, {x.size(0), out, x.size(2), x.size(3)}, MemoryFormat::ChannelsLast);
  Job job = job_of(input, values, y);
  OptionalTensor dense;
  if (bias) dense = as_format(*bias, MemoryFormat::Contiguous);
  job.bias = dense ? floats(*dense) : nullptr;
  job.positive = static_cast<float>(slopes.positive);
  job.negative = static_cast<float>(slopes.negative);
  run(job);
  return y;
}

Tensor conv3x3_backward_cpu(const Tensor& dy, const Tensor& y, const Tensor& weight,
                            const Tensor& packed_back, std::string act, double alpha, double gain) {
  check_dim(kOp, "dy", dy, 4);
  check(sizes_of(dy) == sizes_of(y), kOp, "dy", "expected the shape of y, ", shape_text(y),
        ", got ", shape_text(dy));
  check_same_dtype(kOp, "dy", dy, y);
  check_weight(weight, dy);
  const int64_t in = weight.size(1);
  const Tensor values = check_packed("packed_back", packed_back, weight.size(0), in);
  const Slopes slopes = act_slopes(act, alpha, gain);
  const Tensor gradient = as_format(dy, MemoryFormat::ChannelsLast);
  const Tensor output = as_format(y, MemoryFormat::ChannelsLast);
  if (!winograd(dy, packed_back, in)) {
    const Tensor dz = empty_as(dy, sizes_of(dy), MemoryFormat::ChannelsLast);
    activate(gradient, output, dz, slopes);
    return as_format(convolve(dz, weight, std::nullopt, true), MemoryFormat::ChannelsLast);
  }
  Tensor dx = empty_as(dy, {dy.size(0), in, dy.size(2), dy.size(3)}, MemoryFormat::ChannelsLast);
  Job job = job_of(gradient, values, dx);
  if (slopes.positive == slopes.negative) {
    job.positive = job.negative = static_cast<float>(slopes.positive);
  } else {
    job.gate = floats(output);
    job.gate_positive = static_cast<float>(slopes.positive);
    job.gate_negative = static_cast<float>(slopes.negative);
  }
  run(job);
  return dx;
}

}  // namespace

}  // namespace pyfacelat

// For tests: use at most the instruction set of this level (0 portable, 1 AVX2, 2 AVX-512); returns
// the name of what is used now.
extern "C" __attribute__((visibility("default"))) const char* pyfacelat_conv3x3_level(int level) {
  pyfacelat::kernels = pyfacelat::supported(level);
  return pyfacelat::kernels->name;
}

STABLE_TORCH_LIBRARY_IMPL(pyfacelat, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&pyfacelat::conv3x3_cpu));
  m.impl("conv3x3_backward", TORCH_BOX(&pyfacelat::conv3x3_backward_cpu));
}
