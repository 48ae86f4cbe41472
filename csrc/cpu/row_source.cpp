#include "onnxviz/row_source.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#if defined(_WIN32)
#include <fstream>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace onnxviz {
namespace {

template <class T>
class RowsInMemory final : public RowSource<T> {
 public:
  explicit RowsInMemory(MatrixView<T> matrix) : matrix_(matrix) {}

  std::int64_t rows() const override { return matrix_.rows; }
  std::int64_t columns() const override { return matrix_.columns; }

  const T* block(std::int64_t first, std::int64_t, std::vector<T>&) const override { return matrix_.row(first); }

  void gather(const std::int64_t* numbers, std::int64_t count, std::vector<T>&, const T** places) const override {
    for (std::int64_t i = 0; i < count; ++i) places[i] = matrix_.row(numbers[i]);
  }

  std::int64_t gathered_at_once() const override { return 1; }

 private:
  MatrixView<T> matrix_;
};

// A file that is read at given positions.
class PositionedFile {
 public:
  explicit PositionedFile(const std::string& path);
  ~PositionedFile();
  PositionedFile(const PositionedFile&) = delete;
  PositionedFile& operator=(const PositionedFile&) = delete;

  std::int64_t size() const;
  void read(void* destination, std::int64_t bytes, std::int64_t offset) const;
  // Lets the system fetch what will soon be read, many places at once.
  void announce(std::int64_t bytes, std::int64_t offset) const;

 private:
  [[noreturn]] void fail(const char* what) const {
    throw std::runtime_error(path_ + " cannot be " + what + ": " + std::strerror(errno));
  }

  const std::string& path_;
#if defined(_WIN32)
  mutable std::ifstream stream_;
#else
  int descriptor_ = -1;
#endif
};

#if defined(_WIN32)

PositionedFile::PositionedFile(const std::string& path) : path_(path), stream_(path, std::ios::binary) {
  if (!stream_) fail("opened");
}
PositionedFile::~PositionedFile() = default;

std::int64_t PositionedFile::size() const {
  stream_.seekg(0, std::ios::end);
  return static_cast<std::int64_t>(stream_.tellg());
}

void PositionedFile::read(void* destination, std::int64_t bytes, std::int64_t offset) const {
  stream_.seekg(offset);
  if (!stream_.read(static_cast<char*>(destination), bytes)) fail("read");
}

void PositionedFile::announce(std::int64_t, std::int64_t) const {}

#else

PositionedFile::PositionedFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail("opened");
}

PositionedFile::~PositionedFile() { close(descriptor_); }

std::int64_t PositionedFile::size() const {
  struct stat status {};
  if (fstat(descriptor_, &status) != 0) fail("measured");
  return static_cast<std::int64_t>(status.st_size);
}

void PositionedFile::read(void* destination, std::int64_t bytes, std::int64_t offset) const {
  auto* place = static_cast<char*>(destination);
  while (bytes > 0) {
    const ssize_t got = pread(descriptor_, place, static_cast<std::size_t>(bytes), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read");
    if (got == 0) throw std::runtime_error(path_ + " has become shorter while it was read");
    place += got;
    bytes -= got;
    offset += got;
  }
}

void PositionedFile::announce(std::int64_t bytes, std::int64_t offset) const {
#if defined(POSIX_FADV_WILLNEED)
  // Advice: where it is not taken, the reads are merely slower.
  (void)posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
#else
  (void)bytes;
  (void)offset;
#endif
}

#endif

// Files are opened for each read: a bank has more of them than a process may hold open, and opening one is quick
// beside reading it.
template <class T>
class RowsInFiles final : public RowSource<T> {
 public:
  RowsInFiles(const std::vector<RowFile>& files, std::int64_t columns) : columns_(columns) {
    for (const RowFile& file : files) {
      parts_.push_back({file.path, file.offset, rows_});
      if (PositionedFile(file.path).size() < file.offset + file.rows * row_bytes()) {
        throw std::runtime_error(file.path + " is shorter than its " + std::to_string(file.rows) + " rows");
      }
      rows_ += file.rows;
    }
  }

  std::int64_t rows() const override { return rows_; }
  std::int64_t columns() const override { return columns_; }

  const T* block(std::int64_t first, std::int64_t count, std::vector<T>& buffer) const override {
    buffer.resize(static_cast<std::size_t>(count * columns_));
    T* place = buffer.data();
    while (count > 0) {
      const auto part = part_of(first);
      const std::int64_t end = part + 1 == parts_.end() ? rows_ : (part + 1)->first;
      const std::int64_t here = std::min(count, end - first);
      PositionedFile(part->path).read(place, here * row_bytes(), part->offset + (first - part->first) * row_bytes());
      place += here * columns_;
      first += here;
      count -= here;
    }
    return buffer.data();
  }

  void gather(const std::int64_t* numbers, std::int64_t count, std::vector<T>& buffer, const T** places) const override {
    buffer.resize(static_cast<std::size_t>(count * columns_));
    for (const bool read : {false, true}) {
      for (std::int64_t i = 0; i < count; ++i) {
        const auto part = part_of(numbers[i]);
        const std::int64_t offset = part->offset + (numbers[i] - part->first) * row_bytes();
        if (!read) {
          PositionedFile(part->path).announce(row_bytes(), offset);
          continue;
        }
        T* place = buffer.data() + i * columns_;
        PositionedFile(part->path).read(place, row_bytes(), offset);
        places[i] = place;
      }
    }
  }

  std::int64_t gathered_at_once() const override { return 32; }

 private:
  struct Part {
    std::string path;
    std::int64_t offset;
    std::int64_t first;  // row number
  };

  std::int64_t row_bytes() const { return columns_ * static_cast<std::int64_t>(sizeof(T)); }

  typename std::vector<Part>::const_iterator part_of(std::int64_t row) const {
    const auto after = std::upper_bound(parts_.begin(), parts_.end(), row,
                                        [](std::int64_t number, const Part& part) { return number < part.first; });
    return after - 1;
  }

  std::int64_t columns_;
  std::int64_t rows_ = 0;
  std::vector<Part> parts_;
};

}  // namespace

template <class T>
std::shared_ptr<const RowSource<T>> rows_in_memory(MatrixView<T> matrix) {
  return std::make_shared<RowsInMemory<T>>(matrix);
}

template <class T>
std::shared_ptr<const RowSource<T>> rows_in_files(const std::vector<RowFile>& files, std::int64_t columns) {
  return std::make_shared<RowsInFiles<T>>(files, columns);
}

template std::shared_ptr<const RowSource<float>> rows_in_memory(MatrixView<float>);
template std::shared_ptr<const RowSource<double>> rows_in_memory(MatrixView<double>);
template std::shared_ptr<const RowSource<float>> rows_in_files(const std::vector<RowFile>&, std::int64_t);
template std::shared_ptr<const RowSource<double>> rows_in_files(const std::vector<RowFile>&, std::int64_t);

}  // namespace onnxviz
