// The bits of 16-bit floats to float and back, as integer arithmetic. Free of torch and CUDA.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/simd.h"

namespace pyfacelat {

PYFACELAT_INLINE float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

PYFACELAT_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// Narrowing rounds to nearest even.
struct BFloat16Bits {
  PYFACELAT_INLINE static float widen(uint16_t h) { return bits_to_float(uint32_t(h) << 16); }
  PYFACELAT_INLINE static uint16_t narrow(float f) {
    const uint32_t u = float_to_bits(f);
    const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return static_cast<uint16_t>(f != f ? 0x7fc0 : rounded);
  }
};

struct HalfBits {
  PYFACELAT_INLINE static float widen(uint16_t h) {
    // Moving the bits leaves an exponent that is 112 too small; the multiplication by 2^112 mends
    // it for subnormals as well. Infinity and NaN need the float's own top exponent.
    const uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
    const float scaled = bits_to_float(magnitude) * bits_to_float(uint32_t(127 + 112) << 23);
    const uint32_t special = magnitude | 0x7f800000;
    const uint32_t bits = (h & 0x7fff) >= 0x7c00 ? special : float_to_bits(scaled);
    return bits_to_float(bits | (uint32_t(h & 0x8000) << 16));
  }
  PYFACELAT_INLINE static uint16_t narrow(float f) {
    const uint32_t u = float_to_bits(f);
    const uint32_t sign = (u >> 16) & 0x8000;
    const uint32_t m = u & 0x7fffffff;
    // Normal result: rebias the exponent and round the 13 bits that go.
    const uint32_t normal = (m - (uint32_t(112) << 23) + 0xfff + ((m >> 13) & 1)) >> 13;
    // Below 2^-14: adding 0.5 lines the last half bit up with the last float bit, and rounds.
    const uint32_t tiny = float_to_bits(bits_to_float(m) + 0.5f) - 0x3f000000;
    const uint32_t finite = m < 0x38800000 ? tiny : normal;
    // From 65520 on the nearest half is infinity.
    const uint32_t large = m > 0x7f800000 ? 0x7e00 : 0x7c00;
    return static_cast<uint16_t>(sign | (m >= 0x477ff000 ? large : finite));
  }
};

}  // namespace pyfacelat
