// Where the rows of a bank are read from: memory, or files that are larger than it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace onnxviz {

// A C-contiguous matrix that somebody else owns.
template <class T>
struct MatrixView {
  const T* data;
  std::int64_t rows;
  std::int64_t columns;

  const T* row(std::int64_t i) const { return data + i * columns; }
};

// Rows of a matrix, to be read from several threads at once.
template <class T>
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t columns() const = 0;

  // Rows first .. first + count - 1, one after the other: in `buffer`, or where they are anyway.
  virtual const T* block(std::int64_t first, std::int64_t count, std::vector<T>& buffer) const = 0;

  // places[i] points at row numbers[i], in `buffer` or where it is anyway.
  virtual void gather(const std::int64_t* numbers, std::int64_t count, std::vector<T>& buffer,
                      const T** places) const = 0;

  // How many rows are best gathered at a time.
  virtual std::int64_t gathered_at_once() const = 0;
};

template <class T>
std::shared_ptr<const RowSource<T>> rows_in_memory(MatrixView<T> matrix);

// Part of a bank: rows that lie in a file, C-contiguous and in this machine's byte order, from `offset` on.
struct RowFile {
  std::string path;
  std::int64_t offset;
  std::int64_t rows;
};

// Throws std::runtime_error for a file that cannot be opened or is too short, here and while reading.
template <class T>
std::shared_ptr<const RowSource<T>> rows_in_files(const std::vector<RowFile>& files, std::int64_t columns);

}  // namespace onnxviz
