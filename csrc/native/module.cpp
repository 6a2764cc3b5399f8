// pybind11 module `_native`: host code on numpy arrays. It knows nothing of torch.
#include "native/module.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "Host code of pyfacelat on numpy arrays.";
  pyfacelat::register_build_info(module);
  pyfacelat::register_faces(module);
}
