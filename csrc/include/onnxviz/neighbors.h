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
#include <functional>
#include <memory>
#include <vector>

#include "onnxviz/row_source.h"

namespace onnxviz {

enum class Metric { euclidean, cosine };

// How one level of an index keeps a row: as integers of 8 or 4 bits, one to a column, or one to each of `columns`
// directions of the basis where it is projected, those from number `first` on, where the level before has ended.
struct LevelShape {
  std::int64_t columns = 0;
  int bits = 8;
  bool projected = false;
  std::int64_t first = 0;

  // Bytes of a row's codes, with the padding to whole lines of 64 bytes that the kernels want.
  std::int64_t row_bytes() const { return (columns * bits + 511) / 512 * 64; }
};

// What a projected level knows of a row.
struct PartTerms {
  float scale;
  float radius;
  float length;
  float residual;
};

// And what the first of them knows besides.
struct OriginTerms {
  float square;
  float slack;
};

// The memory of one level, of `rows` elements or rows each. It is the caller's, who may keep it in a file.
struct LevelMemory {
  std::uint8_t* codes = nullptr;
  double* norm = nullptr;  // from here: levels that are not projected
  double* sum = nullptr;
  float* scale = nullptr;
  float* zero = nullptr;
  float* radius = nullptr;
  PartTerms* parts = nullptr;  // projected levels
  OriginTerms* origins = nullptr;  // the first of them
};

struct Level {
  LevelShape shape;
  LevelMemory memory;
  // False where the codes are slow to reach at random, as in a file: they are read from front to back only.
  bool random_access = true;
};

// What makes an index fast, and never wrong: any mean, reference, scale and basis give the same neighbours.
struct IndexSetup {
  Metric metric = Metric::euclidean;
  std::vector<double> mean;       // of the rows, one number per column: codes of coordinates are spread around it
  std::vector<double> reference;  // taken off every row: zeros, or the mean where rows are far from the origin
  double scale = 1;               // a power of two that brings the rows, less the reference, near 1
  // Directions of largest variance, nearly orthonormal, largest first; its memory is only needed by the constructor.
  MatrixView<float> basis{nullptr, 0, 0};
  // Projected ones, each with directions of its own; then 4 bits, then 8 bits of every column, or one of these two.
  std::vector<Level> levels;
  // For Metric::cosine: a power of two and a norm for each row, (rows, 2).
  double* directions = nullptr;
};

// Level that a search looks at first: for one or two queries, for more, and for one or two that projections tell
// nothing of.
struct StartLevels {
  int single = 0;
  int batch = 0;
  int plain = 0;
};

// Rows that lie within a radius of each query, one query after the other.
struct WithinRadius {
  std::vector<std::int64_t> offsets;  // queries + 1 of them
  std::vector<std::int64_t> indices;
  std::vector<double> distances;
};

// A bank of rows made ready for queries, in two steps: construct, then `encode` every row once. The bank itself is not
// copied: its source has to stay unchanged.
class NeighborIndex {
 public:
  // Throws std::invalid_argument for an empty bank, or for a setup that does not fit it.
  NeighborIndex(std::shared_ptr<const RowSource<float>> bank, IndexSetup setup);
  NeighborIndex(std::shared_ptr<const RowSource<double>> bank, IndexSetup setup);
  ~NeighborIndex();
  NeighborIndex(NeighborIndex&&) noexcept;
  NeighborIndex& operator=(NeighborIndex&&) noexcept;

  std::int64_t rows() const;
  std::int64_t columns() const;

  // Fills the levels' memory for rows first .. first + count - 1. Throws std::invalid_argument for a row with NaN,
  // infinity or a number beyond 1e150, by its number.
  void encode(std::int64_t first, std::int64_t count, int threads);

  // Tries the levels on a sample of the rows themselves and keeps the start that costs least.
  StartLevels choose_start(int threads);
  StartLevels start() const;
  void set_start(StartLevels start);

  // The k nearest rows of each query, nearest first: distances and row numbers, both (queries.rows, k).
  // Queries are used as float64 whatever their type. The result does not depend on `threads`; 0 means all cores.
  void query(MatrixView<float> queries, std::int64_t k, double* distances, std::int64_t* indices, int threads) const;
  void query(MatrixView<double> queries, std::int64_t k, double* distances, std::int64_t* indices, int threads) const;

  // The same with every row of the bank as a query, (rows, k); each finds itself, too. `progress`, where it is not empty,
  // is called on this thread now and then with how many rows of how many are done; what it throws ends the search.
  using Progress = std::function<void(std::int64_t, std::int64_t)>;
  void query_all_rows(std::int64_t k, double* distances, std::int64_t* indices, int threads,
                      const Progress& progress = {}) const;

  // Every row at a distance of at most `radius`, nearest first.
  WithinRadius within(MatrixView<float> queries, double radius, int threads) const;
  WithinRadius within(MatrixView<double> queries, double radius, int threads) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace onnxviz
