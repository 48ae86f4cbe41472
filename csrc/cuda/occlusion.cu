#include "onnxviz/cuda/occlusion.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/occlusion.cuh"
#include "launch.h"
#include "onnxviz/occlusion_checks.h"

namespace onnxviz::cuda {
namespace {

constexpr int most_threads = 256;
constexpr int warp_size = 32;
// Enough to keep any device busy; what they leave they come back for.
constexpr std::int64_t most_blocks = 1024;
// Of rows, and of bytes in a row: sums of a few stay within 32 bits.
constexpr std::int64_t longest_side = std::int64_t{1} << 29;

void check_sides(std::initializer_list<std::int64_t> sides) {
  for (const std::int64_t side : sides) {
    if (side > longest_side) {
      throw std::invalid_argument("a map with a side of " + std::to_string(side) +
                                  " rows or bytes is larger than CUDA kernels count");
    }
  }
}

std::uint64_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

// The largest piece of up to 16 bytes that all of these are whole numbers of.
unsigned common_unit(std::initializer_list<std::uint64_t> numbers) {
  std::uint64_t bits = 16;
  for (const std::uint64_t one : numbers) bits |= one;
  return static_cast<unsigned>(bits & (~bits + 1));
}

// Calls with a unit of so many bytes, none of which is ever made.
template <class Call>
void with_unit(unsigned bytes, const Call& call) {
  switch (bytes) {
    case 1: return call(static_cast<unsigned char*>(nullptr));
    case 2: return call(static_cast<unsigned short*>(nullptr));
    case 4: return call(static_cast<unsigned*>(nullptr));
    case 8: return call(static_cast<uint2*>(nullptr));
    default: return call(static_cast<uint4*>(nullptr));
  }
}

// A thread for each piece of work, as far as that goes.
Grid grid_for(std::int64_t work, int positions) {
  const auto warps = static_cast<int>(blocks_for(std::min<std::int64_t>(work, most_threads), warp_size));
  const int threads = warp_size * std::max(warps, 1);
  const unsigned blocks = blocks_for(std::min(work, most_blocks * threads), threads);
  return {dim3(blocks, blocks_for(positions, positions_per_thread)), static_cast<unsigned>(threads)};
}

Area area(const Box& box, std::int64_t per_column) {
  return {static_cast<int>(box.top), static_cast<int>(box.left * per_column), static_cast<int>(box.bottom),
          static_cast<int>(box.right * per_column)};
}

// In rows and units of `per_column` to a pixel, beside the map where it lies anywhere past it.
Window window_of(const Placement& at, const ImageLayout& map, std::int64_t height, std::int64_t width,
                 std::int64_t per_column) {
  Window window{};
  window.top = static_cast<int>(std::clamp(at.top, -height, map.height));
  window.left = static_cast<int>(std::clamp(at.left, -width, map.width) * per_column);
  if (is_empty(at.fresh)) return window;  // its numbers may be any
  window.source_top = static_cast<int>(at.source_top);
  window.source_left = static_cast<int>(at.source_left * per_column);
  window.fresh = area(at.fresh, per_column);
  return window;
}

// What has been checked and is not empty.
void overlay_in_units(const void* original, const ImageLayout& layout, const void* source, std::int64_t source_height,
                      std::int64_t source_width, std::size_t source_stride, const Placement* placements,
                      std::int64_t count, std::int64_t height, std::int64_t width, const void* border, void* windows,
                      StreamView stream) {
  const auto pixel_bytes = static_cast<std::uint64_t>(layout.pixel_bytes);
  const unsigned bytes = common_unit(
      {pixel_bytes, number(original), number(source), source_stride, number(border), number(windows)});
  const std::int64_t per_column = layout.pixel_bytes / bytes;
  const auto units = [per_column](std::int64_t pixels) { return static_cast<int>(pixels * per_column); };
  const OverlayShape shape{static_cast<int>(layout.height),
                           units(layout.width),
                           static_cast<int>(source_height),
                           units(source_width),
                           static_cast<int>(height),
                           units(width),
                           units(1)};
  const std::int64_t window_units = layout.planes * height * width * per_column;
  // One more, since a window may begin anywhere in its first 16 bytes.
  const std::int64_t vectors = window_units * bytes / 16 + 2;
  with_unit(bytes, [&](auto* null) {
    using Unit = std::remove_pointer_t<decltype(null)>;
    OverlayMemory<Unit> memory{static_cast<const Unit*>(original), static_cast<const Unit*>(source),
                               static_cast<std::int64_t>(source_stride / bytes), static_cast<const Unit*>(border),
                               static_cast<Unit*>(windows), window_units};
    for (std::int64_t done = 0; done < count; done += positions_at_once) {
      const int some = static_cast<int>(std::min<std::int64_t>(count - done, positions_at_once));
      Windows at;
      for (int i = 0; i < some; ++i) at.at[i] = window_of(placements[done + i], layout, height, width, per_column);
      launch(overlay<Unit>, grid_for(vectors, some), queue(stream), memory, shape, vectors, some, at);
      memory.source += memory.source_stride * some;
      memory.windows += memory.window_units * some;
    }
  });
}

void fill_all(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes, std::int64_t count,
              void* batch, StreamView stream) {
  const std::size_t size = layout.bytes();
  const unsigned bytes = common_unit({number(image), number(fill), number(batch), size});
  if (bytes < 4) {
    // Copies that begin anywhere: as windows of the whole image they are still written 16 bytes at a time.
    std::vector<Placement> placements(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < placements.size(); ++i) placements[i] = {0, 0, 0, 0, boxes[i]};
    overlay_in_units(image, layout, fill, layout.height, layout.width, 0, placements.data(), count, layout.height,
                     layout.width, nullptr, batch, stream);
    return;
  }
  const auto vectors = static_cast<std::int64_t>(size / bytes);
  const auto with_vector = [&](auto* null) {
    using Vector = std::remove_pointer_t<decltype(null)>;
    auto* next = static_cast<Vector*>(batch);
    for (std::int64_t done = 0; done < count; done += positions_at_once) {
      const int some = static_cast<int>(std::min<std::int64_t>(count - done, positions_at_once));
      Copies copies;
      for (int i = 0; i < some; ++i) copies.boxes[i] = area(boxes[done + i], layout.pixel_bytes);
      launch(fill_copies<Vector>, grid_for(vectors, some), queue(stream), static_cast<const Vector*>(image),
             static_cast<const Vector*>(fill), next, vectors, layout.row_bytes(), layout.height, some, copies);
      next += some * vectors;
    }
  };
  if (bytes == 16) return with_vector(static_cast<uint4*>(nullptr));
  if (bytes == 8) return with_vector(static_cast<uint2*>(nullptr));
  with_vector(static_cast<unsigned*>(nullptr));
}

void fill_difference(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes,
                     const Box* previous, std::int64_t count, void* batch, StreamView stream) {
  const unsigned bytes =
      common_unit({static_cast<std::uint64_t>(layout.pixel_bytes), number(image), number(fill), number(batch)});
  const std::int64_t per_column = layout.pixel_bytes / bytes;
  with_unit(bytes, [&](auto* null) {
    using Unit = std::remove_pointer_t<decltype(null)>;
    auto* next = static_cast<Unit*>(batch);
    for (std::int64_t done = 0; done < count; done += positions_at_once) {
      const int some = static_cast<int>(std::min<std::int64_t>(count - done, positions_at_once));
      Patches patches;
      std::int64_t tallest = 0;
      for (int i = 0; i < some; ++i) {
        const Box& before = previous[done + i];
        const Box& now = boxes[done + i];
        patches.before[i] = area(before, per_column);
        patches.now[i] = area(now, per_column);
        tallest = std::max({tallest, before.bottom - before.top, now.bottom - now.top});
      }
      const std::int64_t rows = 2 * some * layout.planes * tallest;
      const Grid grid = grid_for(std::min(rows, most_blocks * most_threads) * warp_size, 1);
      launch(move_patches<Unit>, grid, queue(stream), static_cast<const Unit*>(image), static_cast<const Unit*>(fill),
             next, layout.planes, layout.height, layout.width * per_column, tallest, some, patches);
      next += some * static_cast<std::int64_t>(layout.bytes() / bytes);
    }
  });
}

}  // namespace

void fill_occluded(const void* image, const void* fill, const ImageLayout& layout, const Box* boxes,
                   const Box* previous, std::int64_t count, void* batch, StreamView stream) {
  check_boxes(boxes, count, layout.height, layout.width, "box");
  if (previous != nullptr) check_boxes(previous, count, layout.height, layout.width, "previous box");
  check_sides({layout.height, static_cast<std::int64_t>(layout.row_bytes())});
  if (count == 0 || layout.bytes() == 0) return;
  const CurrentDevice current(stream.device);
  if (previous != nullptr) {
    fill_difference(image, fill, layout, boxes, previous, count, batch, stream);
  } else {
    fill_all(image, fill, layout, boxes, count, batch, stream);
  }
}

void overlay_windows(const void* original, const ImageLayout& layout, const void* source, std::int64_t source_height,
                     std::int64_t source_width, std::size_t source_stride, const Placement* placements,
                     std::int64_t count, std::int64_t height, std::int64_t width, const void* border, void* windows,
                     StreamView stream) {
  check_placements(placements, count, layout, source_height, source_width, height, width, border != nullptr);
  check_sides({layout.height, source_height, height, layout.width * layout.pixel_bytes,
               source_width * layout.pixel_bytes, width * layout.pixel_bytes});
  if (count == 0 || layout.planes * height * width * layout.pixel_bytes == 0) return;
  const CurrentDevice current(stream.device);
  overlay_in_units(original, layout, source, source_height, source_width, source_stride, placements, count, height,
                   width, border, windows, stream);
}

}  // namespace onnxviz::cuda
