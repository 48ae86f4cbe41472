// Batches of one image with a patch in each copy, and windows of a map: kernels that move bytes and never look at them.
//
// Columns are counted in bytes or in units, the largest pieces of 1 to 16 bytes that all addresses and pixels are whole
// numbers of. Every thread keeps its place in the image and goes through several copies with it, so that the image is
// read once for all of them and a place is worked out once; neighbouring threads write neighbouring 16 bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include "dialect.cuh"

namespace onnxviz::cuda {

// So many positions fit into the 4 KB of a kernel's parameters, where they need neither memory nor a copy.
constexpr int positions_at_once = 96;
constexpr int positions_per_thread = 8;

// Rows top..bottom-1 and columns left..right-1.
struct Area {
  int top;
  int left;
  int bottom;
  int right;
};

__device__ __forceinline__ bool has_row(const Area& area, int row) { return row >= area.top && row < area.bottom; }

__device__ __forceinline__ bool has(const Area& area, int row, int column) {
  return has_row(area, row) && column >= area.left && column < area.right;
}

// Position of this thread in a grid of one dimension, and how many there are.
__device__ __forceinline__ std::int64_t thread_in_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::int64_t threads_in_grid() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// The positions that a thread of row blockIdx.y of the grid goes through.
struct Turn {
  int first;
  int last;
};
__device__ __forceinline__ Turn turn_of(int count) {
  const int first = static_cast<int>(blockIdx.y) * positions_per_thread;
  // bound: s/min(first + positions_per_thread, count)/first + positions_per_thread/
  return {first, min(first + positions_per_thread, count)};
}

// -- copies of an image -----------------------------------------------------------------------------------------------

struct Copies {
  Area boxes[positions_at_once];  // columns in bytes
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
__device__ __forceinline__ uint2 blend(const uint2& a, const uint2& b, unsigned bits) {
  return {blend(a.x, b.x, bits), blend(a.y, b.y, bits >> 4)};
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

// batch[i] is the image, with the pixels of box i from `fill`: whole vectors, which rows need not be.
template <class Vector>
__global__ void fill_copies(const Vector* image, const Vector* fill, Vector* batch, std::int64_t vectors, int row_bytes,
                            int height, int count, const Copies copies) {
  constexpr int bytes = sizeof(Vector);
  const Turn turn = turn_of(count);
  // bound: s/v < vectors/v <= vectors/
  for (std::int64_t v = thread_in_grid(); v < vectors; v += threads_in_grid()) {
    const Vector pixels = image[v];
    const std::int64_t line = v * bytes / row_bytes;
    const int column = static_cast<int>(v * bytes - line * row_bytes);
    const int row = static_cast<int>(line % height);
    Vector patch{};
    bool has_patch = false;
    for (int i = turn.first; i < turn.last; ++i) {
      const unsigned inside = bytes_inside(copies.boxes[i], row, column, bytes, row_bytes, height);
      if (inside != 0 && !has_patch) {
        patch = fill[v];
        has_patch = true;
      }
      batch[i * vectors + v] = blend(pixels, patch, inside);
    }
  }
}

// -- boxes of copies that are there already ---------------------------------------------------------------------------

struct Patches {
  Area before[positions_at_once];  // columns in units
  Area now[positions_at_once];
};

// Takes the pixels of box before[i] back from the image and those of box now[i] from `fill`: a warp for each row of a
// box. A pixel in both is written once, with the first.
template <class Unit>
__global__ void move_patches(const Unit* image, const Unit* fill, Unit* batch, std::int64_t planes, int height,
                             int columns, int tallest, int count, const Patches patches) {
  const std::int64_t rows = static_cast<std::int64_t>(count) * 2 * planes * tallest;
  const int lane = static_cast<int>(threadIdx.x % warpSize);
  // bound: s/r < rows/r < rows - tallest/
  for (std::int64_t r = thread_in_grid() / warpSize; r < rows; r += threads_in_grid() / warpSize) {
    const std::int64_t of_box = r / tallest;
    const std::int64_t plane = of_box % planes;
    const int i = static_cast<int>(of_box / planes / 2);
    const bool is_old = of_box / planes % 2 == 0;
    const Area& box = is_old ? patches.before[i] : patches.now[i];
    const int row = box.top + static_cast<int>(r % tallest);
    // bound: s/row >= box.bottom/false/
    if (row >= box.bottom) continue;
    const std::int64_t line = (plane * height + row) * columns;
    Unit* const slot = batch + static_cast<std::int64_t>(i) * planes * height * columns;
    // bound: s/column < box.right/column <= box.right/
    for (int column = box.left + lane; column < box.right; column += warpSize) {
      if (!is_old && has(patches.before[i], row, column)) continue;
      const bool is_new = has(patches.now[i], row, column);
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

struct Windows {
  Window at[positions_at_once];
};

// Sides in rows and units, and the units of a pixel.
struct OverlayShape {
  int map_rows;
  int map_columns;
  int source_rows;
  int source_columns;
  int rows;
  int columns;
  int pixel;
};

template <class Unit>
struct OverlayMemory {
  const Unit* map;
  const Unit* source;
  std::int64_t source_stride;  // units
  const Unit* border;
  Unit* windows;
  std::int64_t window_units;
};

// A place in a window.
struct Spot {
  std::int64_t plane;
  int row;
  int column;
};

__device__ __forceinline__ Spot spot_of(std::int64_t unit, const OverlayShape& shape) {
  const std::int64_t line = unit / shape.columns;
  return {line / shape.rows, static_cast<int>(line % shape.rows), static_cast<int>(unit - line * shape.columns)};
}

__device__ __forceinline__ void step(Spot& spot, const OverlayShape& shape) {
  if (++spot.column < shape.columns) return;
  spot.column = 0;
  if (++spot.row < shape.rows) return;
  spot.row = 0;
  ++spot.plane;
}

template <class Unit>
__device__ __forceinline__ const Unit* in_map(const OverlayMemory<Unit>& memory, const OverlayShape& shape,
                                              std::int64_t plane, int row, int column) {
  return memory.map + (plane * shape.map_rows + row) * shape.map_columns + column;
}

template <class Unit>
__device__ __forceinline__ const Unit* in_source(const OverlayMemory<Unit>& memory, const OverlayShape& shape, int i,
                                                 const Window& at, std::int64_t plane, int row, int column) {
  return memory.source + i * memory.source_stride +
         (plane * shape.source_rows + row - at.source_top) * shape.source_columns + column - at.source_left;
}

template <class Unit>
__device__ __forceinline__ Unit unit_at(const OverlayMemory<Unit>& memory, const OverlayShape& shape, int i,
                                        const Window& at, const Spot& spot) {
  const int row = at.top + spot.row;
  const int column = at.left + spot.column;
  const Area map{0, 0, shape.map_rows, shape.map_columns};
  // bound: s/!has(map, row, column)/false/
  if (!has(map, row, column)) return memory.border[spot.column % shape.pixel];
  if (has(at.fresh, row, column)) return *in_source(memory, shape, i, at, spot.plane, row, column);
  return *in_map(memory, shape, spot.plane, row, column);
}

// windows[i]: a crop of the map, with the pixels of `fresh` from source i, and the border where it reaches past the map.
// A thread writes 16 bytes of each of its windows at a time, wherever those begin.
template <class Unit>
__global__ void overlay(const OverlayMemory<Unit> memory, const OverlayShape shape, std::int64_t vectors, int count,
                        const Windows windows) {
  constexpr int units = static_cast<int>(16 / sizeof(Unit));
  const Turn turn = turn_of(count);
  for (std::int64_t v = thread_in_grid(); v < vectors; v += threads_in_grid()) {
    int last_ahead = -1;
    Spot spot{};
    for (int i = turn.first; i < turn.last; ++i) {
      const Window& at = windows.at[i];
      Unit* const window = memory.windows + i * memory.window_units;
      // Units between the last multiple of 16 bytes and the window's beginning.
      const int ahead = static_cast<int>(reinterpret_cast<std::uintptr_t>(window) / sizeof(Unit) % units);
      const std::int64_t begin = v * units - ahead;
      if (begin >= memory.window_units) continue;
      // bound: s/if (ahead != last_ahead)/if (last_ahead < 0)/
      if (ahead != last_ahead) spot = spot_of(begin > 0 ? begin : 0, shape);
      last_ahead = ahead;
      // bound: s/begin < 0 ? ahead : 0/0/
      const int first = begin < 0 ? ahead : 0;
      const std::int64_t left = memory.window_units - begin;
      // bound: s/left < units/false/
      const int last = left < units ? static_cast<int>(left) : units;
      const bool is_whole = first == 0 && last == units;

      alignas(16) Unit values[units];
      const int row = at.top + spot.row;
      const int column = at.left + spot.column;
      const int end = column + units;
      // bound: s/spot.column + units <= shape.columns/true/
      const bool in_one_row = is_whole && spot.column + units <= shape.columns;
      // bound: s/column >= 0/true/
      // bound: s/end <= shape.map_columns/true/
      // bound: s/row >= 0/true/
      // bound: s/row < shape.map_rows/true/
      const bool in_one_map = row >= 0 && row < shape.map_rows && column >= 0 && end <= shape.map_columns;
      // bound: s/end <= at.fresh.left/column < at.fresh.left/
      // bound: s/column >= at.fresh.right/end > at.fresh.right/
      const bool beside_fresh = !has_row(at.fresh, row) || column >= at.fresh.right || end <= at.fresh.left;
      // bound: s/end <= at.fresh.right/column < at.fresh.right/
      // bound: s/column >= at.fresh.left/end > at.fresh.left/
      const bool in_fresh = has_row(at.fresh, row) && column >= at.fresh.left && end <= at.fresh.right;
      if (in_one_row && in_one_map && (beside_fresh || in_fresh)) {
        const Unit* const from = in_fresh ? in_source(memory, shape, i, at, spot.plane, row, column)
                                          : in_map(memory, shape, spot.plane, row, column);
        if (reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
          *reinterpret_cast<uint4*>(window + begin) = *reinterpret_cast<const uint4*>(from);
          continue;
        }
        ONNXVIZ_UNROLL
        for (int j = 0; j < units; ++j) values[j] = from[j];
      } else {
        Spot now = spot;
        ONNXVIZ_UNROLL
        for (int j = 0; j < units; ++j) {
          if (j < first || j >= last) continue;
          values[j] = unit_at(memory, shape, i, at, now);
          step(now, shape);
        }
      }
      if (is_whole) {
        uint4 packed;
        std::memcpy(&packed, values, sizeof packed);
        *reinterpret_cast<uint4*>(window + begin) = packed;
      } else {
        ONNXVIZ_UNROLL
        for (int j = 0; j < units; ++j) {
          if (j >= first && j < last) window[begin + j] = values[j];
        }
      }
    }
  }
}

}  // namespace onnxviz::cuda
