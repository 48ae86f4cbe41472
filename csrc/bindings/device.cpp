#include "onnxviz/cuda/device.h"

#include <pybind11/stl.h>

#include "arrays.h"

namespace onnxviz::bindings {

void register_device(py::module_& module) {
  py::class_<cuda::Device>(module, "Device", py::is_final(), plain_metaclass(), "One CUDA device.")
      .def_readonly("name", &cuda::Device::name)
      .def_property_readonly("compute_capability",
                             [](const cuda::Device& device) { return py::make_tuple(device.major, device.minor); })
      .def_readonly("memory", &cuda::Device::memory)
      .def_readonly("multiprocessors", &cuda::Device::multiprocessors);

  const auto release = py::call_guard<py::gil_scoped_release>();
  module.def("compiled", &cuda::compiled, "Whether the CUDA sources are in this module.");
  module.def("why_not_compiled", &cuda::why_not_compiled, "Why they are not; empty where they are.");
  module.def("status", &cuda::status, release, "Empty where a device is usable, else the reason why none is.");
  module.def("device_count", &cuda::device_count, release, "Number of usable devices.");
  module.def("devices", &cuda::devices, release, "The usable devices; RuntimeError where there is none.");
  module.def("driver_version", &cuda::driver_version, release, "Newest CUDA version of the driver, 13000 for 13.0, or 0.");
  module.def("runtime_version", &cuda::runtime_version, release, "CUDA version of the linked runtime, or 0.");
}

}  // namespace onnxviz::bindings
