#include "onnxviz/cuda/occlusion.h"

#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "arrays.h"

namespace onnxviz::bindings {
namespace {

using Address = std::uintptr_t;
using Layout = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
using Sides = std::pair<std::int64_t, std::int64_t>;  // rows, columns

// Boxes and placements are rows of these arrays.
static_assert(sizeof(Box) == 4 * sizeof(std::int64_t) && sizeof(Placement) == 8 * sizeof(std::int64_t));

ImageLayout layout_of(const Layout& layout) {
  const auto [planes, height, width, pixel_bytes] = layout;
  return {planes, height, width, pixel_bytes};
}

template <class Row>
const Row* rows_of(const BoxArray& array, const char* problem) {
  if (array.ndim() != 2 || static_cast<std::size_t>(array.shape(1)) * sizeof(std::int64_t) != sizeof(Row)) {
    throw std::invalid_argument(problem);
  }
  return reinterpret_cast<const Row*>(array.data());
}

void* place(Address address) { return reinterpret_cast<void*>(address); }

// The caller has checked that the memory is there.
void fill(Address image, Address fill, const Layout& layout, const BoxArray& boxes,
          const std::optional<BoxArray>& previous, Address batch, int device, Address stream) {
  const Box* now = rows_of<Box>(boxes, "boxes are not (n, 4)");
  const Box* before = previous ? rows_of<Box>(*previous, "boxes are not (n, 4)") : nullptr;
  const auto count = static_cast<std::int64_t>(boxes.shape(0));
  if (previous && previous->shape(0) < count) {
    throw std::invalid_argument("there are fewer previous boxes than boxes");
  }
  const py::gil_scoped_release release;
  cuda::fill_occluded(place(image), place(fill), layout_of(layout), now, before, count, place(batch),
                      {device, place(stream)});
}

void overlay(Address original, const Layout& layout, Address source, Sides source_size, std::size_t source_stride,
             const BoxArray& placements, Sides window_size, Address border, Address windows, int device,
             Address stream) {
  const auto* placement = rows_of<Placement>(placements, "placements are not (n, 8)");
  const auto count = static_cast<std::int64_t>(placements.shape(0));
  const py::gil_scoped_release release;
  cuda::overlay_windows(place(original), layout_of(layout), place(source), source_size.first, source_size.second,
                        source_stride, placement, count, window_size.first, window_size.second, place(border),
                        place(windows), {device, place(stream)});
}

}  // namespace

void register_cuda_occlusion(py::module_& module) {
  module.def("fill_occluded", &fill, py::arg("image"), py::arg("fill"), py::arg("layout"),
             py::arg("boxes").noconvert(), py::arg("previous").noconvert(), py::arg("batch"), py::arg("device"),
             py::arg("stream"), "Writes copies of image into batch, the pixels of each box taken from fill.");
  module.def("overlay_windows", &overlay, py::arg("original"), py::arg("layout"), py::arg("source"),
             py::arg("source_size"), py::arg("source_stride"), py::arg("placements").noconvert(),
             py::arg("window_size"), py::arg("border"), py::arg("windows"), py::arg("device"), py::arg("stream"),
             "Writes crops of original into windows, the fresh pixels of each taken from its source.");
}

}  // namespace onnxviz::bindings
