// One source loop, compiled for several instruction sets; the best is picked when the library
// loads.
//
// Put PYFACELAT_CLONES before a free function (a template is fine) whose body is the hot loop, and
// call that function from inside parallel_for: a lambda is not cloned with the function around it.
// Lambdas and small helpers called by the loop must be inlined (PYFACELAT_INLINE) to be compiled
// for the wider instruction set. Pointers want __restrict__, scalars want to be parameters or
// locals: a scalar captured by reference may alias the output, and then nothing is vectorised.
// Check with
// `-fopt-info-vec` and a stopwatch.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12 && !defined(__CUDACC__) && !defined(__SANITIZE_ADDRESS__) &&              \
    !defined(__SANITIZE_THREAD__)
#define PYFACELAT_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PYFACELAT_CLONES
#endif

#define PYFACELAT_INLINE inline __attribute__((always_inline))
// After a lambda's parameter list: a lambda left out of line is compiled for the plain target only.
#define PYFACELAT_INLINE_LAMBDA __attribute__((always_inline))
