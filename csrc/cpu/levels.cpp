#include "levels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "kernels_in_use.h"
#include "parallel.h"
#include "rounding.h"

namespace onnxviz {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float infinity_float = std::numeric_limits<float>::infinity();
// What rounding can do to a sum of squares of at most 2^22 terms in 16 chains, with a good margin.
constexpr double of_a_sum = 0x1p-30;
// A row or query with a larger element, in units of the bank's size, could overflow float32.
constexpr double largest_element = 0x1p60;
constexpr double smallest_scale = 0x1p-100;
constexpr std::int64_t most_columns = std::int64_t{1} << 22;
constexpr std::int64_t most_projected_columns = 65536;
constexpr std::int64_t directions_per_task = 256;
static_assert(byte_block == 64 && nibble_block == 128, "LevelShape::row_bytes pads to lines of 64 bytes");
constexpr double byte_steps = 254;  // one less than there are, because both ends are rounded to the grid
constexpr double nibble_steps = 15;
constexpr double byte_zero = 128;  // of coordinates
constexpr double nibble_zero = 7.5;
// Standard deviations that four bits of a coordinate may be spread over.
constexpr std::array<double, 4> spreads = {2.2, 2.5, 2.8, 3.2};
// Of every term of a squared bound in float32, see the header.
constexpr double part_slack = 0x1p-18;
// Lengths from here on could overflow there.
constexpr double largest_length = 0x1p60;
constexpr double largest_byte = 255;
constexpr double largest_nibble = 15;
// Shares of the range that four bits may be spread over; what lies beyond is cut off.
constexpr std::array<double, 8> clippings = {1, .85, .7, .6, .5, .42, .35, .28};

void pack_nibbles(const std::uint8_t* codes, std::int64_t columns, std::uint8_t* packed) {
  for (std::int64_t j = 0; j < columns; j += nibble_block, packed += byte_block) {
    const std::int64_t high = j + byte_block;
    for (std::int64_t b = 0; b < byte_block; ++b) {
      const unsigned low_code = j + b < columns ? codes[j + b] : 0U;
      const unsigned high_code = high + b < columns ? codes[high + b] : 0U;
      packed[b] = static_cast<std::uint8_t>(low_code | high_code << 4);
    }
  }
}

}  // namespace

Levels::Levels(const IndexSetup& setup, std::int64_t columns)
    : columns_(columns),
      full_bytes_((columns + nibble_block - 1) / nibble_block * nibble_block),
      scale_(setup.scale),
      floor_(static_cast<double>(columns) * 0x1p-200),
      widening_((static_cast<double>(columns) / 16 + 64) * 0x1p-52),
      reference_(setup.reference),
      levels_(setup.levels),
      products_(product_kernels_in_use()),
      encoding_(encoding_kernels_in_use()),
      bounds_(bound_kernels_in_use()) {
  int exponent = 0;
  // With a larger scale, what underflow takes from a square of the rows would be more than floor_ in the levels' units.
  if (std::frexp(scale_, &exponent) != 0.5 || exponent < -500 || exponent > 401) {
    throw std::invalid_argument("the scale is no power of two within 2^-501 and 2^400");
  }
  if (static_cast<std::int64_t>(reference_.size()) != columns_ || setup.mean.size() != reference_.size()) {
    throw std::invalid_argument("the reference and the mean have " + std::to_string(reference_.size()) + " and " +
                                std::to_string(setup.mean.size()) + " numbers for " + std::to_string(columns_) +
                                " columns");
  }
  std::int64_t projected = 0;
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    const LevelShape& shape = levels_[i].shape;
    const bool last = i + 1 == levels_.size();
    if (shape.columns < 1 || (shape.bits != 8 && shape.bits != 4) || (shape.projected && last) ||
        (shape.projected && i > 0 && !levels_[i - 1].shape.projected) ||
        (shape.projected && shape.first != projected) ||
        (!shape.projected && shape.columns != columns_)) {
      throw std::invalid_argument("level " + std::to_string(i) + " has no possible shape");
    }
    if (shape.projected) projected += shape.columns;
  }
  if (levels_.empty()) throw std::invalid_argument("an index needs a level of all columns");
  if (columns_ <= most_projected_columns && setup.basis.columns == columns_) {
    basis_ = IntegerBasis(setup.basis, projected);
  }
  // Levels of directions that the basis does not have can prove nothing.
  levels_.erase(std::remove_if(levels_.begin(), levels_.end(),
                               [this](const Level& level) {
                                 const LevelShape& shape = level.shape;
                                 return shape.projected && shape.first + shape.columns > basis_.directions();
                               }),
                levels_.end());
  double squares = 0;
  for (std::size_t j = 0; j < reference_.size(); ++j) {
    middle_.push_back((setup.mean[j] - reference_[j]) * scale_);
    squares += middle_[j] * middle_[j];
  }
  centre_ = basis_.project(middle_);
  uncertain_centre_ = std::sqrt(static_cast<double>(basis_.directions()) * squares) * static_cast<double>(columns_) *
                      0x1p-51;
  largest_vector_ = std::min<std::int64_t>(127, ((std::int64_t{1} << 31) - 1) / (255 * full_bytes_));
  largest_zero_ = std::min(0x1p20, std::floor(std::sqrt(0x1p53 / static_cast<double>(full_bytes_))) - 512);
  usable_ = columns_ <= most_columns && largest_vector_ >= 1;
}

// -- rows -------------------------------------------------------------------------------------------------------------

Levels::Quantizer Levels::quantizer(double lowest, double highest, double steps) const {
  const double farthest = std::max(std::fabs(lowest), std::fabs(highest));
  double scale = std::max((highest - lowest) / steps, farthest / largest_zero_);
  scale = std::max(scale, smallest_scale);
  const auto rounded = static_cast<float>(scale * (1 + 0x1p-20));
  return {rounded, -std::nearbyint(lowest / static_cast<double>(rounded))};
}

// The clipping that loses least, judged by how often each of the row's byte codes occurs.
Levels::Quantizer Levels::nibble_quantizer(const std::uint8_t* codes, Quantizer bytes, double lowest, double highest,
                                           double sum) const {
  std::array<int, 256> counts{};
  for (std::int64_t j = 0; j < columns_; ++j) ++counts[codes[j]];
  // Of what an activation function left non-negative, the zeros are kept; else both ends are clipped.
  const double anchor = lowest >= 0 ? lowest : sum / static_cast<double>(columns_);
  Quantizer best{};
  double least = infinity;
  for (const double clipping : clippings) {
    const Quantizer tried =
        quantizer(anchor - clipping * (anchor - lowest), anchor + clipping * (highest - anchor), nibble_steps);
    const auto scale = static_cast<double>(tried.scale);
    double lost = 0;
    for (std::size_t code = 0; code < counts.size(); ++code) {
      if (counts[code] == 0) continue;
      const double value = static_cast<double>(bytes.scale) * (static_cast<double>(code) - bytes.zero);
      const double nibble = std::min(std::max(std::floor(value / scale + tried.zero + 0.5), 0.0), largest_nibble);
      const double difference = value - scale * (nibble - tried.zero);
      lost += counts[code] * difference * difference;
    }
    if (lost < least) {
      least = lost;
      best = tried;
    }
  }
  return best;
}

LevelMemory Levels::ByteRows::room(std::int64_t rows, std::int64_t row_bytes) {
  codes.resize(static_cast<std::size_t>(rows * row_bytes));
  numbers.resize(static_cast<std::size_t>(2 * rows));
  terms.resize(static_cast<std::size_t>(3 * rows));
  LevelMemory memory;
  memory.codes = codes.data();
  memory.norm = numbers.data();
  memory.sum = numbers.data() + rows;
  memory.scale = terms.data();
  memory.zero = terms.data() + rows;
  memory.radius = terms.data() + 2 * rows;
  return memory;
}

double Levels::write(const LevelMemory& memory, std::int64_t row, Quantizer quantizer, double largest,
                     const double* values, double squares, std::uint8_t* codes) const {
  const auto scale = static_cast<double>(quantizer.scale);
  double sum = 0;
  double norm = 0;
  double error = 0;
  encoding_.encode(values, columns_, scale, quantizer.zero, largest, codes, &sum, &norm, &error);
  memory.scale[row] = quantizer.scale;
  memory.zero[row] = static_cast<float>(quantizer.zero);
  memory.norm[row] = scale * scale * norm;
  memory.sum[row] = sum;
  memory.radius[row] = up(std::sqrt(error) * (1 + of_a_sum) + std::sqrt(squares) * 0x1p-50);
  return sum * scale;
}

void Levels::write_nowhere(const Level& level, std::int64_t row) const {
  const LevelMemory& memory = level.memory;
  std::fill_n(memory.codes + row * level.shape.row_bytes(), level.shape.row_bytes(), std::uint8_t{0});
  if (level.shape.projected) {
    memory.parts[row] = {};
    if (level.shape.first == 0) memory.origins[row] = {0, std::numeric_limits<float>::quiet_NaN()};
    return;
  }
  memory.scale[row] = 0;
  memory.zero[row] = 0;
  memory.norm[row] = 0;
  memory.sum[row] = 0;
  memory.radius[row] = infinity_float;
}

void Levels::write_part(const Level& level, std::int64_t row, const double* values, double squares, double residual,
                        Workspace& workspace) const {
  const std::int64_t columns = level.shape.columns;
  const bool bytes = level.shape.bits == 8;
  double farthest = 0;
  for (std::int64_t j = 0; j < columns; ++j) farthest = std::max(farthest, std::fabs(values[j]));
  double chosen = 0;
  double norm = 0;
  double least = infinity;
  for (const double spread : spreads) {
    // Bytes take in all; four bits the width that loses least.
    const double half_width = std::min(farthest, spread * std::sqrt(squares / static_cast<double>(columns)));
    const double width = bytes ? farthest / 127 : 2 / nibble_steps * half_width;
    const auto scale = static_cast<double>(static_cast<float>(std::max(width * (1 + 0x1p-20), 2 * smallest_scale)));
    double sum = 0;
    double code_squares = 0;
    double error = 0;
    encoding_.encode(values, columns, scale, bytes ? byte_zero : nibble_zero, bytes ? largest_byte : largest_nibble,
                     workspace.other_codes.data(), &sum, &code_squares, &error);
    if (error < least) {
      least = error;
      chosen = scale;
      norm = scale * scale * code_squares;
      std::swap(workspace.codes, workspace.other_codes);
    }
    if (bytes) break;
  }
  std::uint8_t* codes = level.memory.codes + row * level.shape.row_bytes();
  if (bytes) {
    std::copy_n(workspace.codes.data(), columns, codes);
    std::fill(codes + columns, codes + level.shape.row_bytes(), std::uint8_t{0});
  } else {
    pack_nibbles(workspace.codes.data(), columns, codes);
  }
  PartTerms& terms = level.memory.parts[row];
  terms.scale = static_cast<float>(bytes ? chosen : chosen / 2);
  terms.radius = up(std::sqrt(least) * (1 + of_a_sum) + std::sqrt(squares) * 0x1p-50);
  terms.length = up(std::sqrt(norm));
  terms.residual = up(residual);
}

double Levels::residual(double length, double part_squares, double away) const {
  const double shortest = std::max(0.0, std::sqrt(part_squares) * (1 - of_a_sum) - away);
  return std::sqrt(std::max(0.0, length * length * (1 + of_a_sum) - shortest * shortest / (1 + basis_.excess()))) *
         (1 + of_a_sum);
}

// |Z| from above, and from below, of X', which has the given length.
double Levels::length_about_middle(const double* values, double length, double& low) const {
  constexpr std::size_t lanes = 8;
  std::array<double, lanes> sums{};
  for (std::size_t j = 0; j < middle_.size(); ++j) {
    const double difference = values[j] - middle_[j];
    sums[j % lanes] += difference * difference;
  }
  double squares = 0;
  for (const double sum : sums) squares += sum;
  const double about = std::sqrt(squares);
  low = std::max(0.0, about * (1 - of_a_sum) - length * 0x1p-50);
  return about * (1 + of_a_sum) + length * 0x1p-50;
}

void Levels::encode(std::int64_t first, Workspace& workspace) const {
  const auto count = static_cast<std::int64_t>(workspace.rows.size());
  // Projections and four bits are made from eight bits of every column, which are kept only where there is a level.
  const bool kept = levels_.back().shape.bits == 8;
  const LevelMemory bytes = kept ? levels_.back().memory : workspace.bytes.room(count, full_bytes_);
  const std::int64_t first_place = kept ? first : 0;
  const std::int64_t bytes_per_row = LevelShape{columns_, 8, false, 0}.row_bytes();
  workspace.codes.resize(static_cast<std::size_t>(std::max(full_bytes_, basis_.directions())));
  workspace.other_codes.resize(workspace.codes.size());
  workspace.lengths.assign(3 * workspace.rows.size(), -1);
  for (std::int64_t i = 0; i < count; ++i) {
    ExactRow& row = workspace.rows[static_cast<std::size_t>(i)];
    const std::int64_t number = first + i;
    double lowest = 0;
    double highest = 0;
    double squares = 0;
    encoding_.centre(row.elements.data(), reference_.data(), scale_, columns_, &lowest, &highest, &squares);
    const bool placed = usable_ && !row.without_direction && lowest > -largest_element && highest < largest_element;
    if (!placed) {
      for (const Level& level : levels_) write_nowhere(level, number);
      continue;
    }
    const double* values = row.elements.data();
    double* lengths = workspace.lengths.data() + 3 * i;
    lengths[0] = std::sqrt(squares);
    lengths[1] = length_about_middle(values, lengths[0], lengths[2]);
    std::uint8_t* byte_codes = bytes.codes + (first_place + i) * bytes_per_row;
    std::fill(byte_codes + columns_, byte_codes + bytes_per_row, std::uint8_t{0});
    const Quantizer byte_quantizer = quantizer(lowest, highest, byte_steps);
    const double sum = write(bytes, first_place + i, byte_quantizer, largest_byte, values, squares, byte_codes);
    for (const Level& level : levels_) {
      if (level.shape.bits != 4 || level.shape.projected) continue;
      write(level.memory, number, nibble_quantizer(byte_codes, byte_quantizer, lowest, highest, sum), largest_nibble,
            values, squares, workspace.codes.data());
      pack_nibbles(workspace.codes.data(), columns_, level.memory.codes + number * level.shape.row_bytes());
    }
  }
  const std::int64_t directions = basis_.directions();
  if (directions == 0) return;

  workspace.products.resize(static_cast<std::size_t>(2 * directions * count));
  products_.bytes(bytes.codes + first_place * bytes_per_row, bytes_per_row, count, basis_.vectors(),
                  basis_.row_bytes(), 2 * directions, bytes_per_row, workspace.products.data(), count);
  workspace.coordinates.resize(static_cast<std::size_t>(directions));
  double* coordinates = workspace.coordinates.data();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t number = first + i;
    const double* lengths = workspace.lengths.data() + 3 * i;
    if (lengths[0] < 0) continue;
    const auto scale = static_cast<double>(bytes.scale[first_place + i]);
    const auto zero = static_cast<double>(bytes.zero[first_place + i]);
    double squares = 0;
    double all_squares = 0;
    for (std::int64_t k = 0; k < directions; ++k) {
      const auto high = static_cast<double>(workspace.products[static_cast<std::size_t>(k * count + i)]);
      const auto low = static_cast<double>(workspace.products[static_cast<std::size_t>((directions + k) * count + i)]);
      const double coordinate =
          scale * basis_.scale(k) * (IntegerBasis::high_weight * high + low - zero * basis_.sum(k));
      coordinates[k] = coordinate - centre_[static_cast<std::size_t>(k)];
      squares += coordinate * coordinate;
      all_squares += coordinates[k] * coordinates[k];
    }
    const double away = basis_.stretch() * static_cast<double>(bytes.radius[first_place + i]) + uncertain_centre_ +
                        (std::sqrt(squares) + std::sqrt(all_squares)) * 0x1p-50;
    double part_squares = 0;
    for (const Level& level : levels_) {
      if (!level.shape.projected) continue;
      if (lengths[1] >= largest_length) {
        write_nowhere(level, number);
        continue;
      }
      const double* part = coordinates + level.shape.first;
      double own_squares = 0;
      for (std::int64_t k = 0; k < level.shape.columns; ++k) own_squares += part[k] * part[k];
      part_squares += own_squares;
      write_part(level, number, part, own_squares, residual(lengths[1], part_squares, away), workspace);
      if (level.shape.first == 0) level.memory.origins[number] = {down(lengths[2] * lengths[2]), up(away)};
    }
  }
}

// -- queries ----------------------------------------------------------------------------------------------------------

void Levels::finish(LevelQuery& query) const { query.terms.norm = query.norm * (1 - slack) - floor_; }

// Values as two signed bytes each; returns the scale.
double Levels::split(const double* values, std::int64_t columns, std::int64_t bytes, std::int8_t* vectors,
                     double& norm, double& sum, double& error) const {
  const std::int64_t most = largest_vector_;
  const std::int64_t base = std::min<std::int64_t>(128, 2 * most);
  double farthest = 0;
  for (std::int64_t j = 0; j < columns; ++j) farthest = std::max(farthest, std::fabs(values[j]));
  const auto scale = static_cast<double>(
      static_cast<float>(std::max(farthest / static_cast<double>(most * base) * (1 + 0x1p-20), smallest_scale)));
  std::vector<std::int16_t> codes(static_cast<std::size_t>(columns));
  encoding_.encode_signed(values, columns, scale, codes.data(), &error);
  std::int64_t total = 0;
  std::int64_t squares = 0;
  for (std::int64_t j = 0; j < columns; ++j) {
    const std::int64_t code = codes[static_cast<std::size_t>(j)];
    // Rounded down, which division is not for negative numbers.
    const std::int64_t high = (code + base / 2 + base * 32768) / base - 32768;
    vectors[j] = static_cast<std::int8_t>(high);
    vectors[bytes + j] = static_cast<std::int8_t>(code - base * high);
    total += code;
    squares += code * code;
  }
  sum = static_cast<double>(total);
  norm = scale * scale * static_cast<double>(squares);
  return scale;
}

void Levels::prepare(FineQuery* queries, std::int64_t count, int threads) const {
  parallel_for(count, threads, [&](std::int64_t q) { prepare_columns(queries[q]); });
  const std::int64_t both = 2 * basis_.directions();
  if (both == 0) return;
  // Of many queries the vectors lie side by side, so that a part of the basis is read once for all of them.
  std::vector<std::int8_t> gathered;
  const std::int8_t* vectors = queries[0].vectors.data();
  if (count > 1) {
    gathered.resize(static_cast<std::size_t>(2 * count * full_bytes_));
    vectors = gathered.data();
    for (std::int64_t q = 0; q < count; ++q) {
      const std::vector<std::int8_t>& own = queries[q].vectors;
      if (queries[q].usable) std::copy(own.begin(), own.end(), gathered.begin() + 2 * q * full_bytes_);
    }
  } else if (!queries[0].usable) {
    return;
  }
  std::vector<std::int32_t> products(static_cast<std::size_t>(2 * count * both));
  parallel_for((both + directions_per_task - 1) / directions_per_task, threads, [&](std::int64_t task) {
    const std::int64_t first = task * directions_per_task;
    products_.bytes(basis_.rows() + first * basis_.row_bytes(), basis_.row_bytes(),
                    std::min(directions_per_task, both - first), vectors, full_bytes_, 2 * count, basis_.row_bytes(),
                    products.data() + first, both);
  });
  parallel_for(count, threads, [&](std::int64_t q) {
    if (queries[q].usable) prepare_parts(queries[q], products.data() + 2 * q * both);
  });
}

void Levels::prepare_columns(FineQuery& query) const {
  query.levels.assign(levels_.size(), {});
  query.usable = false;
  if (!usable_ || query.row.without_direction) return;
  query.values = query.row.elements;
  double lowest = 0;
  double highest = 0;
  double squares = 0;
  encoding_.centre(query.values.data(), reference_.data(), scale_, columns_, &lowest, &highest, &squares);
  if (!(lowest > -largest_element && highest < largest_element)) return;
  query.usable = true;

  LevelQuery full;
  double error = 0;
  query.vectors.assign(static_cast<std::size_t>(2 * full_bytes_), 0);
  const double scale =
      split(query.values.data(), columns_, full_bytes_, query.vectors.data(), full.norm, full.terms.sum, error);
  const double high_weight = static_cast<double>(std::min<std::int64_t>(128, 2 * largest_vector_));
  full.terms.twice_scale = 2 * scale;
  full.terms.high_weight = high_weight;
  full.radius = std::sqrt(error) * (1 + of_a_sum) + std::sqrt(squares) * 0x1p-50;
  finish(full);
  query.length = std::sqrt(squares);
  std::fill(query.levels.begin(), query.levels.end(), full);
}

void Levels::prepare_parts(FineQuery& query, const std::int32_t* products) const {
  const LevelQuery full = query.levels.back();
  const double scale = full.terms.twice_scale / 2;
  const double high_weight = full.terms.high_weight;
  const std::int64_t directions = basis_.directions();
  query.coordinates.resize(static_cast<std::size_t>(directions));
  double coordinate_squares = 0;
  double all_squares = 0;
  for (std::int64_t i = 0; i < directions; ++i) {
    const auto product = [&](std::int64_t half) {
      const auto high = static_cast<double>(products[half * directions + i]);
      const auto low = static_cast<double>(products[(2 + half) * directions + i]);
      return high_weight * high + low - 128 * full.terms.sum;
    };
    const double coordinate = scale * basis_.scale(i) * (IntegerBasis::high_weight * product(0) + product(1));
    const double centred = coordinate - centre_[static_cast<std::size_t>(i)];
    query.coordinates[static_cast<std::size_t>(i)] = centred;
    coordinate_squares += coordinate * coordinate;
    all_squares += centred * centred;
  }
  const double stretch = basis_.stretch();
  const double excess = basis_.excess();
  const double away = stretch * full.radius + uncertain_centre_ +
                      (std::sqrt(coordinate_squares) + std::sqrt(all_squares)) * 0x1p-50;
  double shortest = 0;
  const double length = length_about_middle(query.values.data(), query.length, shortest);
  const double kappa = excess * (1 + excess) / (1 - excess);
  PartQuery common{};
  const double keep = 1 - part_slack - kappa - stretch * away / length;
  const double lost = stretch * away * length;
  common.keep = down(keep);
  common.square = below(shortest * shortest * (1 - kappa) - lost - part_slack * (shortest * shortest + lost));
  common.slack = up(2 * (stretch * length + away) * (1 + part_slack));
  if (!(keep > 0 && length < largest_length)) common.square = -infinity_float;
  query.parts.resize(levels_.size());
  double part_squares = 0;
  for (int number = 0; projected(number); ++number) {
    const LevelShape& shape = level(number).shape;
    const double* values = query.coordinates.data() + shape.first;
    std::vector<std::int8_t>& vectors = query.parts[static_cast<std::size_t>(number)];
    vectors.assign(static_cast<std::size_t>(2 * vector_bytes(number)), 0);
    double norm = 0;
    double sum = 0;
    double error = 0;
    const double part_scale = split(values, shape.columns, vector_bytes(number), vectors.data(), norm, sum, error);
    double own_squares = 0;
    for (std::int64_t k = 0; k < shape.columns; ++k) own_squares += values[k] * values[k];
    part_squares += own_squares;
    PartQuery part = common;
    part.residual = up(2 * residual(length, part_squares, away) * (1 + part_slack));
    finish_part(part, number, part_scale, high_weight, vectors.data(), 2, std::sqrt(own_squares),
                std::sqrt(error) * (1 + of_a_sum));
    query.levels[static_cast<std::size_t>(number)] = {};
    query.levels[static_cast<std::size_t>(number)].part = part;
  }
}

// What a query in one or two vectors, `lost` from the `length` that its coordinates have, makes of a level's terms.
void Levels::finish_part(PartQuery& part, int number, double scale, double high_weight, const std::int8_t* vectors,
                         int number_of_vectors, double length, double lost) const {
  const bool bytes = level(number).shape.bits == 8;
  const auto zero = static_cast<std::int32_t>(bytes ? byte_zero : 2 * nibble_zero);
  std::int32_t sums[2] = {};
  double squares[2] = {};
  for (int v = 0; v < number_of_vectors; ++v) {
    const std::int8_t* vector = vectors + v * vector_bytes(number);
    std::int64_t total = 0;
    for (std::int64_t j = 0; j < level(number).shape.columns; ++j) {
      const std::int32_t code = vector[j];
      sums[v] += code;
      total += code * code;
    }
    squares[v] = static_cast<double>(total);
  }
  const bool fine = number_of_vectors == 2;
  const double size = fine ? scale * (high_weight * std::sqrt(squares[0]) + std::sqrt(squares[1]))
                           : scale * std::sqrt(squares[0]);
  part.twice_scale = static_cast<float>(2 * scale);
  part.high_weight = static_cast<float>(high_weight);
  part.weight = bytes ? 1 : 2;
  part.high_offset = fine ? zero * sums[0] : 0;
  part.low_offset = zero * sums[fine ? 1 : 0];
  part.radius = up(2 * length * (1 + of_a_sum) * (1 + part_slack));
  part.length = up(2 * (lost + length * 0x1p-50 + size * part_slack) * (1 + part_slack));
}

LevelQuery Levels::coarse(int number, const FineQuery& query, std::int8_t* vector) const {
  const Level& at = level(number);
  const std::int64_t columns = at.shape.columns;
  const double* values = at.shape.projected ? query.coordinates.data() + at.shape.first : query.values.data();
  // Half of the codes are negative in the vector; those of a row are one more, which few columns can afford.
  const auto middle = static_cast<double>(at.shape.projected ? 127 : largest_vector_);
  const auto [lowest, highest] = std::minmax_element(values, values + columns);
  Quantizer chosen = quantizer(*lowest, *highest, 2 * middle - 1);
  if (at.shape.projected) {
    const double farthest = std::max(std::fabs(*lowest), std::fabs(*highest));
    chosen = {static_cast<float>(std::max(farthest / middle * (1 + 0x1p-20), smallest_scale)), middle};
  }
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(columns));
  const auto scale = static_cast<double>(chosen.scale);
  double sum = 0;
  double norm = 0;
  double error = 0;
  encoding_.encode(values, columns, scale, chosen.zero, 2 * middle, codes.data(), &sum, &norm, &error);
  for (std::int64_t j = 0; j < columns; ++j) {
    vector[j] = static_cast<std::int8_t>(static_cast<double>(codes[static_cast<std::size_t>(j)]) - middle);
  }
  LevelQuery coarse = query.levels[static_cast<std::size_t>(number)];
  const double lost = std::sqrt(error) * (1 + of_a_sum);
  if (at.shape.projected) {
    double squares = 0;
    for (std::int64_t k = 0; k < columns; ++k) squares += values[k] * values[k];
    finish_part(coarse.part, number, scale, 0, vector, 1, std::sqrt(squares), lost);
    return coarse;
  }
  coarse.terms.twice_scale = 2 * scale;
  coarse.terms.zero = chosen.zero - middle;
  coarse.terms.sum = sum + static_cast<double>(columns) * coarse.terms.zero;
  coarse.norm = scale * scale * norm;
  // The fine query's radius holds what its values themselves are uncertain by, and a little more.
  coarse.radius += lost;
  finish(coarse);
  return coarse;
}

bool Levels::has_coarse_rows(int number) const {
  // 255 x 128 a column has to stay within int32.
  return level(number).shape.bits == 8 && !projected(number) && full_bytes_ <= 65792;
}

LevelQuery Levels::coarse_of_row(int number, std::int64_t row, std::int8_t* vector) const {
  const Level& at = level(number);
  const std::uint8_t* row_codes = codes(number, row);
  for (std::int64_t j = 0; j < at.shape.columns; ++j) vector[j] = static_cast<std::int8_t>(row_codes[j] - 128);
  LevelQuery coarse;
  coarse.terms.twice_scale = 2 * static_cast<double>(at.memory.scale[row]);
  coarse.terms.zero = static_cast<double>(at.memory.zero[row]) - 128;
  coarse.terms.sum = at.memory.sum[row] + static_cast<double>(at.shape.columns) * coarse.terms.zero;
  coarse.norm = at.memory.norm[row];
  coarse.radius = static_cast<double>(at.memory.radius[row]);
  finish(coarse);
  return coarse;
}

}  // namespace onnxviz
