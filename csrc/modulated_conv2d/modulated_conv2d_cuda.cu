// modulated_conv2d on CUDA: everything around the convolution itself (formulas:
// modulated_conv2d.h).
//
// Each kernel reads and writes each tensor once, 16 bytes a thread where the channels allow it, and
// what can be summed on the way is summed there: the gradients of styles, demodulation, bias and
// noise need no pass of their own. Sums are in two stages, a partial sum a block and then one
// kernel over these, always in the same order: no atomics, so the same bits every time.
//
// A block is px threads along the channels (a power of two up to a warp) by 256 / px pixels.
#include "common/simt.h"
#include "modulated_conv2d/modulated_conv2d.h"
#include "modulated_conv2d/modulated_conv2d_cuda.h"

namespace pyfacelat::modconv {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
// Parts of an image: two blocks for each multiprocessor of a large GPU, and few enough partial
// sums.
constexpr int64_t kMostChunks = 256;
// Where nothing is summed a block ends after this many pixels a thread.
constexpr int64_t kPixelsPerThread = 4;
constexpr int kReduceRows = 8;

// Where a block stands.
struct Layout {
  int64_t n, pixels, lanes;
  int64_t chunk, chunks;  // pixels of a chunk, chunks of an image
};

template <class T>
using Wide = typename simt::Accumulate<T>::type;

template <class T, int kCount>
struct Values {
  Wide<T> v[kCount];
};

template <class T, int kCount>
__device__ Values<T, kCount> load(const T* p) {
  const auto pack = *reinterpret_cast<const simt::Pack<T, kCount>*>(p);
  Values<T, kCount> out;
#pragma unroll
  for (int i = 0; i < kCount; ++i) out.v[i] = simt::widen(pack.v[i]);
  return out;
}

template <class T, int kCount>
__device__ void store(T* p, const Values<T, kCount>& values) {
  simt::Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; ++i) pack.v[i] = simt::narrow<T>(values.v[i]);
  *reinterpret_cast<simt::Pack<T, kCount>*>(p) = pack;
}

template <class T, int kCount>
__device__ Values<T, kCount> load_or(const T* p, Wide<T> otherwise) {
  if (p) return load<T, kCount>(p);
  Values<T, kCount> out;
#pragma unroll
  for (int i = 0; i < kCount; ++i) out.v[i] = otherwise;
  return out;
}

// The part of a tensor that a thread works on.
struct Span {
  int64_t image, begin, end;  // pixels of the chunk
  int64_t lane;
  bool exists;  // whether there is such a channel
};

template <int kCount>
__device__ Span span_of(const Layout& l) {
  Span s;
  s.image = blockIdx.x / l.chunks;
  s.begin = blockIdx.x % l.chunks * l.chunk;
  s.end = s.begin + l.chunk < l.pixels ? s.begin + l.chunk : l.pixels;
  s.lane = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kCount;
  s.exists = s.lane < l.lanes;
  return s;
}

template <class T, int kCount>
__global__ void __launch_bounds__(kThreads)
    modulate_kernel(const T* x, const T* s, T* out, Layout l) {
  const Span at = span_of<kCount>(l);
  if (!at.exists) return;
  const auto scale = load<T, kCount>(s + at.image * l.lanes + at.lane);
  for (int64_t p = at.begin + threadIdx.y; p < at.end; p += blockDim.y) {
    const int64_t offset = (at.image * l.pixels + p) * l.lanes + at.lane;
    auto v = load<T, kCount>(x + offset);
#pragma unroll
    for (int i = 0; i < kCount; ++i) v.v[i] *= scale.v[i];
    store<T, kCount>(out + offset, v);
  }
}

template <class T, int kCount>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(T* y, const T* d, const T* noise, int64_t noise_step, const T* b,
                  Slopes<Wide<T>> s, Layout l) {
  const Span at = span_of<kCount>(l);
  if (!at.exists) return;
  const auto scale = load_or<T, kCount>(d ? d + at.image * l.lanes + at.lane : nullptr, 1);
  const auto bias = load_or<T, kCount>(b ? b + at.lane : nullptr, 0);
  for (int64_t p = at.begin + threadIdx.y; p < at.end; p += blockDim.y) {
    T* const place = y + (at.image * l.pixels + p) * l.lanes + at.lane;
    const Wide<T> shift = noise ? simt::widen(noise[at.image * noise_step + p]) : Wide<T>(0);
    auto v = load<T, kCount>(place);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      Wide<T> u = v.v[i] * scale.v[i] + shift + bias.v[i];
      u *= u > 0 ? s.positive : s.negative;
      u = u > s.limit ? s.limit : u;
      v.v[i] = u < -s.limit ? -s.limit : u;
    }
    store<T, kCount>(place, v);
  }
}

// Adds up the sums of the threads that share their channels, in the order of threadIdx.y, and
// writes them to `out` [lanes] from `lane` on.
template <class A, int kCount>
__device__ void sum_columns(A* shared, const A (&sum)[kCount], const Span& at, A* out) {
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
#pragma unroll
  for (int i = 0; i < kCount; ++i) shared[i * kThreads + thread] = sum[i];
  __syncthreads();
  if (threadIdx.y == 0 && at.exists) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      A total = 0;
      for (int r = 0; r < static_cast<int>(blockDim.y); ++r)
        total += shared[i * kThreads + r * static_cast<int>(blockDim.x) + thread];
      out[at.lane + i] = total;
    }
  }
  __syncthreads();
}

template <class T>
struct FinishBackward {
  const T *dy, *y, *d, *noise, *b;
  int64_t noise_step;
  T* dz;
  Wide<T>*sum_b, *sum_d, *sum_noise;
};

template <class T, int kCount>
__global__ void __launch_bounds__(kThreads)
    finish_backward_kernel(FinishBackward<T> a, Slopes<Wide<T>> s, Layout l) {
  using A = Wide<T>;
  SIMT_SHARED(A, shared, [kCount * kThreads]);
  const Span at = span_of<kCount>(l);
  const bool scaled = a.d && at.exists;
  const auto scale = load_or<T, kCount>(scaled ? a.d + at.image * l.lanes + at.lane : nullptr, 1);
  const auto bias = load_or<T, kCount>(a.b && at.exists ? a.b + at.lane : nullptr, 0);
  A sum_b[kCount], sum_d[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum_b[i] = sum_d[i] = 0;
  // All threads of a warp go round equally often: they add up the noise's gradient together.
  for (int64_t first = at.begin; first < at.end; first += blockDim.y) {
    const int64_t p = first + threadIdx.y;
    A total = 0;
    if (p < at.end && at.exists) {
      const int64_t offset = (at.image * l.pixels + p) * l.lanes + at.lane;
      const A shift = a.noise ? simt::widen(a.noise[at.image * a.noise_step + p]) : A(0);
      auto g = load<T, kCount>(a.dy + offset);
      const auto v = load<T, kCount>(a.y + offset);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const A y = v.v[i];
        A dp = g.v[i] * (y > 0 ? s.positive : s.negative);
        dp = (y < 0 ? -y : y) >= s.limit ? A(0) : dp;
        const A z = y * (y > 0 ? s.inverse_positive : s.inverse_negative) - shift - bias.v[i];
        sum_b[i] += dp;
        sum_d[i] += dp * z;
        total += dp;
        g.v[i] = dp * scale.v[i];
      }
      store<T, kCount>(a.dz + offset, g);
    }
    if (a.sum_noise) {
      for (int step = static_cast<int>(blockDim.x) / 2; step > 0; step /= 2)
        total += __shfl_xor_sync(simt::kFullWarp, total, step);
      if (threadIdx.x == 0 && p < at.end)
        a.sum_noise[(at.image * gridDim.y + blockIdx.y) * l.pixels + p] = total;
    }
  }
  // blockIdx.x counts images and chunks together.
  const int64_t row = static_cast<int64_t>(blockIdx.x) * l.lanes;
  if (a.sum_b) sum_columns<A, kCount>(shared, sum_b, at, a.sum_b + row);
  if (a.sum_d) sum_columns<A, kCount>(shared, sum_d, at, a.sum_d + row);
}

template <class T, int kCount>
__global__ void __launch_bounds__(kThreads)
    modulate_backward_kernel(T* g, const T* x, const T* s, Wide<T>* sum_s, Layout l) {
  using A = Wide<T>;
  SIMT_SHARED(A, shared, [kCount * kThreads]);
  const Span at = span_of<kCount>(l);
  A sum[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum[i] = 0;
  if (at.exists) {
    const auto scale = load<T, kCount>(s + at.image * l.lanes + at.lane);
    for (int64_t p = at.begin + threadIdx.y; p < at.end; p += blockDim.y) {
      const int64_t offset = (at.image * l.pixels + p) * l.lanes + at.lane;
      auto v = load<T, kCount>(g + offset);
      const auto in = load<T, kCount>(x + offset);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        sum[i] += v.v[i] * in.v[i];
        v.v[i] *= scale.v[i];
      }
      store<T, kCount>(g + offset, v);
    }
  }
  sum_columns<A, kCount>(shared, sum, at, sum_s + static_cast<int64_t>(blockIdx.x) * l.lanes);
}

// A block: a warp of columns of one group, by kReduceRows rows at a time.
template <class T>
__global__ void __launch_bounds__(kWarp* kReduceRows)
    reduce_kernel(const Wide<T>* part, const T* divisor, T* out, int64_t rows, int64_t columns,
                  int64_t blocks) {
  using A = Wide<T>;
  SIMT_SHARED(A, shared, [kReduceRows][kWarp]);
  const int64_t group = blockIdx.x / blocks;
  const int64_t column = blockIdx.x % blocks * kWarp + threadIdx.x;
  A sum = 0;
  if (column < columns)
    for (int64_t r = threadIdx.y; r < rows; r += kReduceRows)
      sum += part[(group * rows + r) * columns + column];
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    A total = 0;
#pragma unroll
    for (int r = 0; r < kReduceRows; ++r) total += shared[r][threadIdx.x];
    const int64_t at = group * columns + column;
    out[at] = simt::narrow<T>(divisor ? total / simt::widen(divisor[at]) : total);
  }
}

// ---- launching ----
struct Shape {
  Layout layout;
  dim3 grid, block;
  int64_t runs;
};

// `sums`: the kernel adds up over the pixels, so an image has few chunks.
Shape shape_of(const Extent& e, int count, bool sums) {
  const int64_t packs = (e.lanes + count - 1) / count;
  int px = 1;
  while (px < packs && px < kWarp) px *= 2;
  const int64_t py = kThreads / px;
  const int64_t least = (e.pixels + py - 1) / py;
  int64_t chunks = sums ? (least < kMostChunks ? least : kMostChunks)
                        : (least + kPixelsPerThread - 1) / kPixelsPerThread;
  const int64_t chunk = (e.pixels + chunks - 1) / chunks;
  chunks = (e.pixels + chunk - 1) / chunk;  // none of them is empty
  const int64_t runs = (packs + px - 1) / px;
  return {{e.n, e.pixels, e.lanes, chunk, chunks},
          dim3(static_cast<unsigned>(e.n * chunks), static_cast<unsigned>(runs)),
          dim3(static_cast<unsigned>(px), static_cast<unsigned>(py)),
          runs};
}

template <class T>
const T* as(const void* p) {
  return static_cast<const T*>(p);
}
template <class T>
T* as(void* p) {
  return static_cast<T*>(p);
}

constexpr int pack_size(int dtype) {
  return simt::kPackBytes / (dtype == simt::kDouble ? 8 : dtype == simt::kFloat ? 4 : 2);
}

// Calls f(type, width).
template <class T, class F>
int with_width(const Extent& e, const F& f) {
  if (e.packed) return f.template operator()<T, simt::kPackBytes / sizeof(T)>();
  return f.template operator()<T, 1>();
}

bool empty(const Extent& e) { return e.n * e.pixels * e.lanes == 0; }

}  // namespace

bool is_packed(int dtype, int64_t lanes, std::initializer_list<const void*> tensors) {
  for (const void* p : tensors)
    if (!simt::aligned(p)) return false;
  return lanes % pack_size(dtype) == 0;
}

Cut cut_of(int dtype, const Extent& e) {
  if (empty(e)) return {0, 0};
  const Shape s = shape_of(e, e.packed ? pack_size(dtype) : 1, true);
  return {s.layout.chunks, s.runs};
}

}  // namespace pyfacelat::modconv

using namespace pyfacelat::modconv;

extern "C" int pyfacelat_modulate_cuda(int dtype, const void* x, const void* s, void* out,
                                       const Extent* e, void* stream) {
  if (empty(*e)) return 0;
  return simt::with_type(dtype, [&]<class T>() {
    return with_width<T>(*e, [&]<class U, int kCount>() {
      const Shape h = shape_of(*e, kCount, false);
      return simt::launch(&modulate_kernel<U, kCount>, h.grid, h.block, 0, stream, as<U>(x),
                          as<U>(s), as<U>(out), h.layout);
    });
  });
}

extern "C" int pyfacelat_finish_cuda(int dtype, void* y, const void* d, const void* noise,
                                     int64_t maps, const void* b, const Extent* e,
                                     const Activation* a, void* stream) {
  if (empty(*e)) return 0;
  return simt::with_type(dtype, [&]<class T>() {
    return with_width<T>(*e, [&]<class U, int kCount>() {
      const Shape h = shape_of(*e, kCount, false);
      const Slopes<Wide<U>> slopes(a->slope, a->gain, a->clamp);
      return simt::launch(&finish_kernel<U, kCount>, h.grid, h.block, 0, stream, as<U>(y), as<U>(d),
                          as<U>(noise), maps > 1 ? e->pixels : 0, as<U>(b), slopes, h.layout);
    });
  });
}

extern "C" int pyfacelat_finish_backward_cuda(int dtype, const void* dy, const void* y,
                                              const void* d, const void* noise, int64_t maps,
                                              const void* b, void* dz, void* sum_b, void* sum_d,
                                              void* sum_noise, const Extent* e, const Activation* a,
                                              void* stream) {
  if (empty(*e)) return 0;
  return simt::with_type(dtype, [&]<class T>() {
    return with_width<T>(*e, [&]<class U, int kCount>() {
      const Shape h = shape_of(*e, kCount, true);
      const Slopes<Wide<U>> slopes(a->slope, a->gain, a->clamp);
      const FinishBackward<U> args{as<U>(dy),          as<U>(y),
                                   as<U>(d),           as<U>(noise),
                                   as<U>(b),           maps > 1 ? e->pixels : 0,
                                   as<U>(dz),          as<Wide<U>>(sum_b),
                                   as<Wide<U>>(sum_d), as<Wide<U>>(sum_noise)};
      return simt::launch(&finish_backward_kernel<U, kCount>, h.grid, h.block, 0, stream, args,
                          slopes, h.layout);
    });
  });
}

extern "C" int pyfacelat_modulate_backward_cuda(int dtype, void* g, const void* x, const void* s,
                                                void* sum_s, const Extent* e, void* stream) {
  if (empty(*e)) return 0;
  return simt::with_type(dtype, [&]<class T>() {
    return with_width<T>(*e, [&]<class U, int kCount>() {
      const Shape h = shape_of(*e, kCount, true);
      return simt::launch(&modulate_backward_kernel<U, kCount>, h.grid, h.block, 0, stream,
                          as<U>(g), as<U>(x), as<U>(s), as<Wide<U>>(sum_s), h.layout);
    });
  });
}

extern "C" int pyfacelat_reduce_cuda(int dtype, const void* part, const void* divisor, void* out,
                                     int64_t groups, int64_t rows, int64_t columns, void* stream) {
  if (groups * columns == 0) return 0;
  return simt::with_type(dtype, [&]<class T>() {
    const int64_t blocks = (columns + kWarp - 1) / kWarp;
    return simt::launch(&reduce_kernel<T>, dim3(static_cast<unsigned>(groups * blocks)),
                        dim3(kWarp, kReduceRows), 0, stream, as<Wide<T>>(part), as<T>(divisor),
                        as<T>(out), rows, columns, blocks);
  });
}
