#include "levels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "kernels_in_use.h"

namespace onnxviz {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float infinity_float = std::numeric_limits<float>::infinity();
// 32 roundings of float64; the kernels take off the same.
constexpr double slack = 0x1p-48;
// What rounding can do to a sum of squares of at most 2^22 terms in 16 chains, with a good margin.
constexpr double of_a_sum = 0x1p-30;
// A row or query with a larger element, in units of the bank's size, could overflow float32.
constexpr double largest_element = 0x1p60;
constexpr double smallest_scale = 0x1p-100;
constexpr std::int64_t most_columns = std::int64_t{1} << 22;
constexpr std::int64_t most_projected_columns = 65536;
constexpr double byte_steps = 254;  // one less than there are, because both ends are rounded to the grid
constexpr double nibble_steps = 15;
constexpr double largest_byte = 255;
constexpr double largest_nibble = 15;
// Shares of the range that four bits may be spread over; what lies beyond is cut off.
constexpr std::array<double, 8> clippings = {1, .85, .7, .6, .5, .42, .35, .28};

float up(double value) {
  return std::nextafter(static_cast<float>(value * (1 + 0x1p-22)), infinity_float);
}

float down(double value) { return std::max(0.0F, std::nextafter(static_cast<float>(value * (1 - 0x1p-22)), 0.0F)); }

std::int64_t whole(std::int64_t columns, std::int64_t block) { return (columns + block - 1) / block * block; }

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

std::int64_t LevelShape::row_bytes() const {
  return bits == 8 ? whole(columns, byte_block) : whole(columns, nibble_block) / 2;
}

Levels::Levels(const IndexSetup& setup, std::int64_t columns)
    : columns_(columns),
      full_bytes_(whole(columns, nibble_block)),
      scale_(setup.scale),
      floor_(static_cast<double>(columns) * 0x1p-200),
      widening_((static_cast<double>(columns) / 16 + 64) * 0x1p-52),
      reference_(setup.reference),
      levels_(setup.levels),
      products_(product_kernels_in_use()),
      encoding_(encoding_kernels_in_use()) {
  int exponent = 0;
  if (std::frexp(scale_, &exponent) != 0.5 || std::abs(exponent) > 500) {
    throw std::invalid_argument("the scale is no power of two within 2^-500 and 2^500");
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
    if (shape.columns < 1 || (shape.bits != 8 && shape.bits != 4) || (shape.projected && (last || shape.bits != 8)) ||
        (!shape.projected && shape.columns != columns_) || (last && shape.bits != 8)) {
      throw std::invalid_argument("level " + std::to_string(i) + " has no possible shape");
    }
    if (shape.projected) projected = std::max(projected, shape.columns);
  }
  if (levels_.empty()) throw std::invalid_argument("an index needs a level of 8 bits");
  if (columns_ <= most_projected_columns && setup.basis.columns == columns_) {
    basis_ = IntegerBasis(setup.basis, projected);
  }
  // Levels of directions that the basis does not have can prove nothing.
  levels_.erase(std::remove_if(levels_.begin(), levels_.end(),
                               [this](const Level& level) {
                                 return level.shape.projected && level.shape.columns > basis_.directions();
                               }),
                levels_.end());
  std::vector<double> middle(reference_.size());
  for (std::size_t j = 0; j < middle.size(); ++j) middle[j] = (setup.mean[j] - reference_[j]) * scale_;
  centre_ = basis_.project(middle);
  projected_bytes_ = whole(basis_.directions(), byte_block);
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

double Levels::write(const LevelMemory& memory, std::int64_t row, Quantizer quantizer, double largest,
                     const double* values, std::int64_t columns, double squares, double extra,
                     std::uint8_t* codes) const {
  const auto scale = static_cast<double>(quantizer.scale);
  double sum = 0;
  double norm = 0;
  double error = 0;
  encoding_.encode(values, columns, scale, quantizer.zero, largest, codes, &sum, &norm, &error);
  memory.scale[row] = quantizer.scale;
  memory.zero[row] = static_cast<float>(quantizer.zero);
  memory.norm[row] = scale * scale * norm;
  memory.sum[row] = sum;
  memory.radius[row] = up(std::sqrt(error) * (1 + of_a_sum) + std::sqrt(squares) * 0x1p-50 + extra);
  return sum * scale;
}

void Levels::write_nowhere(const LevelMemory& memory, std::int64_t row) const {
  memory.scale[row] = 0;
  memory.zero[row] = 0;
  memory.norm[row] = 0;
  memory.sum[row] = 0;
  memory.radius[row] = infinity_float;
  if (memory.residual_low != nullptr) {
    memory.residual_low[row] = 0;
    memory.residual_high[row] = infinity_float;
  }
}

void Levels::residuals(double squares, double coordinate_squares, double away, double& low, double& high) const {
  const double length = std::sqrt(coordinate_squares);
  const double longest = length * (1 + of_a_sum) + away;
  const double shortest = std::max(0.0, length * (1 - of_a_sum) - away);
  low = std::sqrt(std::max(0.0, squares * (1 - of_a_sum) - longest * longest / (1 - basis_.excess())));
  high = std::sqrt(std::max(0.0, squares * (1 + of_a_sum) - shortest * shortest / (1 + basis_.excess())));
  low *= 1 - of_a_sum;
  high *= 1 + of_a_sum;
}

void Levels::encode(std::int64_t first, Workspace& workspace) const {
  const auto count = static_cast<std::int64_t>(workspace.rows.size());
  const Level& bytes = levels_.back();
  const std::int64_t bytes_per_row = bytes.shape.row_bytes();
  workspace.codes.resize(static_cast<std::size_t>(std::max(bytes_per_row, projected_bytes_)));
  workspace.squares.assign(workspace.rows.size(), -1);
  for (std::int64_t i = 0; i < count; ++i) {
    ExactRow& row = workspace.rows[static_cast<std::size_t>(i)];
    const std::int64_t number = first + i;
    double lowest = 0;
    double highest = 0;
    double squares = 0;
    encoding_.centre(row.elements.data(), reference_.data(), scale_, columns_, &lowest, &highest, &squares);
    std::uint8_t* byte_codes = bytes.memory.codes + number * bytes_per_row;
    std::fill(byte_codes + columns_, byte_codes + bytes_per_row, std::uint8_t{0});
    const bool placed = usable_ && !row.without_direction && lowest > -largest_element && highest < largest_element;
    if (!placed) {
      for (const Level& level : levels_) {
        std::uint8_t* codes = level.memory.codes + number * level.shape.row_bytes();
        std::fill(codes, codes + level.shape.row_bytes(), std::uint8_t{0});
        write_nowhere(level.memory, number);
      }
      continue;
    }
    workspace.squares[static_cast<std::size_t>(i)] = squares;
    const double* values = row.elements.data();
    const Quantizer byte_quantizer = quantizer(lowest, highest, byte_steps);
    const double sum = write(bytes.memory, number, byte_quantizer, largest_byte, values, columns_, squares, 0, byte_codes);
    for (const Level& level : levels_) {
      if (level.shape.bits != 4) continue;
      write(level.memory, number, nibble_quantizer(byte_codes, byte_quantizer, lowest, highest, sum), largest_nibble,
            values, columns_, squares, 0, workspace.codes.data());
      pack_nibbles(workspace.codes.data(), columns_, level.memory.codes + number * level.shape.row_bytes());
    }
  }
  const std::int64_t directions = basis_.directions();
  if (directions == 0) return;

  workspace.products.resize(static_cast<std::size_t>(directions * count));
  products_.bytes(bytes.memory.codes + first * bytes_per_row, bytes_per_row, count, basis_.vectors(),
                  basis_.row_bytes(), directions, bytes_per_row, workspace.products.data(), count);
  workspace.coordinates.resize(static_cast<std::size_t>(directions));
  double* coordinates = workspace.coordinates.data();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t number = first + i;
    const double all_squares = workspace.squares[static_cast<std::size_t>(i)];
    if (all_squares < 0) continue;
    const auto scale = static_cast<double>(bytes.memory.scale[number]);
    const auto zero = static_cast<double>(bytes.memory.zero[number]);
    const double away = basis_.stretch() * static_cast<double>(bytes.memory.radius[number]);
    double lowest = infinity;
    double highest = -infinity;
    double squares = 0;
    double centred_squares = 0;
    std::int64_t done = 0;
    for (const Level& level : levels_) {
      if (!level.shape.projected) continue;
      for (; done < level.shape.columns; ++done) {
        const auto product = static_cast<double>(workspace.products[static_cast<std::size_t>(done * count + i)]);
        const double coordinate = scale * basis_.scale(done) * (product - zero * basis_.sum(done));
        const double centred = coordinate - centre_[static_cast<std::size_t>(done)];
        coordinates[done] = centred;
        lowest = std::min(lowest, centred);
        highest = std::max(highest, centred);
        squares += coordinate * coordinate;
        centred_squares += centred * centred;
      }
      std::uint8_t* codes = level.memory.codes + number * level.shape.row_bytes();
      std::fill(codes + level.shape.columns, codes + level.shape.row_bytes(), std::uint8_t{0});
      write(level.memory, number, quantizer(lowest, highest, byte_steps), largest_byte, coordinates,
            level.shape.columns, centred_squares, away + std::sqrt(squares) * 0x1p-50, codes);
      double low = 0;
      double high = 0;
      residuals(all_squares, squares, away, low, high);
      level.memory.residual_low[number] = down(low);
      level.memory.residual_high[number] = up(high);
    }
  }
}

// -- queries ----------------------------------------------------------------------------------------------------------

void Levels::finish(LevelQuery& query) const { query.terms.norm = query.norm * (1 - slack) - floor_; }

// Values as two signed bytes each; returns the scale.
double Levels::split(const double* values, std::int64_t columns, std::int64_t bytes, std::vector<std::int8_t>& vectors,
                     double& norm, double& sum, double& error) const {
  const std::int64_t most = largest_vector_;
  const std::int64_t base = std::min<std::int64_t>(128, 2 * most);
  double farthest = 0;
  for (std::int64_t j = 0; j < columns; ++j) farthest = std::max(farthest, std::fabs(values[j]));
  const auto scale = static_cast<double>(
      static_cast<float>(std::max(farthest / static_cast<double>(most * base) * (1 + 0x1p-20), smallest_scale)));
  std::vector<std::int16_t> codes(static_cast<std::size_t>(columns));
  encoding_.encode_signed(values, columns, scale, codes.data(), &error);
  vectors.assign(static_cast<std::size_t>(2 * bytes), 0);
  std::int64_t total = 0;
  std::int64_t squares = 0;
  for (std::int64_t j = 0; j < columns; ++j) {
    const std::int64_t code = codes[static_cast<std::size_t>(j)];
    // Rounded down, which division is not for negative numbers.
    const std::int64_t high = (code + base / 2 + base * 32768) / base - 32768;
    vectors[static_cast<std::size_t>(j)] = static_cast<std::int8_t>(high);
    vectors[static_cast<std::size_t>(bytes + j)] = static_cast<std::int8_t>(code - base * high);
    total += code;
    squares += code * code;
  }
  sum = static_cast<double>(total);
  norm = scale * scale * static_cast<double>(squares);
  return scale;
}

void Levels::prepare(FineQuery& query) const {
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
  const double scale =
      split(query.values.data(), columns_, full_bytes_, query.vectors, full.norm, full.terms.sum, error);
  full.terms.twice_scale = 2 * scale;
  full.terms.high_weight = static_cast<double>(std::min<std::int64_t>(128, 2 * largest_vector_));
  full.radius = std::sqrt(error) * (1 + of_a_sum) + std::sqrt(squares) * 0x1p-50;
  finish(full);
  const double high_weight = full.terms.high_weight;

  const std::int64_t directions = basis_.directions();
  const double away = basis_.stretch() * full.radius;
  std::vector<std::int32_t> products(static_cast<std::size_t>(2 * directions));
  query.coordinates.resize(static_cast<std::size_t>(directions));
  std::vector<double> squared_coordinates(static_cast<std::size_t>(directions));
  if (directions > 0) {
    products_.bytes(basis_.rows(), basis_.row_bytes(), directions, query.vectors.data(), full_bytes_, 2,
                    basis_.row_bytes(), products.data(), directions);
    for (std::int64_t i = 0; i < directions; ++i) {
      const auto position = static_cast<std::size_t>(i);
      const double product = high_weight * static_cast<double>(products[position]) +
                             static_cast<double>(products[static_cast<std::size_t>(directions + i)]);
      const double coordinate = scale * basis_.scale(i) * (product - 128 * full.terms.sum);
      squared_coordinates[position] = coordinate * coordinate;
      query.coordinates[position] = coordinate - centre_[position];
    }
  }
  LevelQuery projected;
  double projected_scale = 0;
  if (directions > 0) {
    projected_scale = split(query.coordinates.data(), directions, projected_bytes_, query.projected, projected.norm,
                            projected.terms.sum, error);
  }
  std::int64_t done = 0;
  std::int64_t total = 0;
  std::int64_t code_squares = 0;
  double coordinate_squares = 0;
  double centred_squares = 0;
  double lost = 0;
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    LevelQuery& level = query.levels[i];
    if (!levels_[i].shape.projected) {
      level = full;
      continue;
    }
    // The codes of the first directions serve every level that has them; only the sums are its own.
    for (; done < levels_[i].shape.columns; ++done) {
      const auto position = static_cast<std::size_t>(done);
      const std::int64_t code = static_cast<std::int64_t>(high_weight) * query.projected[position] +
                                query.projected[position + static_cast<std::size_t>(projected_bytes_)];
      total += code;
      code_squares += code * code;
      const double centred = query.coordinates[position];
      const double difference = centred - projected_scale * static_cast<double>(code);
      coordinate_squares += squared_coordinates[position];
      centred_squares += centred * centred;
      lost += difference * difference;
    }
    level.terms.twice_scale = 2 * projected_scale;
    level.terms.high_weight = high_weight;
    level.terms.sum = static_cast<double>(total);
    level.norm = projected_scale * projected_scale * static_cast<double>(code_squares);
    level.radius = std::sqrt(lost) * (1 + of_a_sum) +
                   (std::sqrt(coordinate_squares) + std::sqrt(centred_squares)) * 0x1p-50 + away;
    residuals(squares, coordinate_squares, away, level.terms.residual_low, level.terms.residual_high);
    finish(level);
  }
}

LevelQuery Levels::coarse(int number, const FineQuery& query, std::int8_t* vector) const {
  const Level& at = level(number);
  const double* values = at.shape.projected ? query.coordinates.data() : query.values.data();
  const std::int64_t columns = at.shape.columns;
  // Half of the codes are negative in the vector; those of a row are one more, which few columns can afford.
  const auto middle = static_cast<double>(at.shape.projected ? 127 : largest_vector_);
  const auto [lowest, highest] = std::minmax_element(values, values + columns);
  const Quantizer chosen = quantizer(*lowest, *highest, 2 * middle - 1);
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
  coarse.terms.twice_scale = 2 * scale;
  coarse.terms.zero = chosen.zero - middle;
  coarse.terms.sum = sum + static_cast<double>(columns) * coarse.terms.zero;
  coarse.norm = scale * scale * norm;
  // The fine query's radius holds what its values themselves are uncertain by, and a little more.
  coarse.radius += std::sqrt(error) * (1 + of_a_sum);
  finish(coarse);
  return coarse;
}

bool Levels::has_coarse_rows(int number) const {
  // 255 x 128 a column has to stay within int32.
  return level(number).shape.bits == 8 && (level(number).shape.projected || full_bytes_ <= 65792);
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
  if (at.shape.projected) {
    coarse.terms.residual_low = static_cast<double>(at.memory.residual_low[row]);
    coarse.terms.residual_high = static_cast<double>(at.memory.residual_high[row]);
  }
  finish(coarse);
  return coarse;
}

// -- bounds -----------------------------------------------------------------------------------------------------------

float Levels::reach(int number, const LevelQuery& query, double distance) const {
  const double stretch = level(number).shape.projected ? basis_.stretch() : 1;
  return up(stretch * distance * (1 + widening_) + query.radius);
}

RowTerms Levels::terms(int number, std::int64_t first) const {
  const LevelMemory& memory = level(number).memory;
  const bool projected = level(number).shape.projected;
  return {memory.norm + first,
          memory.sum + first,
          memory.scale + first,
          memory.zero + first,
          projected ? memory.residual_low + first : nullptr,
          projected ? memory.residual_high + first : nullptr};
}

Levels::Comparison Levels::compare(int number, std::int64_t row, const LevelQuery& known, const std::int32_t* high,
                                   std::int32_t low) const {
  const LevelMemory& memory = level(number).memory;
  const bool projected = level(number).shape.projected;
  auto sum = static_cast<double>(low);
  if (high != nullptr) sum += known.terms.high_weight * static_cast<double>(*high);
  sum -= static_cast<double>(memory.zero[row]) * known.terms.sum;
  if (known.terms.zero != 0) sum -= memory.sum[row] * known.terms.zero;
  const double norms = memory.norm[row] + known.norm;
  Comparison comparison{};
  comparison.squared = norms - known.terms.twice_scale * static_cast<double>(memory.scale[row]) * sum;
  comparison.uncertain = norms * slack + floor_;
  comparison.radius = (static_cast<double>(memory.radius[row]) + known.radius) * (1 + slack);
  if (projected) {
    comparison.apart = std::max({0.0, static_cast<double>(memory.residual_low[row]) - known.terms.residual_high,
                                 known.terms.residual_low - static_cast<double>(memory.residual_high[row])});
  }
  return comparison;
}

double Levels::lower_bound(const Comparison& comparison, bool projected) const {
  const double nearest =
      std::sqrt(std::max(0.0, comparison.squared - comparison.uncertain)) * (1 - slack) - comparison.radius;
  double lower = std::max(0.0, nearest);
  if (projected) {
    const double inside = lower / basis_.stretch();
    lower = std::sqrt(std::max(0.0, (inside * inside + comparison.apart * comparison.apart) * (1 - slack) - floor_));
  }
  return lower * (1 - slack - widening_);
}

std::int64_t Levels::within(int number, std::int64_t* rows, std::int64_t count, const LevelQuery& query,
                            const std::int8_t* vectors, int vectors_per_query, double distance, double* lower) const {
  const Level& at = level(number);
  const bool projected = at.shape.projected;
  const bool fine = vectors_per_query == 2;
  std::int32_t products[2 * rows_per_tile];
  (at.shape.bits == 8 ? products_.listed_bytes : products_.listed_nibbles)(
      at.memory.codes, at.shape.row_bytes(), rows, count, vectors, vector_bytes(number), vectors_per_query,
      padded_columns(number), products, rows_per_tile);
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const Comparison comparison =
        compare(number, rows[i], query, fine ? products + i : nullptr, products[fine ? rows_per_tile + i : i]);
    // Most rows leave here, without a square root.
    const double reach = (projected ? basis_.stretch() : 1) * distance * (1 + widening_) + comparison.radius;
    const double least = comparison.squared - comparison.uncertain + comparison.apart * comparison.apart * (1 - slack);
    if (least > reach * reach * (1 + slack) + floor_) continue;
    const double bound = lower_bound(comparison, projected);
    if (bound > distance) continue;
    rows[kept] = rows[i];
    lower[kept++] = bound;
  }
  return kept;
}

Interval Levels::bounds(int number, std::int64_t row, const FineQuery& query) const {
  const Level& at = level(number);
  const bool projected = at.shape.projected;
  std::int32_t products[2];
  product(number)(codes(number, row), 0, 1, (projected ? query.projected : query.vectors).data(), vector_bytes(number),
                  2, padded_columns(number), products, 1);
  const Comparison comparison =
      compare(number, row, query.levels[static_cast<std::size_t>(number)], products, products[1]);
  if (projected) return {lower_bound(comparison, true), infinity};
  const double farthest = std::sqrt(comparison.squared + comparison.uncertain) * (1 + slack) + comparison.radius;
  return {lower_bound(comparison, false), farthest * (1 + slack + widening_)};
}

}  // namespace onnxviz
