#include "onnxviz/neighbors.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "arrays.h"

namespace onnxviz::bindings {
namespace {

template <class T>
MatrixView<T> view(const py::array_t<T, py::array::c_style>& matrix, const char* what) {
  if (matrix.ndim() != 2) {
    throw std::invalid_argument(std::string("the ") + what + " have " + std::to_string(matrix.ndim()) +
                                " axes; allowed: 2");
  }
  return {matrix.data(), matrix.shape(0), matrix.shape(1)};
}

Metric metric_named(const std::string& text) {
  if (text == "euclidean") return Metric::euclidean;
  if (text == "cosine") return Metric::cosine;
  throw std::invalid_argument("metric is '" + text + "'; allowed: 'euclidean', 'cosine'");
}

// The index together with the array whose memory it views.
class Index {
 public:
  template <class T>
  Index(py::array_t<T, py::array::c_style> bank, const std::string& metric, int threads)
      : bank_(bank), index_(make(view(bank, "rows"), metric_named(metric), threads)) {}

  template <class T>
  std::pair<DoubleMatrix, py::array_t<std::int64_t>> query(const py::array_t<T, py::array::c_style>& queries,
                                                           std::int64_t k, int threads) const {
    const MatrixView<T> rows = view(queries, "queries");
    if (k < 1 || k > index_.rows()) {
      throw std::invalid_argument("k is " + std::to_string(k) + "; allowed: 1 to " + std::to_string(index_.rows()));
    }
    DoubleMatrix distances({rows.rows, k});
    py::array_t<std::int64_t> indices({rows.rows, k});
    double* distance = distances.mutable_data();
    std::int64_t* index = indices.mutable_data();
    {
      const py::gil_scoped_release release;
      index_.query(rows, k, distance, index, threads);
    }
    return {std::move(distances), std::move(indices)};
  }

  std::int64_t rows() const { return index_.rows(); }
  std::int64_t columns() const { return index_.columns(); }

 private:
  template <class T>
  static NeighborIndex make(MatrixView<T> bank, Metric metric, int threads) {
    const py::gil_scoped_release release;
    return NeighborIndex(bank, metric, threads);
  }

  py::array bank_;
  NeighborIndex index_;
};

}  // namespace

void register_neighbors(py::module_& module) {
  py::class_<Index>(module, "NeighborIndex", py::is_final(), plain_metaclass(),
                    "Exact nearest neighbours of the rows of one matrix.")
      .def(py::init<FloatMatrix, const std::string&, int>(), py::arg("bank").noconvert(), py::arg("metric"),
           py::arg("threads") = 0)
      .def(py::init<DoubleMatrix, const std::string&, int>(), py::arg("bank").noconvert(), py::arg("metric"),
           py::arg("threads") = 0)
      .def("query", &Index::query<float>, py::arg("queries").noconvert(), py::arg("k"), py::arg("threads") = 0)
      .def("query", &Index::query<double>, py::arg("queries").noconvert(), py::arg("k"), py::arg("threads") = 0,
           "Distances and row numbers of the k nearest rows, nearest first.")
      .def_property_readonly("rows", &Index::rows)
      .def_property_readonly("columns", &Index::columns);
}

}  // namespace onnxviz::bindings
