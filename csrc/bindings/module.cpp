// The module _core: a table of contents.
#include <pybind11/pybind11.h>

namespace onnxviz::bindings {

void register_build(pybind11::module_& module);
void register_neighbors(pybind11::module_& module);
void register_occlusion(pybind11::module_& module);

}  // namespace onnxviz::bindings

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  module.doc() = "Compiled kernels of onnxviz for the CPU; onnxviz.backend is their only caller.";
  onnxviz::bindings::register_build(module);
  onnxviz::bindings::register_neighbors(module);
  onnxviz::bindings::register_occlusion(module);
}
