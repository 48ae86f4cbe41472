#include "onnxviz/occlusion.h"

#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "arrays.h"

namespace onnxviz::bindings {
namespace {

static_assert(sizeof(Box) == 4 * sizeof(std::int64_t), "a row of the box array is a Box");

const Box* boxes_of(const BoxArray& boxes) {
  if (boxes.ndim() != 2 || boxes.shape(1) != 4) throw std::invalid_argument("boxes are not (n, 4)");
  return reinterpret_cast<const Box*>(boxes.data());
}

void check_contiguous(const py::array& array, const char* what) {
  if ((array.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument(std::string("the ") + what + " is not C-contiguous");
  }
}

void check_image(const py::array& array, const py::array& image, const char* what) {
  check_contiguous(array, what);
  if (!array.dtype().equal(image.dtype())) {
    throw std::invalid_argument(std::string("the ") + what + " has another element type than the image");
  }
}

// A (C, H, W) image has C planes, an (H, W, C) image has pixels of C elements; both are (H, W) with one channel.
ImageLayout layout_of(const py::array& image, bool channels_last) {
  if (image.ndim() != 3) throw std::invalid_argument("the image is not (C, H, W) or (H, W, C)");
  const auto size = static_cast<std::int64_t>(image.itemsize());
  if (channels_last) return {1, image.shape(0), image.shape(1), image.shape(2) * size};
  return {image.shape(0), image.shape(1), image.shape(2), size};
}

void fill(const py::array& image, const py::array& fill, const BoxArray& boxes, const py::array& batch,
          bool channels_last, const std::optional<BoxArray>& previous, int threads) {
  check_image(image, image, "image");
  check_image(fill, image, "fill");
  check_image(batch, image, "batch");
  const ImageLayout layout = layout_of(image, channels_last);
  const Box* box = boxes_of(boxes);
  const auto count = static_cast<std::int64_t>(boxes.shape(0));
  const auto same_shape = [&](const py::array& array, py::ssize_t skip) {
    for (py::ssize_t axis = 0; axis < 3; ++axis) {
      if (array.shape(axis + skip) != image.shape(axis)) return false;
    }
    return true;
  };
  if (fill.ndim() != 3 || !same_shape(fill, 0)) throw std::invalid_argument("the fill has another shape than the image");
  if (batch.ndim() != 4 || !same_shape(batch, 1)) throw std::invalid_argument("the batch is not one of such images");
  if (batch.shape(0) < count) throw std::invalid_argument("there are more boxes than images in the batch");
  if (!batch.writeable()) throw std::invalid_argument("the batch is read-only");
  const Box* before = nullptr;
  if (previous) {
    before = boxes_of(*previous);
    if (previous->shape(0) < count) throw std::invalid_argument("there are fewer previous boxes than boxes");
  }
  const void* image_data = image.data();
  const void* fill_data = fill.data();
  // The caller's own buffer, often bound to a session: py::array gives it only as const.
  void* batch_data = const_cast<void*>(batch.data());
  const py::gil_scoped_release release;
  fill_occluded(image_data, fill_data, layout, box, before, count, batch_data, threads);
}

static_assert(sizeof(Placement) == 8 * sizeof(std::int64_t), "a row of the placement array is a Placement");

std::size_t byte_count(const py::array& array) {
  return static_cast<std::size_t>(array.size()) * static_cast<std::size_t>(array.itemsize());
}

// Of a map, a source or a window; refused where a side is not positive, or where their product overflows.
std::size_t byte_count(const ImageLayout& layout) {
  std::int64_t bytes = 1;
  for (const std::int64_t side : {layout.planes, layout.height, layout.width, layout.pixel_bytes}) {
    if (side < 1) throw std::invalid_argument("a side of a map or window is not positive");
    if (side > std::numeric_limits<std::int64_t>::max() / bytes) {
      throw std::invalid_argument("a map or window is larger than any memory");
    }
    bytes *= side;
  }
  return static_cast<std::size_t>(bytes);
}

using PlacementArray = py::array_t<std::int64_t, py::array::c_style>;  // (n, 8) as in Placement
using Sides = std::pair<std::int64_t, std::int64_t>;                   // rows, columns

// Maps are told by their layout, not by their shape: the blocked one has no shape that numpy could say.
void overlay(const py::array& original, const py::array& source, const PlacementArray& placements,
             const py::array& windows,
             const std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>& layout, Sides source_size,
             Sides window_size, bool shared_source, const std::optional<py::array>& border) {
  const auto [planes, height, width, pixel_bytes] = layout;
  const auto [source_height, source_width] = source_size;
  const auto [window_height, window_width] = window_size;
  const ImageLayout map{planes, height, width, pixel_bytes};
  const std::size_t map_bytes = byte_count(map);
  const std::size_t source_bytes = byte_count(ImageLayout{planes, source_height, source_width, pixel_bytes});
  const std::size_t window_bytes = byte_count(ImageLayout{planes, window_height, window_width, pixel_bytes});
  if (placements.ndim() != 2 || placements.shape(1) != 8) throw std::invalid_argument("placements are not (n, 8)");
  const auto count = static_cast<std::int64_t>(placements.shape(0));
  const auto positions = static_cast<std::size_t>(count);
  check_contiguous(original, "original");
  check_contiguous(source, "source");
  check_contiguous(windows, "memory for the windows");
  if (byte_count(original) != map_bytes) throw std::invalid_argument("the original is not one map of that layout");
  // How many fit is divided, because the bytes of all could overflow.
  if (byte_count(source) / source_bytes < (shared_source ? 1 : positions)) {
    throw std::invalid_argument("the source is too small");
  }
  if (byte_count(windows) / window_bytes < positions) {
    throw std::invalid_argument("the memory for the windows is too small");
  }
  if (!windows.writeable()) throw std::invalid_argument("the memory for the windows is read-only");
  if (border) {
    check_contiguous(*border, "border");
    if (byte_count(*border) != static_cast<std::size_t>(pixel_bytes)) {
      throw std::invalid_argument("the border is not one pixel");
    }
  }
  const auto* placement = reinterpret_cast<const Placement*>(placements.data());
  const void* original_data = original.data();
  const void* source_data = source.data();
  const void* border_data = border ? border->data() : nullptr;
  void* windows_data = const_cast<void*>(windows.data());
  const py::gil_scoped_release release;
  overlay_windows(original_data, map, source_data, source_height, source_width, shared_source ? 0 : source_bytes,
                  placement, count, window_height, window_width, border_data, windows_data);
}

std::pair<DoubleArray, py::array_t<std::int64_t>> accumulate(const BoxArray& boxes, const DoubleArray& values,
                                                             std::int64_t height, std::int64_t width) {
  const Box* box = boxes_of(boxes);
  const auto count = static_cast<std::int64_t>(boxes.shape(0));
  if (values.ndim() != 1 || values.shape(0) != count) throw std::invalid_argument("there is not one value per box");
  if (height < 0 || width < 0) throw std::invalid_argument("the image has a negative size");
  DoubleArray sum({height, width});
  py::array_t<std::int64_t> covered({height, width});
  const double* value = values.data();
  double* sum_data = sum.mutable_data();
  std::int64_t* covered_data = covered.mutable_data();
  {
    const py::gil_scoped_release release;
    accumulate_boxes(box, value, count, height, width, sum_data, covered_data);
  }
  return {std::move(sum), std::move(covered)};
}

}  // namespace

void register_occlusion(py::module_& module) {
  module.def("fill_occluded", &fill, py::arg("image").noconvert(), py::arg("fill").noconvert(),
             py::arg("boxes").noconvert(), py::arg("batch").noconvert(), py::kw_only(), py::arg("channels_last"),
             py::arg("previous").noconvert() = py::none(), py::arg("threads") = 0,
             "Writes copies of image into batch, the pixels of each box taken from fill.");
  module.def("overlay_windows", &overlay, py::arg("original").noconvert(), py::arg("source").noconvert(),
             py::arg("placements").noconvert(), py::arg("windows").noconvert(), py::kw_only(), py::arg("layout"),
             py::arg("source_size"), py::arg("window_size"), py::arg("shared_source"),
             py::arg("border").noconvert() = py::none(),
             "Writes crops of original into windows, the fresh pixels of each taken from its source.");
  module.def("accumulate_boxes", &accumulate, py::arg("boxes").noconvert(), py::arg("values").noconvert(),
             py::arg("height"), py::arg("width"), "Per pixel: the sum of the values of the boxes over it, and their number.");
}

}  // namespace onnxviz::bindings
