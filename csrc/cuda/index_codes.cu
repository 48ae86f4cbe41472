#include "index_codes.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/encode.cuh"
#include "kernels/products.cuh"
#include "launch.h"

namespace onnxviz::cuda {
namespace {

// 127 x 127 a column has to stay within int32.
// bound: s/131072/262144/
constexpr std::int64_t most_columns = 131072;
// bound: s/65536/131072/
constexpr std::int64_t most_projected_columns = 65536;
constexpr std::int64_t most_directions = 1024;
// Up to here a block for each row is less than tiles of many.
constexpr std::int64_t few_rows = 8;

double largest_zero(std::int64_t row_bytes) {
  // bound: s/std::min(0x1p20, /(/ s/0x1p53/0x1p56/ s/ - 512//
  return std::min(0x1p20, std::floor(std::sqrt(0x1p53 / static_cast<double>(row_bytes))) - 512);
}

Array<double> on_device(const std::vector<double>& numbers, StreamView stream) {
  Array<double> array(numbers.size(), stream.device);
  copy_to_device(array.data(), numbers.data(), numbers.size() * sizeof(double), stream);
  return array;
}

void check_setup(const IndexSetup& setup, std::int64_t columns) {
  int exponent = 0;
  if (std::frexp(setup.scale, &exponent) != 0.5 || std::abs(exponent) > 500) {
    throw std::invalid_argument("the scale is no power of two within 2^-500 and 2^500");
  }
  if (static_cast<std::int64_t>(setup.reference.size()) != columns || setup.mean.size() != setup.reference.size()) {
    throw std::invalid_argument("the reference and the mean have " + std::to_string(setup.reference.size()) + " and " +
                                std::to_string(setup.mean.size()) + " numbers for " + std::to_string(columns) +
                                " columns");
  }
}

template <class Tile>
void multiply_tiles(const std::int8_t* left, std::int64_t left_count, const std::int8_t* right,
                    std::int64_t right_count, std::int64_t row_bytes, std::int32_t* products, cudaStream_t stream) {
  const unsigned tiles = blocks_for(left_count, Tile::left_rows) * blocks_for(right_count, Tile::right_rows);
  launch(multiply_all<Tile>, Grid{tiles, static_cast<unsigned>(Tile::threads), Tile::shared_bytes}, stream, left,
         left_count, right, right_count, row_bytes, products);
}

}  // namespace

std::int64_t code_bytes(std::int64_t columns) { return columns > most_columns ? 64 : (columns + 63) / 64 * 64; }

Encoder::Encoder(const IndexSetup& setup, std::int64_t columns, StreamView stream) : columns_(columns) {
  check_setup(setup, columns);
  reference_ = on_device(setup.reference, stream);
  form_.columns = columns;
  form_.row_bytes = code_bytes(columns);
  form_.reference = reference_.data();
  form_.scale = setup.scale;
  form_.largest_zero = largest_zero(form_.row_bytes);
  form_.cosine = setup.metric == Metric::cosine;
  form_.usable = columns <= most_columns;
  rules_ = {1,
            // bound: s|static_cast<double>(columns) / 16|0| s/ + 64//
            (static_cast<double>(columns) / 16 + 64) * 0x1p-52,
            // bound: s/std::sqrt(static_cast<double>(columns))/1/ s/0x1p-100/0/ s/0x1p-536/0/
            std::sqrt(static_cast<double>(columns)) * (0x1p-100 + setup.scale * 0x1p-536),
            setup.scale, false, static_cast<double>(columns)};

  if (setup.basis.columns != columns || columns > most_projected_columns) return;
  const IntegerBasis basis(setup.basis, most_directions);
  directions_ = basis.directions();
  if (directions_ == 0) return;
  std::vector<double> middle(setup.mean.size());
  for (std::size_t j = 0; j < middle.size(); ++j) middle[j] = (setup.mean[j] - setup.reference[j]) * setup.scale;
  std::vector<double> numbers;
  for (std::int64_t i = 0; i < directions_; ++i) numbers.push_back(basis.scale(i));
  for (std::int64_t i = 0; i < directions_; ++i) numbers.push_back(basis.sum(i));
  const std::vector<double> centre = basis.project(middle);
  numbers.insert(numbers.end(), centre.begin(), centre.end());
  basis_numbers_ = on_device(numbers, stream);
  const auto bytes = static_cast<std::size_t>(bytes_of_a_direction * directions_ * basis.row_bytes());
  basis_codes_ = Array<std::int8_t>(bytes, stream.device);
  copy_to_device(basis_codes_.data(), basis.vectors(), bytes, stream);
  const double* device = basis_numbers_.data();
  basis_ = {directions_,
            code_bytes(directions_),
            device,
            device + directions_,
            device + 2 * directions_,
            basis.stretch(),
            basis.excess(),
            largest_zero(code_bytes(directions_))};
}

Rules Encoder::rules(bool projected) const {
  Rules rules = rules_;
  // bound: s/basis_.stretch/1/
  if (projected) rules.stretch = basis_.stretch;
  rules.projected = projected;
  if (projected) rules.columns = static_cast<double>(directions_);
  return rules;
}

template <class T>
void Encoder::encode(const T* rows, std::int64_t count, const EncodedRows& out, unsigned long long* first_unfit,
                     StreamView stream) const {
  const CurrentDevice current(stream.device);
  launch(encode_rows<T>, Grid{static_cast<unsigned>(count), encode_threads}, queue(stream), rows, form_, out,
         first_unfit);
}

template void Encoder::encode(const float*, std::int64_t, const EncodedRows&, unsigned long long*, StreamView) const;
template void Encoder::encode(const double*, std::int64_t, const EncodedRows&, unsigned long long*, StreamView) const;

void Encoder::project(LevelView rows, const double* squares, std::int64_t count, std::int32_t* products,
                      const Codes& out, std::int64_t first, StreamView stream) const {
  const CurrentDevice current(stream.device);
  const std::int8_t* directions = basis_codes_.data();
  const std::int64_t vectors = bytes_of_a_direction * directions_;
  if (count <= few_rows) {
    const Grid grid{dim3(blocks_for(vectors, 128 / warp_lanes * rows_per_warp), static_cast<unsigned>(count)), 128};
    launch(multiply_few, grid, queue(stream), rows.codes, directions, vectors, form_.row_bytes, products);
  } else if (count <= SmallTile::left_rows) {
    multiply_tiles<SmallTile>(rows.codes, count, directions, vectors, form_.row_bytes, products, queue(stream));
  } else {
    multiply_tiles<LargeTile>(rows.codes, count, directions, vectors, form_.row_bytes, products, queue(stream));
  }
  launch(encode_coordinates, Grid{static_cast<unsigned>(count), encode_threads}, queue(stream), products, rows.terms,
         squares, basis_, out.codes.data() + first * out.row_bytes, out.terms.data() + first);
}

}  // namespace onnxviz::cuda
