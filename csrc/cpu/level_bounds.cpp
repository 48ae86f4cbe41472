// What the codes of rows and queries prove of their distances.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels_in_use.h"
#include "levels.h"
#include "rounding.h"

namespace onnxviz {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float infinity_float = std::numeric_limits<float>::infinity();
// From so many vectors on four bits are quicker as bytes.
constexpr std::int64_t fewest_vectors_for_bytes = 8;

void unpack_nibbles(const std::uint8_t* packed, std::int64_t bytes, std::uint8_t* codes) {
  for (std::int64_t i = 0; i < bytes; i += byte_block, packed += byte_block, codes += nibble_block) {
    for (std::int64_t b = 0; b < byte_block; ++b) codes[b] = packed[b] & 15U;
    for (std::int64_t b = 0; b < byte_block; ++b) codes[byte_block + b] = static_cast<std::uint8_t>(packed[b] >> 4);
  }
}

}  // namespace

float Levels::reach(const LevelQuery& query, double distance) const {
  return up(distance * (1 + widening_) + query.radius);
}

float Levels::limit(double distance) const {
  const double widened = distance * (1 + widening_) * (1 + slack);
  return up(widened * widened * (1 + slack) + floor_ + part_underflow);
}

RowTerms Levels::terms(int number, std::int64_t first) const {
  const LevelMemory& memory = level(number).memory;
  return {memory.norm + first, memory.sum + first, memory.scale + first, memory.zero + first};
}

void Levels::products(int number, std::int64_t first, std::int64_t count, const std::int8_t* vectors,
                      std::int64_t vector_bytes, std::int64_t number_of_vectors, std::int32_t* products,
                      std::vector<std::uint8_t>& unpacked) const {
  const std::int64_t columns = padded_columns(number);
  if (level(number).shape.bits == 8 || number_of_vectors < fewest_vectors_for_bytes) {
    product(number)(codes(number, first), level(number).shape.row_bytes(), count, vectors, vector_bytes,
                    number_of_vectors, columns, products, rows_per_tile);
    return;
  }
  unpacked.resize(static_cast<std::size_t>(rows_per_tile * columns));
  unpack_nibbles(codes(number, first), count * columns / 2, unpacked.data());
  products_.bytes(unpacked.data(), columns, count, vectors, vector_bytes, number_of_vectors, columns, products,
                  rows_per_tile);
}

void Levels::read_parts(int number, std::int64_t first, std::int64_t count, PartTable& table) const {
  const LevelMemory& memory = level(number).memory;
  spread(memory.parts + first, memory.origins == nullptr ? nullptr : memory.origins + first, count, table);
}

void Levels::spread(const PartTerms* parts, const OriginTerms* origins, std::int64_t count, PartTable& table) const {
  float* const of_part[] = {table.scale, table.radius, table.length, table.residual};
  bounds_.side_by_side(reinterpret_cast<const float*>(parts), 4, count, of_part);
  if (origins == nullptr) return;
  float* const of_origin[] = {table.square, table.slack};
  bounds_.side_by_side(reinterpret_cast<const float*>(origins), 2, count, of_origin);
}

Levels::Comparison Levels::compare(int number, std::int64_t row, const LevelQuery& known, const std::int32_t* high,
                                   std::int32_t low) const {
  const LevelMemory& memory = level(number).memory;
  auto sum = static_cast<double>(low);
  if (high != nullptr) sum += known.terms.high_weight * static_cast<double>(*high);
  sum -= static_cast<double>(memory.zero[row]) * known.terms.sum;
  if (known.terms.zero != 0) sum -= memory.sum[row] * known.terms.zero;
  const double norms = memory.norm[row] + known.norm;
  Comparison comparison{};
  comparison.squared = norms - known.terms.twice_scale * static_cast<double>(memory.scale[row]) * sum;
  comparison.uncertain = norms * slack + floor_;
  comparison.radius = (static_cast<double>(memory.radius[row]) + known.radius) * (1 + slack);
  return comparison;
}

double Levels::lower_bound(const Comparison& comparison) const {
  const double nearest =
      std::sqrt(std::max(0.0, comparison.squared - comparison.uncertain)) * (1 - slack) - comparison.radius;
  return std::max(0.0, nearest) * (1 - slack - widening_);
}

double Levels::root(float squared) const {
  const double positive = static_cast<double>(squared) - floor_ - part_underflow;
  return positive > 0 ? std::sqrt(positive) * (1 - 2 * slack - widening_) : 0;
}

void Levels::listed_products(int number, const std::int64_t* rows, std::int64_t count, const std::int8_t* vectors,
                             std::int64_t number_of_vectors, std::int32_t* products) const {
  const Level& at = level(number);
  (at.shape.bits == 8 ? products_.listed_bytes : products_.listed_nibbles)(
      at.memory.codes, at.shape.row_bytes(), rows, count, vectors, vector_bytes(number), number_of_vectors,
      padded_columns(number), products, rows_per_tile);
}

std::int64_t Levels::within(int number, std::int64_t* rows, std::int64_t count, const LevelQuery& query,
                            const std::int8_t* vectors, int vectors_per_query, double distance, double* lower) const {
  const bool fine = vectors_per_query == 2;
  std::int32_t products[2 * rows_per_tile];
  listed_products(number, rows, count, vectors, vectors_per_query, products);
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const Comparison comparison =
        compare(number, rows[i], query, fine ? products + i : nullptr, products[fine ? rows_per_tile + i : i]);
    // Most rows leave here, without a square root.
    const double reach = distance * (1 + widening_) + comparison.radius;
    if (comparison.squared - comparison.uncertain > reach * reach * (1 + slack) + floor_) continue;
    const double bound = lower_bound(comparison);
    if (bound > distance) continue;
    rows[kept] = rows[i];
    lower[kept++] = bound;
  }
  return kept;
}

std::int64_t Levels::within_part(int number, std::int64_t* rows, float* squared, std::int64_t count,
                                 const LevelQuery& query, const std::int8_t* vectors, int vectors_per_query,
                                 float limit) const {
  const Level& at = level(number);
  const bool fine = vectors_per_query == 2;
  std::int32_t products[2 * rows_per_tile];
  listed_products(number, rows, count, vectors, vectors_per_query, products);
  PartTerms parts[rows_per_tile];
  OriginTerms origins[rows_per_tile];
  for (std::int64_t i = 0; i < count; ++i) parts[i] = at.memory.parts[rows[i]];
  if (at.memory.origins != nullptr) {
    for (std::int64_t i = 0; i < count; ++i) origins[i] = at.memory.origins[rows[i]];
  }
  PartTable table;
  spread(parts, at.memory.origins == nullptr ? nullptr : origins, count, table);
  bounds_.part(table.rows(at.memory.origins != nullptr), count, &query.part, fine ? products : nullptr,
               fine ? products + rows_per_tile : products, squared);
  std::int64_t found[rows_per_tile];
  const std::int64_t kept =
      bounds_.within_limit(squared, table.residual, count, query.part.residual, limit, 0, found);
  for (std::int64_t i = 0; i < kept; ++i) {
    rows[i] = rows[found[i]];
    squared[i] = squared[found[i]];
  }
  return kept;
}

Interval Levels::bounds(int number, std::int64_t row, const FineQuery& query) const {
  if (projected(number)) {
    float squared = 0;
    std::int64_t listed = row;
    for (int part = 0; part <= number; ++part) {
      within_part(part, &listed, &squared, 1, query.levels[static_cast<std::size_t>(part)],
                  query.parts[static_cast<std::size_t>(part)].data(), 2, infinity_float);
    }
    const PartQuery& part = query.levels[static_cast<std::size_t>(number)].part;
    const float apart = level(number).memory.parts[row].residual * part.residual;
    return {root(squared - apart), infinity};
  }
  std::int32_t products[2];
  product(number)(codes(number, row), 0, 1, query.vectors.data(), vector_bytes(number), 2, padded_columns(number),
                  products, 1);
  return interval(number, row, query.levels[static_cast<std::size_t>(number)], products, products[1]);
}

Interval Levels::interval(int number, std::int64_t row, const LevelQuery& query, const std::int32_t* high,
                          std::int32_t low) const {
  const Comparison comparison = compare(number, row, query, high, low);
  const double farthest = std::sqrt(comparison.squared + comparison.uncertain) * (1 + slack) + comparison.radius;
  return {lower_bound(comparison), farthest * (1 + slack + widening_)};
}

}  // namespace onnxviz
