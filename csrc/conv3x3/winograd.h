// What a 3x3 convolution with frozen weights is computed from, and the kernels of each instruction
// set. No torch in here.
//
// Winograd's F(4x4, 3x3): a 4x4 tile of the output from a 6x6 tile of the input by 36 products
// instead of 144 (Lavin and Gray 2016). In one dimension
//   y = A^T [(G g) * (B^T d)],
// which is polynomial multiplication by values at points 0, +-a, +-b and infinity. a = 5/8 and
// b = 3/2 round 2 to 4 times less than the usual 1 and 2, and every constant below is exact in
// float.
//
// The work on a block of tiles:
//   V[plane][tile][in]  = B^T d B                       values of the input, 36 planes
//   M[plane][tile][out] = V[plane] U[plane]             36 matrix products
//   y                   = A^T M A, bias and activation
#pragma once

#include <cstdint>

namespace pyfacelat::conv3x3 {

constexpr int kTile = 4;    // outputs of a tile on each axis
constexpr int kPoints = 6;  // points of evaluation on each axis
constexpr int kPlanes = kPoints * kPoints;
constexpr int kPanel = 32;  // output channels that are packed together
constexpr int kPad = 16;    // floats between rows: powers of two apart, they would share cache sets

constexpr float kA = 0.625f, kB = 1.5f;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How the pixels of x become the input of the convolution.
enum class Input {
  kPlain,   // v = x
  kScaled,  // v = x * in_scale[n,c]
  kAffine,  // v = max(x * in_scale[c] + in_shift[c], 0)
  kGated,   // v = x * (in_gate > 0 ? gate_positive : gate_negative)
};

// What becomes of its output z.
enum class Output {
  kActivated,  // v = z + bias;                        y = v * (v > 0 ? positive : negative)
  kStyled,     // v = z * out_scale + noise + bias;    y likewise, then clipped to +-limit
  kMasked,     // y = out_gate * out_scale + out_shift > 0 ? z * out_scale : 0
};

// One convolution of x [n,h,w,in] to y [n,h,w,out], both dense, zeros around the input.
struct Job {
  int64_t n = 0, h = 0, w = 0, in = 0, out = 0;
  const float* x = nullptr;
  const float* u = nullptr;  // packed weights
  float* y = nullptr;

  Input input = Input::kPlain;
  const float* in_scale = nullptr;  // [n,in]; [in] for kAffine
  const float* in_shift = nullptr;  // [in]
  const float* in_gate = nullptr;   // like x
  float gate_positive = 1, gate_negative = 1;

  Output output = Output::kActivated;
  const float* out_scale = nullptr;  // [n,out], null for ones; [out] for kMasked
  const float* out_shift = nullptr;  // [out]
  const float* out_gate = nullptr;   // like y
  const float* noise = nullptr;      // [h,w] for each image, null for none
  int64_t noise_step = 0;            // from one image's noise to the next one's
  const float* bias = nullptr;       // [out], null for none
  float positive = 1, negative = 1;  // slopes of the activation, gain included
  float limit = 0;                   // NaN for none

  int64_t rows() const { return (h + kTile - 1) / kTile; }
  int64_t columns() const { return (w + kTile - 1) / kTile; }
  int64_t tiles() const { return n * rows() * columns(); }
  int64_t panels() const { return (out + kPanel - 1) / kPanel; }
  int64_t v_row() const { return round_up(in, kPad) + kPad; }
  static int64_t m_row(int64_t panels) { return panels * kPanel + kPad; }
};

// Kernels of one instruction set. Tiles are numbered along x, then y, then n.
struct Kernels {
  const char* name;
  // V of tiles [first, first + count), all input channels; `block` tiles of V make a plane.
  void (*input)(const Job& job, int64_t first, int64_t count, int64_t block, float* v);
  // M of all `count` tiles, panels [panel, panel + panels).
  void (*multiply)(const Job& job, int64_t count, int64_t panel, int64_t panels, const float* v,
                   float* m);
  // y of those tiles and panels.
  void (*output)(const Job& job, int64_t first, int64_t count, int64_t panel, int64_t panels,
                 const float* m);
};

// Null where the compiler lacks the instruction set.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* portable_kernels();

// The whole convolution, on torch's threads.
void run(const Job& job);

}  // namespace pyfacelat::conv3x3
