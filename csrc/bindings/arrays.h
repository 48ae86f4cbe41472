// The numpy arrays that the core accepts, each named once, and what the classes share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

namespace onnxviz::bindings {

namespace py = pybind11;

// Never converted in here: onnxviz/backend.py makes C-contiguous arrays of the right type, once.
using FloatMatrix = py::array_t<float, py::array::c_style>;
using DoubleMatrix = py::array_t<double, py::array::c_style>;
using DoubleArray = py::array_t<double, py::array::c_style>;
using BoxArray = py::array_t<std::int64_t, py::array::c_style>;  // (n, 4) top, left, bottom, right

// Our classes have no static properties, for which pybind11 brings a metaclass of its own; without it their stubs are
// ordinary classes.
inline py::metaclass plain_metaclass() { return py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type)); }

}  // namespace onnxviz::bindings
