// What the test programs share: a check that says where it failed, and banks of rows that have broken other programs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
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

// Bank number `kind` of 0..bank_kinds-1; `name` says what is special about it.
constexpr int bank_kinds = 10;

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
        default:
          name = "one hot";
          element = j == i % columns ? 64 : 0;
          break;
      }
      row[j] = static_cast<T>(element);
    }
  }
  return bank;
}

}  // namespace onnxviz::test
