// Storage types, by the code that a raw-pointer entry point takes.
#pragma once

namespace simt {

enum DType : int { kFloat = 0, kDouble = 1, kHalf = 2, kBFloat16 = 3 };

}  // namespace simt
