#include "onnxviz/cuda/neighbors.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "arrays.h"

namespace onnxviz::bindings {
namespace {

using Address = std::uintptr_t;
using Told = std::function<void(std::int64_t, std::int64_t)>;

cuda::StreamView view(int device, Address stream) { return {device, reinterpret_cast<void*>(stream)}; }

template <class T>
MatrixView<T> matrix(Address elements, std::int64_t rows, std::int64_t columns) {
  return {reinterpret_cast<const T*>(elements), rows, columns};
}

bool is_float64(const std::string& dtype) {
  if (dtype == "float64") return true;
  if (dtype == "float32") return false;
  throw std::invalid_argument("rows of " + dtype + " cannot be searched, only float32 and float64");
}

Metric metric_of(const std::string& text) {
  if (text == "euclidean") return Metric::euclidean;
  if (text == "cosine") return Metric::cosine;
  throw std::invalid_argument("metric is '" + text + "'; allowed: 'euclidean', 'cosine'");
}

// The index; whoever made it keeps the bank alive.
class DeviceIndex {
 public:
  DeviceIndex(Address bank, std::int64_t rows, std::int64_t columns, const std::string& dtype,
              const std::string& metric, const DoubleArray& mean, const DoubleArray& reference, double scale,
              const FloatMatrix& basis, int device, Address stream)
      : index_(make(bank, rows, columns, is_float64(dtype), setup(metric, mean, reference, scale, basis),
                    view(device, stream))) {}

  void query(Address queries, std::int64_t rows, std::int64_t columns, const std::string& dtype, std::int64_t k,
             Address distances, Address indices, int device, Address stream) const {
    const bool wide = is_float64(dtype);
    const py::gil_scoped_release release;
    auto* const far = reinterpret_cast<double*>(distances);
    auto* const near = reinterpret_cast<std::int64_t*>(indices);
    if (wide) {
      index_.query(matrix<double>(queries, rows, columns), k, far, near, view(device, stream));
    } else {
      index_.query(matrix<float>(queries, rows, columns), k, far, near, view(device, stream));
    }
  }

  void query_all_rows(std::int64_t k, Address distances, Address indices, int device, Address stream,
                      const Told& progress) const {
    const py::gil_scoped_release release;
    index_.query_all_rows(k, reinterpret_cast<double*>(distances), reinterpret_cast<std::int64_t*>(indices),
                          view(device, stream), [&](std::int64_t done, std::int64_t of) {
                            const py::gil_scoped_acquire acquire;
                            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                            if (progress) progress(done, of);
                          });
  }

  std::tuple<bool, bool> start() const { return {index_.start().few, index_.start().many}; }
  void set_start(std::tuple<bool, bool> start) { index_.set_start({std::get<0>(start), std::get<1>(start)}); }
  std::int64_t rows() const { return index_.rows(); }
  std::int64_t columns() const { return index_.columns(); }
  std::int64_t directions() const { return index_.directions(); }

 private:
  static IndexSetup setup(const std::string& metric, const DoubleArray& mean, const DoubleArray& reference,
                          double scale, const FloatMatrix& basis) {
    if (basis.ndim() != 2) {
      throw std::invalid_argument("the basis has " + std::to_string(basis.ndim()) + " axes; allowed: 2");
    }
    IndexSetup setup;
    setup.metric = metric_of(metric);
    setup.mean.assign(mean.data(), mean.data() + mean.size());
    setup.reference.assign(reference.data(), reference.data() + reference.size());
    setup.scale = scale;
    setup.basis = {basis.data(), basis.shape(0), basis.shape(1)};
    return setup;
  }

  static cuda::NeighborIndex make(Address bank, std::int64_t rows, std::int64_t columns, bool wide,
                                  const IndexSetup& setup, cuda::StreamView stream) {
    const py::gil_scoped_release release;
    if (wide) return {matrix<double>(bank, rows, columns), setup, stream};
    return {matrix<float>(bank, rows, columns), setup, stream};
  }

  cuda::NeighborIndex index_;
};

}  // namespace

void register_cuda_neighbors(py::module_& module) {
  py::class_<DeviceIndex>(module, "NeighborIndex", py::is_final(), plain_metaclass(),
                          "Exact nearest neighbours among the rows of a matrix on a device.")
      .def(py::init<Address, std::int64_t, std::int64_t, const std::string&, const std::string&, const DoubleArray&,
                    const DoubleArray&, double, const FloatMatrix&, int, Address>(),
           py::arg("bank"), py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("metric"),
           py::arg("mean").noconvert(), py::arg("reference").noconvert(), py::arg("scale"),
           py::arg("basis").noconvert(), py::arg("device"), py::arg("stream"))
      .def("query", &DeviceIndex::query, py::arg("queries"), py::arg("rows"), py::arg("columns"), py::arg("dtype"),
           py::arg("k"), py::arg("distances"), py::arg("indices"), py::arg("device"), py::arg("stream"),
           "Writes distances and row numbers of the k nearest rows of each query, nearest first.")
      .def("query_all_rows", &DeviceIndex::query_all_rows, py::arg("k"), py::arg("distances"), py::arg("indices"),
           py::arg("device"), py::arg("stream"), py::arg("progress") = Told(),
           "The same with every row of the bank as a query; each finds itself, too.")
      .def_property("start", &DeviceIndex::start, &DeviceIndex::set_start)
      .def_property_readonly("rows", &DeviceIndex::rows)
      .def_property_readonly("columns", &DeviceIndex::columns)
      .def_property_readonly("directions", &DeviceIndex::directions);

  const auto release = py::call_guard<py::gil_scoped_release>();
  module.def(
      "neighbor_index_bytes",
      [](std::int64_t rows, std::int64_t columns, std::int64_t directions, const std::string& metric) {
        return cuda::NeighborIndex::index_bytes(rows, columns, directions, metric_of(metric));
      },
      release, py::arg("rows"), py::arg("columns"), py::arg("directions"), py::arg("metric"),
      "Bytes of the device that an index takes beside its bank.");
  module.def(
      "neighbor_search_bytes",
      [](std::int64_t rows, std::int64_t columns, std::int64_t directions, std::int64_t queries, std::int64_t k) {
        return cuda::NeighborIndex::search_bytes(rows, columns, directions, queries, k);
      },
      release, py::arg("rows"), py::arg("columns"), py::arg("directions"), py::arg("queries"), py::arg("k"),
      "Bytes of the device that a search takes beside the index.");
}

}  // namespace onnxviz::bindings
