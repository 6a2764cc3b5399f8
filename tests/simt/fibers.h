// A stack for each emulated thread, and the switch between them and the scheduler's own.
#pragma once

namespace simt {

constexpr unsigned kMaxFibers = 1024;

// Fiber number i will run `body` from its beginning when it is entered next. What it was doing
// before is forgotten. `body` ends with leave_fiber(true) and does not return.
void make_fiber(unsigned i, void (*body)());

void enter_fiber(unsigned i);     // by the scheduler; returns when the fiber leaves
void leave_fiber(bool for_good);  // by the fiber; returns when it is entered again

// Tells AddressSanitizer that the frames of fibers 0 to count - 1 were left behind.
void abandon_fibers(unsigned count);

}  // namespace simt
