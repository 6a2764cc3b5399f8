// Each csrc/native/<part>.cpp adds its functions to `_native` through one register_<part>(module)
// function, declared here and called in module.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace pyfacelat {

void register_build_info(pybind11::module_& module);
void register_faces(pybind11::module_& module);

}  // namespace pyfacelat
