// The module _cuda: a table of contents.
#include <pybind11/pybind11.h>

namespace onnxviz::bindings {

void register_device(pybind11::module_& module);
void register_cuda_memory(pybind11::module_& module);
void register_cuda_neighbors(pybind11::module_& module);
void register_cuda_occlusion(pybind11::module_& module);
void register_cuda_top_values(pybind11::module_& module);

}  // namespace onnxviz::bindings

PYBIND11_MODULE(_cuda, module, pybind11::mod_gil_not_used()) {
  module.doc() = "CUDA side of onnxviz, or the reason why there is none; onnxviz.backend is its only caller.";
  onnxviz::bindings::register_device(module);
  onnxviz::bindings::register_cuda_memory(module);
  onnxviz::bindings::register_cuda_neighbors(module);
  onnxviz::bindings::register_cuda_occlusion(module);
  onnxviz::bindings::register_cuda_top_values(module);
}
