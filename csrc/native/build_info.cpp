// build_info(): what this module was built from, with and for.
#include "build_info.h"

#include "native/module.h"

namespace pyfacelat {
namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = PYFACELAT_VERSION;
  info["git"] = PYFACELAT_GIT;
  info["cuda_archs"] = PYFACELAT_ARCHS;
  info["cuda_toolkit"] = PYFACELAT_TOOLKIT;
  info["no_cuda_reason"] = PYFACELAT_NO_CUDA_REASON;
  info["compiler"] = PYFACELAT_COMPILER;
  info["flags"] = PYFACELAT_FLAGS;
  info["torch_headers"] = PYFACELAT_TORCH_BUILT;
  return info;
}

}  // namespace

void register_build_info(pybind11::module_& module) {
  module.def("build_info", &build_info,
             "What this module was built from, with and for, as a dict of str.");
}

}  // namespace pyfacelat
