// What the test programs share: a check that says where it failed, and banks of rows that have broken other programs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <stdexcept>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "onnxviz/cpu.h"
#include "onnxviz/neighbors.h"

namespace onnxviz::test {

inline int failures = 0;

inline void check(bool holds, const char* what, const char* file, int line, const std::string& detail = "") {
  if (holds) return;
  ++failures;
  if (failures <= 20) std::printf("%s:%d: does not hold: %s %s\n", file, line, what, detail.c_str());
}

#define CHECK(condition) ::onnxviz::test::check((condition), #condition, __FILE__, __LINE__)
#define CHECK_FOR(condition, detail) ::onnxviz::test::check((condition), #condition, __FILE__, __LINE__, (detail))

// The message of the exception of this kind that `call` throws; "" where it throws none.
template <class Exception>
std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Exception& exception) {
    return exception.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// 0 or 1 for main to return; 77, which ctest calls skipped, where ONNXVIZ_CPU asks for what this processor lacks.
inline int run(const std::function<void()>& tests) {
  const std::string refusal = message_of<std::runtime_error>([] { level_in_use(); });
  if (contains(refusal, "this processor cannot run it")) {
    std::printf("%s\n", refusal.c_str());
    return 77;
  }
  tests();
  if (failures != 0) std::printf("%d checks failed\n", failures);
  return failures == 0 ? 0 : 1;
}

template <class T>
struct Matrix {
  std::int64_t rows;
  std::int64_t columns;
  std::vector<T> elements;

  Matrix(std::int64_t row_count, std::int64_t column_count)
      : rows(row_count), columns(column_count), elements(static_cast<std::size_t>(row_count * column_count)) {}

  T* row(std::int64_t i) { return elements.data() + i * columns; }
  MatrixView<T> view() const { return {elements.data(), rows, columns}; }
};

// An index's setup together with the memory of its levels.
struct OwnedSetup {
  IndexSetup setup;
  std::vector<float> basis;
  std::vector<double> directions;
  std::vector<std::unique_ptr<std::uint8_t[]>> bytes;
  std::vector<std::unique_ptr<float[]>> floats;
  std::vector<std::unique_ptr<double[]>> doubles;
  std::vector<std::unique_ptr<PartTerms[]>> parts;
  std::unique_ptr<OriginTerms[]> origins;

  void add_level(LevelShape shape, std::int64_t rows) {
    Level level;
    level.shape = shape;
    const auto count = static_cast<std::size_t>(rows);
    bytes.push_back(std::make_unique<std::uint8_t[]>(count * static_cast<std::size_t>(shape.row_bytes())));
    level.memory.codes = bytes.back().get();
    if (shape.projected) {
      parts.push_back(std::make_unique<PartTerms[]>(count));
      level.memory.parts = parts.back().get();
      if (shape.first == 0) {
        origins = std::make_unique<OriginTerms[]>(count);
        level.memory.origins = origins.get();
      }
      setup.levels.push_back(level);
      return;
    }
    for (double** place : {&level.memory.norm, &level.memory.sum}) {
      doubles.push_back(std::make_unique<double[]>(count));
      *place = doubles.back().get();
    }
    for (float** place : {&level.memory.scale, &level.memory.zero, &level.memory.radius}) {
      floats.push_back(std::make_unique<float[]>(count));
      *place = floats.back().get();
    }
    setup.levels.push_back(level);
  }
};

// Directions as good as random ones are: orthonormal, from Gram and Schmidt.
inline std::vector<float> random_basis(std::int64_t directions, std::int64_t columns, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> rows;
  for (std::int64_t i = 0; i < directions; ++i) {
    std::vector<double> row(static_cast<std::size_t>(columns));
    for (double& element : row) element = normal(random);
    for (int pass = 0; pass < 2; ++pass) {
      for (const auto& other : rows) {
        double product = 0;
        for (std::size_t j = 0; j < row.size(); ++j) product += row[j] * other[j];
        for (std::size_t j = 0; j < row.size(); ++j) row[j] -= product * other[j];
      }
    }
    double squares = 0;
    for (const double element : row) squares += element * element;
    for (double& element : row) element /= std::sqrt(squares);
    rows.push_back(row);
  }
  std::vector<float> basis;
  for (const auto& row : rows) {
    for (const double element : row) basis.push_back(static_cast<float>(element));
  }
  return basis;
}

// Levels that end with those numbers of directions, of eight and four bits in turn; four bits, eight bits of every
// column; the reference is the mean of the rows or zero. Every
// other direction is longer by the share `skew`, the others are shorter.
template <class T>
OwnedSetup make_setup(const Matrix<T>& bank, Metric metric, const std::vector<std::int64_t>& projected, bool centred,
                      double skew = 0) {
  OwnedSetup owned;
  owned.setup.metric = metric;
  const auto columns = static_cast<std::size_t>(bank.columns);
  std::vector<double> mean(columns, 0.0);
  double largest = 0;
  for (std::int64_t i = 0; i < bank.rows; ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      const auto element = static_cast<double>(bank.elements[static_cast<std::size_t>(i) * columns + j]);
      mean[j] += element / static_cast<double>(bank.rows);
      largest = std::max(largest, std::fabs(element));
    }
  }
  if (metric == Metric::cosine) largest = 1;
  int exponent = 0;
  std::frexp(largest, &exponent);
  owned.setup.scale = std::ldexp(1.0, std::min(400, -exponent));
  owned.setup.mean = mean;
  owned.setup.reference = centred ? mean : std::vector<double>(columns, 0.0);
  std::int64_t directions = 0;
  for (const std::int64_t width : projected) directions = std::max(directions, width);
  owned.basis = random_basis(directions, bank.columns, 7);
  for (std::size_t i = 0; i < owned.basis.size(); ++i) {
    owned.basis[i] *= static_cast<float>(i / columns % 2 == 0 ? 1 + skew : 1 - skew);
  }
  owned.setup.basis = {owned.basis.data(), directions, bank.columns};
  std::int64_t first = 0;
  int bits = 8;
  for (const std::int64_t end : projected) {
    owned.add_level({end - first, bits, true, first}, bank.rows);
    first = end;
    bits = 12 - bits;
  }
  owned.add_level({bank.columns, 4, false}, bank.rows);
  owned.add_level({bank.columns, 8, false}, bank.rows);
  if (metric == Metric::cosine) {
    owned.directions.assign(static_cast<std::size_t>(2 * bank.rows), 0.0);
    owned.setup.directions = owned.directions.data();
  }
  return owned;
}

// All levels, or without the last one: the eight bits of every column.
inline IndexSetup& levels_of(IndexSetup& setup, bool bytes) {
  if (!bytes) setup.levels.pop_back();
  return setup;
}

// Bank number `kind` of 0..bank_kinds-1; `name` says what is special about it.
constexpr int bank_kinds = 14;

template <class T>
Matrix<T> make_bank(int kind, std::int64_t rows, std::int64_t columns, std::string& name) {
  std::mt19937_64 random(static_cast<std::uint64_t>(kind) + 1);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  Matrix<T> bank(rows, columns);
  const double base = 16 + 16 * uniform(random);
  for (std::int64_t i = 0; i < rows; ++i) {
    T* row = bank.row(i);
    for (std::int64_t j = 0; j < columns; ++j) {
      double element = 0;
      switch (kind) {
        case 0:
          name = "normal";
          element = normal(random);
          break;
        case 1:
          name = "after a ReLU";
          element = std::max(0.0, normal(random));
          break;
        case 2:
          name = "far from the origin";
          element = 1e4 + normal(random);
          break;
        case 3:
          name = "duplicates";
          element = static_cast<double>((i % 7) * 31 + j % 5);
          break;
        case 4:
          name = "a few steps of the last bit apart";
          element = base + (uniform(random) < 0.05 ? std::ldexp(1.0, -19) * static_cast<double>(1 + random() % 3) : 0);
          break;
        case 5:
          name = "one large channel";
          element = j == 0 ? 6000 * uniform(random) - 3000 : 1;
          break;
        case 6:
          name = "zeros, 1e-20 and 1e15";
          element = i % 3 == 0 ? 0 : (i % 3 == 1 ? 1e-20 : 1e15) * normal(random);
          break;
        case 7:
          name = "two values";
          element = random() % 2 == 0 ? 0.25 : 0.75;
          break;
        case 8:
          name = "subnormal";
          element = 1e-41 * normal(random);
          break;
        case 9:
          name = "one hot";
          element = j == i % columns ? 64 : 0;
          break;
        case 10:
          name = "one large channel per row";
          element = (j == (7 * i) % columns ? 5000 : 0.1) * normal(random);
          break;
        case 11:
          name = "rank one";
          element = static_cast<double>(i % 23 - 11) * static_cast<double>(j % 9 - 4) / 3;
          break;
        case 12:
          name = "one value";
          element = 1.0 / 3;
          break;
        default:
          name = "offset and narrow";
          element = 30 + 0.05 * normal(random);
          break;
      }
      row[j] = static_cast<T>(element);
    }
  }
  return bank;
}

}  // namespace onnxviz::test
