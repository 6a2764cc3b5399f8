// Kernels with one planted bug each, and the same kernels without: what the emulation must catch.
#include "common/simt.h"

namespace {

// The numbers are shared with tests/simt/test_planted.py.
enum Bug : int {
  kNone,
  kNoBarrierBeforeRead,
  kNoBarrierBeforeReuse,
  kReadPastTheEnd,
  kTileTooShort,
  kDynamicTileTooShort,
  kUninitialised,
  kMisalignedVector,
  kBarrierInBranch,
  kReturnBeforeBarrier,
  kShuffleInBranch,
  kTwoBlocksOneWord,
  kNoWarpBarrier,
  kTwoBarriers,
  kWaitTooWeak,
  kNoBarrierAfterWait,
  kMisalignedCopy,
  kOverlappingCopies,
  kNoWait,
  kTooMuchShared,
  kWrongFragment,
};

constexpr int kThreads = 64;

// Each block reverses its 64 numbers, round after round, and adds up the last round.
__global__ void reverse_and_sum(const float* x, float* y, float* sum, int n, int rounds, int bug) {
  SIMT_SHARED(float, tile, [kThreads]);
  SIMT_SHARED(float, short_tile, [kThreads - 1]);
  SIMT_SHARED(float, partial, [2]);
  SIMT_DYNAMIC_SHARED(float, dynamic_tile);
  float* const t = bug == kTileTooShort          ? short_tile
                   : bug == kDynamicTileTooShort ? dynamic_tile
                                                 : tile;
  const int i = static_cast<int>(threadIdx.x);
  const int first = static_cast<int>(blockIdx.x) * kThreads;
  float v = 0;
  if (first + i < n || bug == kReadPastTheEnd) v = x[first + i];
  if (bug == kReturnBeforeBarrier && first + i >= n) return;
  for (int r = 0; r < rounds; ++r) {
    if (!(bug == kUninitialised && i == 5)) t[i] = v;
    if (bug == kBarrierInBranch) {
      if (i < 40) __syncthreads();
    } else if (bug == kTwoBarriers) {
      if (i < 32)
        __syncthreads();
      else
        __syncthreads();
    } else if (bug != kNoBarrierBeforeRead) {
      __syncthreads();
    }
    v = t[kThreads - 1 - i];
    if (bug != kNoBarrierBeforeReuse) __syncthreads();
  }
  if (first + i < n) y[first + i] = v;
  float s = v;
  if (bug == kShuffleInBranch) {
    if (i % 2 == 0) s += __shfl_down_sync(simt::kFullWarp, s, 16);
  } else {
    for (int d = 16; d > 0; d /= 2) s += __shfl_down_sync(simt::kFullWarp, s, d);
  }
  if (i % 32 == 0) partial[i / 32] = s;
  __syncthreads();
  if (i == 0) {
    if (bug == kTwoBlocksOneWord)
      sum[0] += partial[0] + partial[1];
    else
      sum[blockIdx.x] = partial[0] + partial[1];
  }
}

// Four numbers a thread in one access.
__global__ void copy_vectors(const float* x, float* y, int n, int bug) {
  using Pack = simt::Pack<float, 4>;
  const int i = 4 * static_cast<int>(threadIdx.x);
  if (i + 4 < n)
    *reinterpret_cast<Pack*>(y + i) =
        *reinterpret_cast<const Pack*>(x + i + (bug == kMisalignedVector ? 1 : 0));
}

// Neighbours inside a warp trade through shared memory.
__global__ void trade(const float* x, float* y, int bug) {
  SIMT_SHARED(float, tile, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = x[i];
  if (bug != kNoWarpBarrier) __syncwarp();
  y[i] = tile[i ^ 1];
}

// y = x, 64 numbers a stage, two stages under way.
__global__ void staged_copy(const float* x, float* y, int stages, int bug) {
  SIMT_SHARED(float, tile, [2][kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  const auto start = [&](int s) {
    if (i < kThreads / 4) {
      const int shift = bug == kMisalignedCopy ? 1 : 0;
      simt::copy_async(&tile[s % 2][4 * i], x + s * kThreads + 4 * i + shift, 16);
      if (bug == kOverlappingCopies && i == 3)
        simt::copy_async(&tile[s % 2][4 * i + 4], x + s * kThreads, 16);
    }
    simt::copy_commit();
  };
  start(0);
  for (int s = 0; s < stages; ++s) {
    if (s + 1 < stages)
      start(s + 1);
    else
      simt::copy_commit();
    if (bug == kWaitTooWeak)
      simt::copy_wait<2>();
    else if (bug != kNoWait)
      simt::copy_wait<1>();
    if (bug != kNoBarrierAfterWait) __syncthreads();
    y[s * kThreads + i] = tile[s % 2][(i + 32) % kThreads];
    __syncthreads();
  }
  if (bug != kNoWait) simt::copy_wait<0>();
}

// d = a b^T with a [16, 16] and b [8, 16], on a tensor core.
__global__ void product(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d, int bug) {
  SIMT_SHARED(__nv_bfloat16, ta, [16][16]);
  SIMT_SHARED(__nv_bfloat16, tb, [16][16]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) {
    ta[i / 16][i % 16] = a[i];
    tb[i / 16][i % 16] = b[i / 16 < 8 ? i : i - 128];
  }
  __syncwarp();
  uint32_t fa[4], fb[4];
  simt::load_matrices<false>(fa, &ta[lane % 16][lane / 16 * 8]);
  simt::load_matrices<false>(fb, &tb[lane % 16][lane / 16 * 8]);
  const uint32_t pair[2] = {fb[0], fb[bug == kWrongFragment ? 1 : 2]};
  float sum[4] = {0, 0, 0, 0};
  simt::multiply_add<__nv_bfloat16>(sum, fa, pair);
  for (int i = 0; i < 4; ++i) d[(lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2] = sum[i];
}

// d = a b with a [16, 16] and b [16, 8]: b by transposed loads.
__global__ void product_transposed(const __nv_bfloat16* a, const __nv_bfloat16* b, float* d) {
  SIMT_SHARED(__nv_bfloat16, ta, [16][16]);
  SIMT_SHARED(__nv_bfloat16, tb, [16][8]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) ta[i / 16][i % 16] = a[i];
  for (int i = lane; i < 128; i += 32) tb[i / 8][i % 8] = b[i];
  __syncwarp();
  uint32_t fa[4], fb[4];
  simt::load_matrices<false>(fa, &ta[lane % 16][lane / 16 * 8]);
  simt::load_matrices<true>(fb, &tb[lane % 16][0]);
  const uint32_t pair[2] = {fb[0], fb[1]};
  float sum[4] = {0, 0, 0, 0};
  simt::multiply_add<__nv_bfloat16>(sum, fa, pair);
  for (int i = 0; i < 4; ++i) d[(lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2] = sum[i];
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int planted_reverse(const float* x, float* y, float* sum, int n, int rounds, int bug) {
  unsigned shared = kThreads * sizeof(float);
  if (bug == kDynamicTileTooShort) shared -= 4;
  if (bug == kTooMuchShared) shared = 228 << 10;
  return simt::launch(&reverse_and_sum, dim3((n + kThreads - 1) / kThreads), dim3(kThreads), shared,
                      nullptr, x, y, sum, n, rounds, bug);
}
EXPORT int planted_vectors(const float* x, float* y, int n, int bug) {
  return simt::launch(&copy_vectors, dim3(1), dim3(kThreads), 0, nullptr, x, y, n, bug);
}
EXPORT int planted_trade(const float* x, float* y, int bug) {
  return simt::launch(&trade, dim3(1), dim3(kThreads), 0, nullptr, x, y, bug);
}
EXPORT int planted_copy(const float* x, float* y, int stages, int bug) {
  return simt::launch(&staged_copy, dim3(1), dim3(kThreads), 0, nullptr, x, y, stages, bug);
}
EXPORT int planted_product(const void* a, const void* b, float* d, int transposed, int bug) {
  const auto* ta = static_cast<const __nv_bfloat16*>(a);
  const auto* tb = static_cast<const __nv_bfloat16*>(b);
  if (transposed)
    return simt::launch(&product_transposed, dim3(1), dim3(32), 0, nullptr, ta, tb, d);
  return simt::launch(&product, dim3(1), dim3(32), 0, nullptr, ta, tb, d, bug);
}
