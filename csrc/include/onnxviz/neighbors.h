// Exact k nearest neighbours of dense rows, in the order of distances computed in float64.
//
// The distance that decides is d^2 = sum_j (x_j - q_j)^2, in float64, summed in this order on every instruction set:
// sixteen running sums, sum l over the terms j = l mod 16 with j ascending, product and sum rounded separately; then
// sums l and l+8 are added, l and l+4, l and l+2, l and l+1. Equal distances are ordered by the lower row number.
//
// For Metric::cosine the rows are x / |x| in float64, and the distance is d^2 / 2, which is
// 1 - cos without its cancellation. A row of zeros has no direction: its distance is 1 to every row, itself included.
#pragma once

#include <cstdint>
#include <memory>

namespace onnxviz {

enum class Metric { euclidean, cosine };

// A C-contiguous matrix that somebody else owns.
template <class T>
struct MatrixView {
  const T* data;
  std::int64_t rows;
  std::int64_t columns;

  const T* row(std::int64_t i) const { return data + i * columns; }
};

// A bank of rows made ready for queries. The bank's memory is viewed, not copied: it has to outlive the index and stay
// unchanged. Beside it the index keeps one float32 copy, from which a bound tells which rows need the exact distance.
class NeighborIndex {
 public:
  // Throws std::invalid_argument for an empty bank, and for one with NaN, infinity or numbers beyond 1e150, by row.
  NeighborIndex(MatrixView<float> bank, Metric metric, int threads);
  NeighborIndex(MatrixView<double> bank, Metric metric, int threads);
  ~NeighborIndex();
  NeighborIndex(NeighborIndex&&) noexcept;
  NeighborIndex& operator=(NeighborIndex&&) noexcept;

  std::int64_t rows() const;
  std::int64_t columns() const;

  // The k nearest rows of each query, nearest first: distances and row numbers, both (queries.rows, k).
  // Queries are used as float64 whatever their type. The result does not depend on `threads`; 0 means all cores.
  void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices, int threads) const;
  void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices, int threads) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace onnxviz
