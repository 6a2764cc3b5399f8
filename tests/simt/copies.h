// Asynchronous copies to shared memory: each thread's, in the groups that it closed.
//
// They happen when they are started, or (lazy) when they are waited for, the destination holding
// NaN in between.
#pragma once

namespace simt {

void set_lazy(bool lazy);

void forget_copies(unsigned threads);   // a block of that many threads begins
bool has_open_copies(unsigned thread);  // whether it started some that it has not waited for

}  // namespace simt
