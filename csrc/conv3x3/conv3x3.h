// The Winograd path for those that own tensors: when to take it, and what it needs of them.
#pragma once

#include <optional>

#include "common/check.h"
#include "common/layout.h"
#include "conv3x3/winograd.h"

namespace pyfacelat::conv3x3 {

// Whether convolving x is faster this way than by torch's convolution (measured;
// docs/measurements.md): transforms cost the same however few channels there are. The same for a
// batch as for its items.
inline bool pays(const Tensor& x) {
  return x.scalar_type() == ScalarType::Float && x.size(1) >= 16 && x.size(2) * x.size(3) >= 16;
}

// The dense packed weight of a convolution of x, or nothing where there is none: an empty one
// stands for a weight that was not packed.
inline std::optional<Tensor> packed_weight(const char* op, const char* name,
                                           const std::optional<Tensor>& packed, const Tensor& x,
                                           int64_t out) {
  if (!packed || packed->numel() == 0) return std::nullopt;
  const std::vector<int64_t> expected = {(out + kPanel - 1) / kPanel, kPlanes, x.size(1), kPanel};
  check(sizes_of(*packed) == expected, op, name,
        "expected what conv3x3_pack makes of this weight, got shape ", shape_text(*packed));
  check_same_dtype(op, name, *packed, x);
  return as_format(*packed, MemoryFormat::Contiguous);
}

inline float* floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }

// From x to y, both channels_last.
inline Job job_of(const Tensor& x, const Tensor& packed, const Tensor& y) {
  Job job;
  job.n = x.size(0), job.in = x.size(1), job.h = x.size(2), job.w = x.size(3);
  job.out = y.size(1);
  job.x = floats(x), job.u = floats(packed), job.y = floats(y);
  return job;
}

}  // namespace pyfacelat::conv3x3
