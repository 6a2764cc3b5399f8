// Runs a convolution block by block, with the best kernels that the processor has.
//
// A block of tiles is transformed, multiplied and transformed back while it is in the cache of its
// core. Every number is computed in the same order whatever the number of threads.
#include "conv3x3/winograd.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <memory>

namespace pyfacelat::conv3x3 {

namespace {

const Kernels* supported(int level) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (level >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    if (const Kernels* found = avx512_kernels()) return found;
  if (level >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    if (const Kernels* found = avx2_kernels()) return found;
#endif
  return portable_kernels();
}

const Kernels* kernels = supported(2);

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

constexpr int64_t kPanelsAtOnce = 2;

// Tiles of a block: enough of them to pay for reading the weights, few enough for V to stay near.
int64_t block_tiles(int64_t in) { return std::clamp<int64_t>(in / 4 / 12 * 12, 24, 60); }

}  // namespace

void run(const Job& job) {
  const Kernels& k = *kernels;
  const int64_t tiles = job.tiles(), panels = job.panels();
  auto products = [&](int64_t first, int64_t count, const float* v, int64_t from, int64_t to) {
    for (int64_t p = from; p < to; p += kPanelsAtOnce) {
      const int64_t n = std::min(kPanelsAtOnce, to - p);
      float* m = scratch(1, kPlanes * count * Job::m_row(n));
      k.multiply(job, count, p, n, v, m);
      k.output(job, first, count, p, n, m);
    }
  };
  const int64_t threads = torch::stable::get_num_threads(), size = block_tiles(job.in);
  if (tiles < threads * size && threads > 1) {
    // Too few for a block a thread: all share V, and each takes some of the output channels.
    float* v = scratch(0, kPlanes * tiles * job.v_row());
    torch::stable::parallel_for(0, tiles, 4, [&](int64_t begin, int64_t end) {
      k.input(job, begin, end - begin, tiles, v + begin * job.v_row());
    });
    torch::stable::parallel_for(
        0, panels, 1, [&](int64_t begin, int64_t end) { products(0, tiles, v, begin, end); });
    return;
  }
  // Blocks of about that size, as many for each thread.
  const int64_t each = std::max<int64_t>((tiles + size * threads / 2) / (size * threads), 1);
  const int64_t blocks = std::min(each * threads, tiles);
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * tiles / blocks, count = (b + 1) * tiles / blocks - first;
      float* v = scratch(0, kPlanes * count * job.v_row());
      k.input(job, first, count, count, v);
      products(first, count, v, 0, panels);
    }
  });
}

}  // namespace pyfacelat::conv3x3

// For tests: use at most the instruction set of this level (0 portable, 1 AVX2, 2 AVX-512); returns
// the name of what is used now.
extern "C" __attribute__((visibility("default"))) const char* pyfacelat_conv3x3_level(int level) {
  using namespace pyfacelat::conv3x3;
  kernels = supported(level);
  return kernels->name;
}
