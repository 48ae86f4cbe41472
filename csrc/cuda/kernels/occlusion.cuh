// Batches of one image with a patch in each copy, and windows of a map: kernels that move bytes and never look at them.
//
// Copies are written 16 bytes at a time whatever the size of the image, from bytes that stay in registers for several
// copies. Windows are written in units, the largest pieces of 1 to 16 bytes that all addresses and pixels are whole
// numbers of: a thread keeps its row and column and goes through several planes with them. So a place is worked out
// once for all that a thread writes; neighbouring threads write neighbouring bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include "dialect.cuh"

namespace onnxviz::cuda {

// Positions travel as parameters of a kernel, which need neither memory nor a copy. Every driver takes 4 KB of those;
// 256 bytes are left for the others. Since CUDA 12.1 there may be 32,764 bytes, if the driver is of that age, too: with
// a toolkit of CUDA 12 it may be older, with one of CUDA 13 it cannot be. Half of that is enough for a launch that is
// worth its start; the host copies all of it, however few are used, so a few positions have kernels of their own.
constexpr int few_bytes = 3840;
constexpr int many_bytes = CUDART_VERSION >= 13000 ? 16384 : few_bytes;

template <class Position, int most_>
struct Positions {
  static constexpr int most = most_;
  Position at[most];
};

// Rows top..bottom-1 and columns left..right-1.
struct Area {
  int top;
  int left;
  int bottom;
  int right;
};

// These compare everything at once: what a branch would save is less than what it costs.
__device__ __forceinline__ bool has_row(const Area& area, int row) {
  // bound: s/row >= area.top/row > area.top/
  // bound: s/row < area.bottom/row <= area.bottom/
  return (row >= area.top) & (row < area.bottom);
}

__device__ __forceinline__ bool has(const Area& area, int row, int column) {
  // bound: s/column >= area.left/column > area.left/
  // bound: s/column < area.right/column <= area.right/
  return has_row(area, row) & (column >= area.left) & (column < area.right);
}

// Position of this thread in the first dimension of its grid, and how many there are.
__device__ __forceinline__ std::int64_t thread_in_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::int64_t threads_in_grid() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// -- copies of an image -----------------------------------------------------------------------------------------------

constexpr int copies_per_thread = 4;
static_assert(16 * copies_per_thread <= 64, "a thread has a bit for each byte that it writes");

struct CopyShape {
  std::int64_t size;  // bytes of a copy
  std::int64_t period_size;
  int row_bytes;
  int height;
  int period;  // copies i and i + period begin equally far behind a multiple of 16 bytes
};

// From bits 0 to 3 to four bytes, each all ones or zero.
__device__ __forceinline__ unsigned spread(unsigned bits) {
  return ((bits & 15u) * 0x00204081u & 0x01010101u) * 255u;
}

// Bytes of `a`, and those of `b` where their bits are set.
__device__ __forceinline__ unsigned blend(unsigned a, unsigned b, unsigned bits) {
  const unsigned chosen = spread(bits);
  return (a & ~chosen) | (b & chosen);
}
__device__ __forceinline__ uint4 blend(const uint4& a, const uint4& b, unsigned bits) {
  return {blend(a.x, b.x, bits), blend(a.y, b.y, bits >> 4), blend(a.z, b.z, bits >> 8), blend(a.w, b.w, bits >> 12)};
}

// Which of `bytes` bytes from a place on lie in the box; the last of a row is followed by the first of the next.
__device__ __forceinline__ unsigned bytes_inside(const Area& box, int row, int column, int bytes, int row_bytes,
                                                 int height) {
  unsigned inside = 0;
  for (int done = 0; done < bytes;) {
    // bound: s/min(bytes - done, row_bytes - column)/bytes - done/
    const int here = min(bytes - done, row_bytes - column);
    // bound: s/has_row(box, row)/true/
    if (has_row(box, row)) {
      const int from = done + min(max(box.left - column, 0), here);
      const int to = done + min(max(box.right - column, 0), here);
      inside |= ((1u << to) - 1u) & ~((1u << from) - 1u);
    }
    done += here;
    column = 0;
    // bound: s/row + 1 == height ? 0 : row + 1/row + 1/
    row = row + 1 == height ? 0 : row + 1;
  }
  return inside;
}

// What `bytes` bytes from a place on can have in common with a box lies in here.
__device__ __forceinline__ Area around(int row, int column, int bytes, int row_bytes, int height) {
  const int end = column + bytes;
  // bound: s/end <= row_bytes/true/
  if (end <= row_bytes) return {row, column, row + 1, end};
  // bound: s/end <= 2 * row_bytes/true/
  // bound: s/row + 2 <= height/true/
  if (end <= 2 * row_bytes && row + 2 <= height) return {row, 0, row + 2, row_bytes};
  return {0, 0, height, row_bytes};
}

__device__ __forceinline__ bool may_meet(const Area& box, const Area& area) {
  // bound: s/box.top < area.bottom/box.top < area.bottom - 1/
  // bound: s/box.bottom > area.top/box.bottom > area.top + 1/
  // bound: s/box.left < area.right/box.left < area.right - 1/
  // bound: s/box.right > area.left/box.right > area.left + 1/
  return (box.top < area.bottom) & (box.bottom > area.top) & (box.left < area.right) & (box.right > area.left);
}

// Bytes from..to-1 of the 16 from `begin` on, those that an image of `size` has, and zeros. Nothing beside it is read,
// not even within 16 aligned bytes of it.
__device__ __forceinline__ uint4 sixteen_bytes(const unsigned char* image, std::int64_t size, std::int64_t begin,
                                               int from, int to) {
  const unsigned char* const place = image + begin;
  const int skew = static_cast<int>(reinterpret_cast<std::uintptr_t>(place) % 16);
  if (skew == 0 && from == 0 && to == 16) return *reinterpret_cast<const uint4*>(place);
  const int in_word = skew % 4;
  // bound: s/begin >= in_word/true/
  // bound: s/size - begin + in_word >= 20/true/
  if (begin >= in_word && size - begin + in_word >= 20) {
    const auto* const words = reinterpret_cast<const unsigned*>(place - in_word);
    const unsigned first = words[0], second = words[1], third = words[2], fourth = words[3], fifth = words[4];
    const unsigned bits = 8u * static_cast<unsigned>(in_word);
    return {__funnelshift_r(first, second, bits), __funnelshift_r(second, third, bits),
            __funnelshift_r(third, fourth, bits), __funnelshift_r(fourth, fifth, bits)};
  }
  unsigned char bytes[16];
  ONNXVIZ_UNROLL
  for (int j = 0; j < 16; ++j) {
    // bound: s/j >= from/true/
    // bound: s/j < to/j <= to/
    bytes[j] = j >= from && j < to ? place[j] : static_cast<unsigned char>(0);
  }
  uint4 packed;
  std::memcpy(&packed, bytes, sizeof packed);
  return packed;
}

__device__ __forceinline__ unsigned char byte_of(const uint4& bytes, int j) {
  const unsigned word = j < 8 ? (j < 4 ? bytes.x : bytes.y) : (j < 12 ? bytes.z : bytes.w);
  return static_cast<unsigned char>(word >> 8 * (j % 4));
}

// batch[i] is the image, with the pixels of box i from `fill`. A thread has 16 bytes of the image, those that belong to
// 16 aligned ones in copies that are `period` apart; at the ends of a copy fewer, which are written one by one. Row
// blockIdx.y of the grid has the copies at that place of their period.
template <int most>
__global__ void fill_copies(const unsigned char* image, const unsigned char* fill, unsigned char* batch,
                            const CopyShape shape, int count, const Positions<Area, most> boxes) {
  const int phase = static_cast<int>(blockIdx.y);
  const int first = static_cast<int>(blockIdx.z) * copies_per_thread * shape.period + phase;
  // bound: s/min(first + copies_per_thread * shape.period, count)/first + copies_per_thread * shape.period/
  const int last = min(first + copies_per_thread * shape.period, count);
  // Bytes between the last multiple of 16 and the beginning of these copies.
  const int ahead = static_cast<int>(reinterpret_cast<std::uintptr_t>(batch + phase * shape.size) % 16);
  const std::int64_t begin = thread_in_grid() * 16 - ahead;
  // bound: s/begin >= shape.size/begin >= shape.size - 16/
  if (begin >= shape.size) return;
  // bound: s/begin < 0 ? ahead : 0/0/
  const int from = begin < 0 ? ahead : 0;
  // bound: s/min(shape.size - begin, std::int64_t{16})/16/
  const int to = static_cast<int>(min(shape.size - begin, std::int64_t{16}));

  const uint4 pixels = sixteen_bytes(image, shape.size, begin, from, to);
  const std::int64_t line = (begin + from) / shape.row_bytes;
  const int column = static_cast<int>(begin + from - line * shape.row_bytes);
  const int row = static_cast<int>(line % shape.height);
  const Area area = around(row, column, to - from, shape.row_bytes, shape.height);
  // A bit for each byte of each copy; those of the first copy are the lowest.
  std::uint64_t inside = 0;
  for (int i = first, bit = from; i < last; i += shape.period, bit += 16) {
    if (!may_meet(boxes.at[i], area)) continue;
    inside |= std::uint64_t{bytes_inside(boxes.at[i], row, column, to - from, shape.row_bytes, shape.height)} << bit;
  }
  uint4 patch{};
  if (inside != 0) patch = sixteen_bytes(fill, shape.size, begin, from, to);

  unsigned char* place = batch + first * shape.size + begin;
  for (int i = first; i < last; i += shape.period, place += shape.period_size, inside >>= 16) {
    uint4 patched = pixels;
    if ((inside & 0xffff) != 0) patched = blend(pixels, patch, static_cast<unsigned>(inside));
    // bound: s/from == 0/true/
    // bound: s/to == 16/true/
    if (from == 0 && to == 16) {
      *reinterpret_cast<uint4*>(place) = patched;
    } else {
      // bound: s/j < to/j <= to/
      ONNXVIZ_NO_UNROLL
      for (int j = from; j < to; ++j) place[j] = byte_of(patched, j);
    }
  }
}

// -- boxes of copies that are there already ---------------------------------------------------------------------------

// Columns in units.
struct Patch {
  Area before;
  Area now;
};

// Takes the pixels of each box `before` back from the image and those of `now` from `fill`: a warp for each row of a
// box. A pixel in both is written once, with the first.
template <class Unit, int most>
__global__ void move_patches(const Unit* image, const Unit* fill, Unit* batch, std::int64_t planes, int height,
                             int columns, int tallest, int count, const Positions<Patch, most> patches) {
  const std::int64_t rows = static_cast<std::int64_t>(count) * 2 * planes * tallest;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  // bound: s/r < rows/r < rows - tallest/
  for (std::int64_t r = thread_in_grid() / warpSize; r < rows; r += threads_in_grid() / warpSize) {
    const std::int64_t of_box = r / tallest;
    const std::int64_t plane = of_box % planes;
    const int i = static_cast<int>(of_box / planes / 2);
    const bool is_old = of_box / planes % 2 == 0;
    const Patch& patch = patches.at[i];
    const Area& box = is_old ? patch.before : patch.now;
    const int row = box.top + static_cast<int>(r % tallest);
    // bound: s/row >= box.bottom/false/
    if (row >= box.bottom) continue;
    const std::int64_t line = (plane * height + row) * columns;
    Unit* const slot = batch + static_cast<std::int64_t>(i) * planes * height * columns;
    // bound: s/column < box.right/column <= box.right/
    for (int column = box.left + lane; column < box.right; column += warpSize) {
      if (!is_old && has(patch.before, row, column)) continue;
      const bool is_new = has(patch.now, row, column);
      slot[line + column] = (is_new ? fill : image)[line + column];
    }
  }
}

// -- windows of a map -------------------------------------------------------------------------------------------------

// A Placement in rows and units. No sum of two of these overflows.
struct Window {
  int top;
  int left;
  int source_top;
  int source_left;
  Area fresh;
};

// Planes of a map or of a source.
template <class Unit>
struct Planes {
  const Unit* units;
  std::int64_t plane_units;
  std::int64_t step;  // units from one plane of a thread to its next one
  int rows;
  int columns;  // units
};

// A thread has one row and one column in planes that lie `planes_apart` from each other: planes_per_thread of these, or
// one less.
template <class Unit>
struct OverlayShape {
  Planes<Unit> map;
  Planes<Unit> source;
  std::int64_t source_stride;  // units
  const Unit* border;
  Unit* windows;
  std::int64_t window_units;
  std::int64_t window_step;
  std::int64_t planes;
  std::int64_t planes_apart;
  int planes_per_thread;
  int rows;
  int columns;  // units
  int pixel;    // units
};

// So many units a thread has on their way at a time: fewer, and it waits for each; more, and there are few threads.
template <class Unit>
constexpr int most_planes_per_thread = sizeof(Unit) == 16 ? 4 : sizeof(Unit) > 1 ? 8 : 16;

// Where the units of a thread come from: that of its first plane, and how far behind it that of the next one lies.
template <class Unit>
struct Origin {
  const Unit* place;
  std::int64_t step;
};

template <class Unit>
__device__ __forceinline__ Origin<Unit> origin_of(const OverlayShape<Unit>& shape, int i, const Window& at,
                                                  std::int64_t plane, int row_of_window, int column_of_window) {
  const Planes<Unit>& map = shape.map;
  const Planes<Unit>& source = shape.source;
  const int row = at.top + row_of_window;
  const int column = at.left + column_of_window;
  // bound: s/!has({0, 0, map.rows, map.columns}, row, column)/false/
  if (!has({0, 0, map.rows, map.columns}, row, column)) return {shape.border + column_of_window % shape.pixel, 0};
  const bool is_fresh = has(at.fresh, row, column);
  const Unit* const units = is_fresh ? source.units + i * shape.source_stride : map.units;
  const std::int64_t plane_units = is_fresh ? source.plane_units : map.plane_units;
  const std::int64_t columns = is_fresh ? source.columns : map.columns;
  const int line = is_fresh ? row - at.source_top : row;
  const int in_line = is_fresh ? column - at.source_left : column;
  return {units + plane * plane_units + line * columns + in_line, is_fresh ? source.step : map.step};
}

// Window blockIdx.y: a crop of the map, with the pixels of `fresh` from its source, and the border where it reaches
// past the map. Threads of the first planes_apart planes write those behind them, too, with the same row and column.
template <class Unit, int most>
__global__ void overlay(const OverlayShape<Unit> shape, const Positions<Window, most> windows) {
  constexpr int most_planes = most_planes_per_thread<Unit>;
  const auto i = static_cast<int>(blockIdx.y);
  const std::int64_t plane_units = static_cast<std::int64_t>(shape.rows) * shape.columns;
  const std::int64_t thread = thread_in_grid();
  const std::int64_t plane = thread / plane_units;
  // bound: s/plane >= shape.planes_apart/false/
  if (plane >= shape.planes_apart) return;
  const std::int64_t in_plane = thread - plane * plane_units;
  const int row = static_cast<int>(in_plane / shape.columns);
  const int column = static_cast<int>(in_plane - static_cast<std::int64_t>(row) * shape.columns);
  const bool has_all = plane + (shape.planes_per_thread - 1) * shape.planes_apart < shape.planes;
  // bound: s/has_all ? shape.planes_per_thread : shape.planes_per_thread - 1/shape.planes_per_thread/
  const int planes = has_all ? shape.planes_per_thread : shape.planes_per_thread - 1;
  const Origin<Unit> origin = origin_of(shape, i, windows.at[i], plane, row, column);
  Unit values[most_planes]{};
  const Unit* from = origin.place;
  ONNXVIZ_UNROLL
  for (int j = 0; j < most_planes; ++j, from += origin.step) {
    // bound: s/j < planes/j <= planes/
    if (j < planes) values[j] = __ldg(from);
  }
  Unit* to = shape.windows + i * shape.window_units + thread;
  ONNXVIZ_UNROLL
  for (int j = 0; j < most_planes; ++j, to += shape.window_step) {
    // bound: s/j < planes/j <= planes/
    if (j < planes) *to = values[j];
  }
}

}  // namespace onnxviz::cuda
