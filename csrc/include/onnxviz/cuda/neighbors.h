// Exact k nearest neighbours on a CUDA device: the same neighbours and the same distances, bit for bit, as those of
// onnxviz/neighbors.h, which defines them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "onnxviz/cuda/memory.h"
#include "onnxviz/neighbors.h"

namespace onnxviz::cuda {

// How much a search does at a time. No answer depends on it; tests make it small. 0: chosen by the index.
struct SearchSizes {
  std::int64_t first_rows = 0;       // rows of the first pass, which finds the first threshold
  std::int64_t capacity = 0;         // rows in doubt that a query's list holds; more cost a second look at the chunk
  std::int64_t rows_per_chunk = 0;   // after which thresholds are lowered
  std::int64_t queries_at_once = 0;
  std::int64_t k_in_shared = 1024;   // up to this k, at most 1024, neighbours are sorted in shared memory
  std::int64_t few_queries = 8;      // up to so many, at most 8, are compared without tensor cores
};

// Whether a search looks at projections first: for a few queries, and for more.
struct ProjectedStart {
  bool few = false;
  bool many = false;
};

// The rows of a bank on a device, which stays the caller's, unchanged for as long as the index lives. May be asked from
// several threads at once.
class NeighborIndex {
 public:
  // The bank's elements and all elements below are memory of the stream's device; what is on the stream already comes
  // first. Of the setup, which is in the host's memory, the levels and directions are not used. Throws
  // std::invalid_argument as the index of a CPU does, with its words, and where memory is on another device;
  // std::bad_alloc where the device has too little. Done when it returns.
  NeighborIndex(MatrixView<float> bank, const IndexSetup& setup, StreamView stream, SearchSizes sizes = {});
  NeighborIndex(MatrixView<double> bank, const IndexSetup& setup, StreamView stream, SearchSizes sizes = {});
  ~NeighborIndex();
  NeighborIndex(NeighborIndex&&) noexcept;
  NeighborIndex& operator=(NeighborIndex&&) noexcept;

  std::int64_t rows() const;
  std::int64_t columns() const;
  std::int64_t directions() const;  // of the projections; 0: there are none

  // Chosen by trying some of the rows.
  ProjectedStart start() const;
  void set_start(ProjectedStart start);

  // The k nearest rows of each query, nearest first: distances and row numbers, both (queries.rows, k) on the device.
  // Done when it returns.
  void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices,
             StreamView stream) const;
  void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices,
             StreamView stream) const;

  // The same with every row of the bank as a query, (rows, k); each finds itself, too. `progress`, where it is not
  // empty, is called on this thread now and then with how many rows of how many are done; what it throws ends the
  // search.
  using Progress = std::function<void(std::int64_t, std::int64_t)>;
  void query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, StreamView stream,
                      const Progress& progress = {}) const;

  // Bytes of the device that an index takes, bank not included, and what a search with so many queries at once takes
  // beside it.
  static std::size_t index_bytes(std::int64_t rows, std::int64_t columns, std::int64_t directions, Metric metric);
  static std::size_t search_bytes(std::int64_t rows, std::int64_t columns, std::int64_t directions,
                                  std::int64_t queries, std::int64_t k, SearchSizes sizes = {});

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace onnxviz::cuda
