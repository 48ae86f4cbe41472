#include "onnxviz/cuda/top_values.h"

#include <stdexcept>
#include <string>

#include <pybind11/stl.h>

#include "arrays.h"

namespace onnxviz::bindings {
namespace {

using Address = std::uintptr_t;
using Numbers = py::array_t<std::int64_t, py::array::c_style>;

cuda::MapElement element_of(const std::string& dtype) {
  if (dtype == "float32") return cuda::MapElement::float32;
  if (dtype == "float16") return cuda::MapElement::float16;
  if (dtype == "bfloat16") return cuda::MapElement::bfloat16;
  throw std::invalid_argument("maps of " + dtype + " cannot be searched, only float32, float16 and bfloat16");
}

template <class T>
T* place(Address address) {
  return reinterpret_cast<T*>(address);
}

cuda::StreamView view(int device, Address stream) { return {device, reinterpret_cast<void*>(stream)}; }

cuda::TopValues top_of(Address values, Address images, Address positions) {
  return {place<float>(values), place<std::int64_t>(images), place<std::int64_t>(positions)};
}

void maxima(Address maps, const std::string& dtype, std::int64_t images, std::int64_t channels,
            std::int64_t positions_per_map, bool channels_last, Address values, Address positions, int device,
            Address stream) {
  const cuda::MapElement element = element_of(dtype);
  const py::gil_scoped_release release;
  cuda::channel_maxima(place<void>(maps), element, {images, channels, positions_per_map, channels_last},
                       place<float>(values), place<std::int64_t>(positions), view(device, stream));
}

void clear(Address values, Address images, Address positions, std::int64_t channels, std::int64_t k, int device,
           Address stream) {
  const py::gil_scoped_release release;
  cuda::clear_top_values(top_of(values, images, positions), channels, k, view(device, stream));
}

void merge(Address new_values, Address new_positions, const Numbers& numbers, Address values, Address images,
           Address positions, std::int64_t channels, std::int64_t k, int device, Address stream) {
  const std::int64_t* number = numbers.data();
  const auto count = static_cast<std::int64_t>(numbers.size());
  const py::gil_scoped_release release;
  cuda::merge_top_values(place<float>(new_values), place<std::int64_t>(new_positions), number, count,
                         top_of(values, images, positions), channels, k, view(device, stream));
}

}  // namespace

void register_cuda_top_values(py::module_& module) {
  module.def("channel_maxima", &maxima, py::arg("maps"), py::arg("dtype"), py::arg("images"), py::arg("channels"),
             py::arg("positions_per_map"), py::arg("channels_last"), py::arg("values"), py::arg("positions"),
             py::arg("device"), py::arg("stream"), "Writes the maximum of every map and where it first is.");
  module.def("clear_top_values", &clear, py::arg("values"), py::arg("images"), py::arg("positions"),
             py::arg("channels"), py::arg("k"), py::arg("device"), py::arg("stream"), "Makes the lists hold none.");
  module.def("merge_top_values", &merge, py::arg("new_values"), py::arg("new_positions"),
             py::arg("numbers").noconvert(), py::arg("values"), py::arg("images"), py::arg("positions"),
             py::arg("channels"), py::arg("k"), py::arg("device"), py::arg("stream"),
             "Takes the maxima of more images, by their numbers, into the lists.");
}

}  // namespace onnxviz::bindings
