// upfirdn2d on CUDA: y = ((upsample(x) padded) * f)[::down] * gain (formula: upfirdn2d.h).
//
// Bound by memory: a block brings the input pixels that reach its tile of outputs into shared
// memory once, zeros of the padding included, and every thread adds up the taps of its outputs from
// there. The stuffed zeros are never visited: an output sees every up-th tap only. In NHWC a thread
// handles 16 bytes of neighbouring channels and a block 64, whole sectors of DRAM.
//
// Four by four taps are applied as they are, an outer product or not. As two passes of four they
// would have to go through shared memory in float in between: for 16-bit input that moves 256 bytes
// a pack (4 reads of 16 bytes, 1 write and 4 reads of 32, 1 barrier), and so do 16 reads of 16.
//
// Tiles are for the 16-bit types and float, and for filters that fit; double and very long filters
// take a thread an output and go to global memory.
#include "common/simt.h"
#include "upfirdn2d/upfirdn2d_cuda.h"

namespace pyfacelat {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxTaps = 256;  // of a filter in shared memory
// Outputs a thread: enough to spread the tile's halo, few enough that small maps fill the GPU.
constexpr int kPacksPerBlock = 4 * kThreads;
constexpr unsigned kSharedBudget = 44 << 10;  // beside the taps, without opting in for more

template <class T>
struct Arguments {
  const T* x;
  const typename simt::Accumulate<T>::type* f;
  T* y;
  UpfirdnShape s;
  bool line, flip;
  typename simt::Accumulate<T>::type gain;
};

// How outputs are cut into blocks: 2^log_h x 2^log_w pixels of a run of `packs` packs of lanes.
struct Tiling {
  int log_h, log_w;
  int packs;
  int ih, iw;  // input pixels of a tile
  int tiles_y, tiles_x, runs;
};

template <class A>
__device__ A tap(const A* f, const UpfirdnShape& s, bool line, bool flip, int ky, int kx) {
  const int fh = static_cast<int>(s.fh), fw = static_cast<int>(s.fw);
  const int y = flip ? ky : fh - 1 - ky, x = flip ? kx : fw - 1 - kx;
  return line ? f[y] * f[x] : f[y * fw + x];
}

__device__ inline int ceil_div(int a, int b) { return a > 0 ? (a - 1) / b + 1 : -(-a / b); }

// First of the taps k that meet a pixel and not a stuffed zero, where the output's tap 0 lies at t.
__device__ inline int first_tap(int t, int up) {
  const int rest = t % up;
  return rest > 0 ? up - rest : -rest;
}

// kCount lanes a thread; kUp, kDown, kTaps (both axes): 0 where only known at run time.
template <class T, int kCount, int kUp, int kDown, int kTaps>
__global__ void __launch_bounds__(kThreads) upfirdn_tile(Arguments<T> a, Tiling g) {
  using Pack = simt::Pack<T, kCount>;
  SIMT_SHARED(float, taps, [kMaxTaps]);
  SIMT_DYNAMIC_SHARED(Pack, tile);  // [ih, iw, packs]
  const UpfirdnShape& s = a.s;
  const int up = kUp ? kUp : static_cast<int>(s.up),
            down = kDown ? kDown : static_cast<int>(s.down);
  const int fh = kTaps ? kTaps : static_cast<int>(s.fh),
            fw = kTaps ? kTaps : static_cast<int>(s.fw);
  const int thread = static_cast<int>(threadIdx.x + threadIdx.y * blockDim.x);
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  for (int i = thread; i < fh * fw; i += threads)
    taps[i] = tap(a.f, s, a.line, a.flip, i / fw, i % fw) * a.gain;

  // Which tile.
  unsigned rest = blockIdx.x;
  const int run = static_cast<int>(rest % g.runs);
  rest /= g.runs;
  const int ox0 = static_cast<int>(rest % g.tiles_x) << g.log_w;
  rest /= g.tiles_x;
  const int oy0 = static_cast<int>(rest % g.tiles_y) << g.log_h;
  const int64_t plane = rest / g.tiles_y;
  const int h = static_cast<int>(s.h), w = static_cast<int>(s.w);
  const int oh = static_cast<int>(s.oh), ow = static_cast<int>(s.ow);
  const int pad_y = static_cast<int>(s.pad_y), pad_x = static_cast<int>(s.pad_x);
  const int iy0 = ceil_div(oy0 * down - pad_y, up), ix0 = ceil_div(ox0 * down - pad_x, up);
  const int64_t lane = (static_cast<int64_t>(run) * g.packs + threadIdx.x) * kCount;
  const bool lane_exists = lane < s.lanes;

  const T* const x = a.x + plane * h * w * s.lanes + lane;
  Pack zero;
#pragma unroll
  for (int i = 0; i < kCount; ++i) zero.v[i] = simt::narrow<T>(0.0f);
  for (int q = static_cast<int>(threadIdx.y); q < g.ih * g.iw; q += static_cast<int>(blockDim.y)) {
    const int r = q / g.iw;
    const int iy = iy0 + r, ix = ix0 + q - r * g.iw;
    const bool inside = lane_exists && iy >= 0 && iy < h && ix >= 0 && ix < w;
    const int64_t offset = (static_cast<int64_t>(iy) * w + ix) * s.lanes;
    tile[q * g.packs + threadIdx.x] = inside ? *reinterpret_cast<const Pack*>(x + offset) : zero;
  }
  __syncthreads();
  if (!lane_exists) return;

  T* const y = a.y + plane * oh * ow * s.lanes + lane;
  const int pixels = 1 << (g.log_h + g.log_w);
  for (int q = static_cast<int>(threadIdx.y); q < pixels; q += static_cast<int>(blockDim.y)) {
    const int oy = oy0 + (q >> g.log_w), ox = ox0 + (q & ((1 << g.log_w) - 1));
    if (oy >= oh || ox >= ow) continue;
    const int ty = oy * down - pad_y, tx = ox * down - pad_x;
    const int ky0 = first_tap(ty, up), kx0 = first_tap(tx, up);
    const int ny = kTaps ? kTaps / (kUp ? kUp : 1) : ceil_div(fh - ky0, up);
    const int nx = kTaps ? kTaps / (kUp ? kUp : 1) : ceil_div(fw - kx0, up);
    const int corner = ((ty + ky0) / up - iy0) * g.iw + (tx + kx0) / up - ix0;
    float sum[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum[i] = 0;
#pragma unroll
    for (int j = 0; j < ny; ++j) {
#pragma unroll
      for (int k = 0; k < nx; ++k) {
        const float c = taps[(ky0 + j * up) * fw + kx0 + k * up];
        const Pack v = tile[(corner + j * g.iw + k) * g.packs + threadIdx.x];
#pragma unroll
        for (int i = 0; i < kCount; ++i) sum[i] += c * simt::widen(v.v[i]);
      }
    }
    Pack out;
#pragma unroll
    for (int i = 0; i < kCount; ++i) out.v[i] = simt::narrow<T>(sum[i]);
    *reinterpret_cast<Pack*>(y + (static_cast<int64_t>(oy) * ow + ox) * s.lanes) = out;
  }
}

// One output a thread, everything from global memory.
template <class T>
__global__ void __launch_bounds__(kThreads) upfirdn_direct(Arguments<T> a) {
  using A = typename simt::Accumulate<T>::type;
  const UpfirdnShape& s = a.s;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= s.planes * s.oh * s.ow * s.lanes) return;
  const int64_t lane = index % s.lanes, ox = index / s.lanes % s.ow;
  const int64_t oy = index / s.lanes / s.ow % s.oh, plane = index / s.lanes / s.ow / s.oh;
  const int up = static_cast<int>(s.up);
  const int ty = static_cast<int>(oy * s.down - s.pad_y),
            tx = static_cast<int>(ox * s.down - s.pad_x);
  const T* const x = a.x + plane * s.h * s.w * s.lanes + lane;
  A sum = 0;
  for (int ky = first_tap(ty, up); ky < s.fh; ky += up) {
    const int iy = (ty + ky) / up;
    if (iy < 0 || iy >= s.h) continue;
    for (int kx = first_tap(tx, up); kx < s.fw; kx += up) {
      const int ix = (tx + kx) / up;
      if (ix < 0 || ix >= s.w) continue;
      sum += tap(a.f, s, a.line, a.flip, ky, kx) * a.gain *
             simt::widen(x[(static_cast<int64_t>(iy) * s.w + ix) * s.lanes]);
    }
  }
  a.y[index] = simt::narrow<T>(sum);
}

int log2_up(int64_t n) {
  int log = 0;
  while (int64_t(1) << log < n) ++log;
  return log;
}

// False where even one pixel's taps do not fit into shared memory.
bool cut(const UpfirdnShape& s, int count, unsigned size, Tiling& g) {
  if (s.fh * s.fw > kMaxTaps) return false;
  const int64_t packs = (s.lanes + count - 1) / count;
  const int64_t most = count == 1 ? 32 : 4;  // 64 bytes of packs; of single lanes, a warp
  g.packs = static_cast<int>(packs < most ? packs : most);
  g.runs = static_cast<int>((packs + g.packs - 1) / g.packs);
  const int pixels = log2_up(kPacksPerBlock / g.packs);
  g.log_h = pixels / 2;
  g.log_w = pixels - g.log_h;
  const auto limit = [](int log, int64_t n) { return log < log2_up(n) ? log : log2_up(n); };
  g.log_h = limit(g.log_h, s.oh);
  g.log_w = limit(g.log_w, s.ow);
  for (;;) {
    g.ih = static_cast<int>((((int64_t(1) << g.log_h) - 1) * s.down + s.fh - 1) / s.up + 1);
    g.iw = static_cast<int>((((int64_t(1) << g.log_w) - 1) * s.down + s.fw - 1) / s.up + 1);
    if (int64_t(g.ih) * g.iw * g.packs * size <= kSharedBudget) break;
    if (g.log_h + g.log_w == 0) return false;
    --(g.log_h >= g.log_w ? g.log_h : g.log_w);
  }
  g.tiles_y = static_cast<int>((s.oh + (int64_t(1) << g.log_h) - 1) >> g.log_h);
  g.tiles_x = static_cast<int>((s.ow + (int64_t(1) << g.log_w) - 1) >> g.log_w);
  return s.planes * g.tiles_y * g.tiles_x * g.runs <= 0x7fffffff;
}

template <class T, int kCount>
int start_tiles(const Arguments<T>& a, const Tiling& g, void* stream) {
  const UpfirdnShape& s = a.s;
  const bool four = s.fh == 4 && s.fw == 4;
  auto kernel = &upfirdn_tile<T, kCount, 0, 0, 0>;
  if (four && s.up == 1 && s.down == 1) kernel = &upfirdn_tile<T, kCount, 1, 1, 4>;
  if (four && s.up == 2 && s.down == 1) kernel = &upfirdn_tile<T, kCount, 2, 1, 4>;
  if (four && s.up == 1 && s.down == 2) kernel = &upfirdn_tile<T, kCount, 1, 2, 4>;
  const unsigned blocks = static_cast<unsigned>(s.planes * g.tiles_y * g.tiles_x * g.runs);
  const unsigned shared = static_cast<unsigned>(g.ih * g.iw * g.packs * sizeof(T) * kCount);
  return simt::launch(kernel, dim3(blocks), dim3(g.packs, kThreads / g.packs), shared, stream, a,
                      g);
}

template <class T>
int start_direct(const Arguments<T>& a, void* stream) {
  const UpfirdnShape& s = a.s;
  const int64_t blocks = (s.planes * s.oh * s.ow * s.lanes + kThreads - 1) / kThreads;
  return simt::launch(&upfirdn_direct<T>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0,
                      stream, a);
}

template <class T>
int start(const Arguments<T>& a, void* stream) {
  if constexpr (sizeof(T) < sizeof(double)) {
    constexpr int kCount = simt::kPackBytes / sizeof(T);
    const bool packs = a.s.lanes % kCount == 0 && simt::aligned(a.x) && simt::aligned(a.y);
    Tiling g;
    if (cut(a.s, packs ? kCount : 1, packs ? simt::kPackBytes : sizeof(T), g))
      return packs ? start_tiles<T, kCount>(a, g, stream) : start_tiles<T, 1>(a, g, stream);
  }
  return start_direct<T>(a, stream);
}

template <class T>
int run(const void* x, const void* f, void* y, const UpfirdnShape& s, bool line, bool flip,
        double gain, void* stream) {
  using A = typename simt::Accumulate<T>::type;
  return start(Arguments<T>{static_cast<const T*>(x), static_cast<const A*>(f), static_cast<T*>(y),
                            s, line, flip, static_cast<A>(gain)},
               stream);
}

}  // namespace
}  // namespace pyfacelat

extern "C" int pyfacelat_upfirdn2d_cuda(int dtype, const void* x, const void* f, void* y,
                                        const pyfacelat::UpfirdnShape* shape, int line, int flip,
                                        double gain, void* stream) {
  const pyfacelat::UpfirdnShape& s = *shape;
  if (s.planes * s.oh * s.ow * s.lanes == 0) return 0;
  return simt::with_type(
      dtype, [&]<class T>() { return pyfacelat::run<T>(x, f, y, s, line, flip, gain, stream); });
}
