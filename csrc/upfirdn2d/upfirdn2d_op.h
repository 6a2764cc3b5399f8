// What the CPU and the CUDA op share: argument checks and the shape.
#pragma once

#include <vector>

#include "common/check.h"
#include "upfirdn2d/upfirdn2d.h"

namespace pyfacelat {

// Shape of upfirdn2d(x [N,C,H,W], f [fh,fw] or [taps] or null); pad is (left, right, top, bottom).
// x_last tells whether x is to be read as NHWC.
inline UpfirdnShape upfirdn_shape(const Tensor& x, const Tensor* f, int64_t up, int64_t down,
                                  const std::vector<int64_t>& pad, bool x_last) {
  constexpr const char* kOp = "upfirdn2d";
  check_dim(kOp, "x", x, 4);
  check(pad.size() == 4, kOp, "pad", "expected (left, right, top, bottom), got ", pad.size(),
        " values");
  check(up >= 1 && down >= 1, kOp, "up, down", "expected numbers >= 1, got ", up, " and ", down);
  const bool line = f && f->dim() == 1;
  check(!f || line || f->dim() == 2, kOp, "f", "expected 1 or 2 dimensions");
  UpfirdnShape s;
  s.planes = x_last ? x.size(0) : x.size(0) * x.size(1);
  s.lanes = x_last ? x.size(1) : 1;
  s.h = x.size(2);
  s.w = x.size(3);
  s.up = up;
  s.down = down;
  s.pad_x = pad[0];
  s.pad_y = pad[2];
  s.fh = f ? f->size(0) : 1;
  s.fw = f ? f->size(line ? 0 : 1) : 1;
  check(s.fh >= 1 && s.fw >= 1, kOp, "f", "expected at least one tap");
  s.oh = output_size(s.h, up, down, pad[2], pad[3], s.fh);
  s.ow = output_size(s.w, up, down, pad[0], pad[1], s.fw);
  check(s.oh >= 1 && s.ow >= 1, kOp, "pad", "the padded image is smaller than the filter");
  return s;
}

}  // namespace pyfacelat
