#include "onnxviz/row_source.h"

#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"

using namespace onnxviz;
using onnxviz::test::contains;
using onnxviz::test::message_of;

namespace {

constexpr std::int64_t columns = 5;

double element(std::int64_t row, std::int64_t column) { return static_cast<double>(100 * row + column); }

// A file with something before its rows.
RowFile write_file(const std::string& path, std::int64_t first, std::int64_t rows, std::int64_t offset) {
  std::ofstream stream(path, std::ios::binary);
  for (std::int64_t i = 0; i < offset; ++i) stream.put('x');
  for (std::int64_t i = first; i < first + rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const auto number = static_cast<float>(element(i, j));
      stream.write(reinterpret_cast<const char*>(&number), sizeof number);
    }
  }
  return {path, offset, rows};
}

void rows_come_from_the_right_file() {
  const std::vector<std::string> names = {"onnxviz_rows_a.bin", "onnxviz_rows_b.bin", "onnxviz_rows_c.bin"};
  const std::vector<RowFile> files = {write_file(names[0], 0, 3, 128), write_file(names[1], 3, 1, 0),
                                      write_file(names[2], 4, 7, 64)};
  const auto source = rows_in_files<float>(files, columns);
  CHECK(source->rows() == 11 && source->columns() == columns);
  std::vector<float> buffer;
  for (std::int64_t first = 0; first < 11; ++first) {
    for (std::int64_t count = 1; first + count <= 11; ++count) {
      const float* block = source->block(first, count, buffer);
      bool right = true;
      for (std::int64_t i = 0; i < count * columns; ++i) {
        right = right && static_cast<double>(block[i]) == element(first + i / columns, i % columns);
      }
      CHECK(right);
    }
  }
  const std::int64_t numbers[] = {10, 0, 3, 3, 2, 4};
  const float* places[6];
  source->gather(numbers, 6, buffer, places);
  for (int i = 0; i < 6; ++i) CHECK(static_cast<double>(places[i][4]) == element(numbers[i], 4));

  const std::vector<RowFile> longer = {files[0], {names[1], 0, 2}};
  CHECK(contains(message_of<std::runtime_error>([&] { rows_in_files<float>(longer, columns); }), names[1] + " is shorter"));
  const std::vector<RowFile> absent = {{"no/such/file", 0, 1}};
  CHECK(contains(message_of<std::runtime_error>([&] { rows_in_files<float>(absent, columns); }), "no/such/file"));
  for (const std::string& name : names) std::remove(name.c_str());
}

}  // namespace

int main() {
  return onnxviz::test::run([] { rows_come_from_the_right_file(); });
}
