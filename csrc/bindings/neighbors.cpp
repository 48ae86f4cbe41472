#include "onnxviz/neighbors.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"

namespace onnxviz::bindings {
namespace {

using ByteMatrix = py::array_t<std::uint8_t, py::array::c_style>;
using FloatArray = py::array_t<float, py::array::c_style>;

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

template <class T>
T* memory(py::array_t<T, py::array::c_style>& array, std::int64_t elements, const char* what) {
  if (array.size() != elements) {
    throw std::invalid_argument(std::string(what) + " has " + std::to_string(array.size()) + " elements; needed: " +
                                std::to_string(elements));
  }
  return array.mutable_data();
}

static_assert(sizeof(PartTerms) == 4 * sizeof(float) && sizeof(OriginTerms) == 2 * sizeof(float));

// The arrays of one level, held for as long as the index that writes and reads them.
struct LevelArrays {
  std::int64_t columns;
  int bits;
  bool random_access;
  std::optional<std::int64_t> first_direction;  // none where the level is not projected
  ByteMatrix codes;
  std::optional<DoubleArray> norm;
  std::optional<DoubleArray> sum;
  std::optional<FloatArray> scale;
  std::optional<FloatArray> zero;
  std::optional<FloatArray> radius;
  std::optional<FloatMatrix> parts;
  std::optional<FloatMatrix> origins;

  Level level(std::int64_t rows) {
    const LevelShape shape{columns, bits, first_direction.has_value(), first_direction.value_or(0)};
    const auto needed = [](auto& array, std::int64_t elements, const char* what) {
      if (!array) throw std::invalid_argument(std::string("a level needs its ") + what);
      return memory(*array, elements, what);
    };
    LevelMemory memories;
    memories.codes = memory(codes, rows * shape.row_bytes(), "codes");
    if (shape.projected) {
      memories.parts = reinterpret_cast<PartTerms*>(needed(parts, 4 * rows, "parts"));
      if (shape.first == 0) memories.origins = reinterpret_cast<OriginTerms*>(needed(origins, 2 * rows, "origins"));
    } else {
      memories.norm = needed(norm, rows, "norm");
      memories.sum = needed(sum, rows, "sum");
      memories.scale = needed(scale, rows, "scale");
      memories.zero = needed(zero, rows, "zero");
      memories.radius = needed(radius, rows, "radius");
    }
    return {shape, memories, random_access};
  }
};

using FileParts = std::vector<std::tuple<std::string, std::int64_t, std::int64_t>>;

// The index together with the arrays whose memory it views.
class Index {
 public:
  template <class T>
  Index(py::array_t<T, py::array::c_style> bank, const std::string& metric, const DoubleArray& mean,
        const DoubleArray& reference, double scale, const FloatMatrix& basis, std::vector<LevelArrays> levels, std::optional<DoubleMatrix> directions)
      : bank_(bank),
        levels_(std::move(levels)),
        directions_(std::move(directions)),
        index_(make(rows_in_memory(view(bank, "rows")), metric, mean, reference, scale, basis)) {}

  Index(const FileParts& files, std::int64_t columns, bool float64, const std::string& metric,
        const DoubleArray& mean, const DoubleArray& reference, double scale, const FloatMatrix& basis, std::vector<LevelArrays> levels,
        std::optional<DoubleMatrix> directions)
      : levels_(std::move(levels)),
        directions_(std::move(directions)),
        index_(float64 ? make(rows_in_files<double>(parts(files), columns), metric, mean, reference, scale, basis)
                       : make(rows_in_files<float>(parts(files), columns), metric, mean, reference, scale, basis)) {}

  void encode(std::int64_t first, std::int64_t count, int threads) {
    const py::gil_scoped_release release;
    index_.encode(first, count, threads);
  }

  void choose_start(int threads) {
    const py::gil_scoped_release release;
    index_.choose_start(threads);
  }

  std::tuple<int, int, int> start() const {
    const StartLevels start = index_.start();
    return {start.single, start.batch, start.plain};
  }
  void set_start(std::tuple<int, int, int> start) {
    index_.set_start({std::get<0>(start), std::get<1>(start), std::get<2>(start)});
  }

  template <class T>
  std::pair<DoubleMatrix, py::array_t<std::int64_t>> query(const py::array_t<T, py::array::c_style>& queries,
                                                           std::int64_t k, int threads) const {
    const MatrixView<T> rows = view(queries, "queries");
    return answer(rows.rows, k, [&](double* distances, std::int64_t* indices) {
      index_.query(rows, k, distances, indices, threads);
    });
  }

  std::pair<DoubleMatrix, py::array_t<std::int64_t>> query_all_rows(
      std::int64_t k, int threads, const std::function<void(std::int64_t, std::int64_t)>& progress) const {
    return answer(rows(), k, [&](double* distances, std::int64_t* indices) {
      index_.query_all_rows(k, distances, indices, threads, [&](std::int64_t done, std::int64_t of) {
        const py::gil_scoped_acquire acquire;
        // A Ctrl-C ends the search.
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (progress) progress(done, of);
      });
    });
  }

  template <class T>
  std::tuple<py::array, py::array, py::array> within(const py::array_t<T, py::array::c_style>& queries, double radius,
                                                     int threads) const {
    const MatrixView<T> rows = view(queries, "queries");
    WithinRadius found;
    {
      const py::gil_scoped_release release;
      found = index_.within(rows, radius, threads);
    }
    return {array(found.offsets), array(found.indices), array(found.distances)};
  }

  std::int64_t rows() const { return index_.rows(); }
  std::int64_t columns() const { return index_.columns(); }

 private:
  template <class Source>
  NeighborIndex make(Source source, const std::string& metric, const DoubleArray& mean, const DoubleArray& reference,
                     double scale, const FloatMatrix& basis) {
    IndexSetup setup;
    setup.metric = metric_named(metric);
    setup.mean.assign(mean.data(), mean.data() + mean.size());
    setup.reference.assign(reference.data(), reference.data() + reference.size());
    setup.scale = scale;
    setup.basis = view(basis, "directions");
    const std::int64_t rows = source->rows();
    for (LevelArrays& level : levels_) setup.levels.push_back(level.level(rows));
    if (directions_) setup.directions = memory(*directions_, 2 * rows, "directions");
    const py::gil_scoped_release release;
    return NeighborIndex(std::move(source), std::move(setup));
  }

  static std::vector<RowFile> parts(const FileParts& files) {
    std::vector<RowFile> result;
    for (const auto& [path, offset, rows] : files) result.push_back({path, offset, rows});
    return result;
  }

  template <class Call>
  std::pair<DoubleMatrix, py::array_t<std::int64_t>> answer(std::int64_t queries, std::int64_t k,
                                                            const Call& call) const {
    if (k < 1 || k > rows()) {
      throw std::invalid_argument("k is " + std::to_string(k) + "; allowed: 1 to " + std::to_string(rows()));
    }
    DoubleMatrix distances({queries, k});
    py::array_t<std::int64_t> indices({queries, k});
    double* distance = distances.mutable_data();
    std::int64_t* index = indices.mutable_data();
    {
      const py::gil_scoped_release release;
      call(distance, index);
    }
    return {std::move(distances), std::move(indices)};
  }

  template <class T>
  static py::array array(const std::vector<T>& numbers) {
    return py::array_t<T>(static_cast<py::ssize_t>(numbers.size()), numbers.data());
  }

  py::array bank_;
  std::vector<LevelArrays> levels_;
  std::optional<DoubleMatrix> directions_;
  NeighborIndex index_;
};

}  // namespace

void register_neighbors(py::module_& module) {
  py::class_<LevelArrays>(module, "LevelArrays", py::is_final(), plain_metaclass(),
                          "The memory of one level of a NeighborIndex.")
      .def(py::init<std::int64_t, int, bool, std::optional<std::int64_t>, ByteMatrix, std::optional<DoubleArray>,
                    std::optional<DoubleArray>, std::optional<FloatArray>, std::optional<FloatArray>,
                    std::optional<FloatArray>, std::optional<FloatMatrix>, std::optional<FloatMatrix>>(),
           py::kw_only(), py::arg("columns"), py::arg("bits"), py::arg("random_access"), py::arg("first_direction"),
           py::arg("codes").noconvert(), py::arg("norm").noconvert() = py::none(),
           py::arg("sum").noconvert() = py::none(), py::arg("scale").noconvert() = py::none(),
           py::arg("zero").noconvert() = py::none(), py::arg("radius").noconvert() = py::none(),
           py::arg("parts").noconvert() = py::none(), py::arg("origins").noconvert() = py::none());
  module.def(
      "row_bytes",
      [](std::int64_t columns, int bits) { return LevelShape{columns, bits}.row_bytes(); },
      py::arg("columns"), py::arg("bits"), "Bytes of a row's codes.");
  py::class_<Index>(module, "NeighborIndex", py::is_final(), plain_metaclass(),
                    "Exact nearest neighbours of the rows of one matrix.")
      .def(py::init<FloatMatrix, const std::string&, const DoubleArray&, const DoubleArray&, double, const FloatMatrix&,
                    std::vector<LevelArrays>, std::optional<DoubleMatrix>>(),
           py::arg("bank").noconvert(), py::arg("metric"), py::arg("mean"), py::arg("reference"), py::arg("scale"), py::arg("basis"),
           py::arg("levels"), py::arg("directions").noconvert() = py::none())
      .def(py::init<DoubleMatrix, const std::string&, const DoubleArray&, const DoubleArray&, double, const FloatMatrix&,
                    std::vector<LevelArrays>, std::optional<DoubleMatrix>>(),
           py::arg("bank").noconvert(), py::arg("metric"), py::arg("mean"), py::arg("reference"), py::arg("scale"), py::arg("basis"),
           py::arg("levels"), py::arg("directions").noconvert() = py::none())
      .def(py::init<const FileParts&, std::int64_t, bool, const std::string&, const DoubleArray&, const DoubleArray&, double,
                    const FloatMatrix&, std::vector<LevelArrays>, std::optional<DoubleMatrix>>(),
           py::arg("files"), py::arg("columns"), py::arg("float64"), py::arg("metric"), py::arg("mean"), py::arg("reference"),
           py::arg("scale"), py::arg("basis"), py::arg("levels"), py::arg("directions").noconvert() = py::none())
      .def("encode", &Index::encode, py::arg("first"), py::arg("count"), py::arg("threads") = 0,
           "Fill the levels' memory for some rows.")
      .def("choose_start", &Index::choose_start, py::arg("threads") = 0,
           "Try the levels on a sample of the rows and keep the start that costs least.")
      .def_property("start", &Index::start, &Index::set_start)
      .def("query", &Index::query<float>, py::arg("queries").noconvert(), py::arg("k"), py::arg("threads") = 0)
      .def("query", &Index::query<double>, py::arg("queries").noconvert(), py::arg("k"), py::arg("threads") = 0,
           "Distances and row numbers of the k nearest rows, nearest first.")
      .def("query_all_rows", &Index::query_all_rows, py::arg("k"), py::arg("threads") = 0,
           py::arg("progress") = std::function<void(std::int64_t, std::int64_t)>(),
           "The same with every row of the bank as a query; each finds itself, too.")
      .def("within", &Index::within<float>, py::arg("queries").noconvert(), py::arg("radius"), py::arg("threads") = 0)
      .def("within", &Index::within<double>, py::arg("queries").noconvert(), py::arg("radius"), py::arg("threads") = 0,
           "Offsets, row numbers and distances of all rows within a radius, nearest first.")
      .def_property_readonly("rows", &Index::rows)
      .def_property_readonly("columns", &Index::columns);
}

}  // namespace onnxviz::bindings
